"""Parts that stay as they are, losses that are left out, and MNC trained step by step."""

import re
import shlex
import textwrap
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg
from torch import nn

from hybrid_cascade.data import register_toy_scenes
from hybrid_cascade.engine import (
    Trainer,
    as_run_config,
    build_model,
    load_config,
    load_weights,
)
from hybrid_cascade.engine.partial_training import freeze_parts, select_losses

from ..small_configs import shrink

ROOT = Path(__file__).parent.parent.parent
TOY = str(ROOT / "configs" / "quick_start" / "mnc_toy.py")
HEADS = ["roi_heads.masked_head", "roi_heads.box_head", "roi_heads.predictor"]


@pytest.fixture(scope="module", autouse=True)
def toy_scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "toy_scenes"
    register_toy_scenes(str(root), "few_toy_scenes", num_train=5, num_val=2)


def copy_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(model, before):
    after = model.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def are_in(names, parts):
    return all(any(name.startswith(f"{part}.") for part in parts) for name in names)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        y = self.head(self.body(x))
        return {"loss_a": y.square().mean(), "loss_ab": y.abs().mean(), "loss_c": y.mean()}


def test_frozen_parts_need_no_gradients_and_let_them_through():
    model = Two()
    freeze_parts(model, ["head"])
    assert [p.requires_grad for p in model.head.parameters()] == [False, False]
    sum(model(torch.randn(5, 3)).values()).backward()
    assert all(p.grad.abs().max() > 0 for p in model.body[0].parameters() if p.dim() > 1)
    assert all(p.grad is None for p in model.head.parameters())
    freeze_parts(model, [])  # nothing


@pytest.mark.parametrize(
    "names, message",
    [
        (["head", "bodi"], r"SOLVER.FREEZE.* no part 'bodi'; it has \['body', 'head'\]"),
        (["body.7"], r"no part 'body.7'; body has \['0', '1'\]"),
        (["bod"], "no part 'bod'"),
        ([""], "no part ''"),
        (["head", "body"], r"train.freeze.*\['head', 'body'\] leaves nothing to train"),
    ],
)
def test_parts_that_are_not_there_and_nothing_to_train_are_errors(names, message):
    with pytest.raises(ValueError, match=message):
        freeze_parts(Two(), names)


@pytest.mark.parametrize(
    "patterns, selected",
    [
        (["loss_a"], {"loss_a"}),
        (["loss_a*"], {"loss_a", "loss_ab"}),
        (["loss_c", "loss_?b"], {"loss_c", "loss_ab"}),
    ],
)
def test_only_the_selected_losses_have_gradients(patterns, selected):
    model, x = Two(), torch.randn(5, 3)
    torch.manual_seed(0)
    expected = {name: loss.item() for name, loss in model(x).items()}
    select_losses(model, patterns)
    losses = model(x)
    assert {name: loss.item() for name, loss in losses.items()} == expected
    assert {name for name, loss in losses.items() if loss.requires_grad} == selected
    model.eval()
    assert all(loss.requires_grad for loss in model(x).values())


def test_a_copy_of_the_model_detects_while_the_model_trains():
    model = nn.Linear(2, 2)
    select_losses(model, ["loss_a"])
    copy = deepcopy(model).eval()
    assert model.training and copy(torch.zeros(1, 2)).shape == (1, 2)


def test_a_pattern_without_a_loss_is_an_error():
    model = Two()
    select_losses(model, ["loss_a", "loss_mask*"])
    with pytest.raises(ValueError, match=r"SOLVER.LOSSES.* no loss 'loss_mask\*', but \['loss_a'"):
        model(torch.randn(5, 3))


def lazy_trainer(folder, *overrides):
    data = ["dataloader.train.dataset.names=few_toy_scenes_train"]
    data += [
        "dataloader.test.dataset.names=few_toy_scenes_val",
        "train.num_panels=0",
        "train.report.enabled=False",
    ]
    data += ["dataloader.train.total_batch_size=2", f"train.output_dir={folder}"]
    return Trainer(load_config(TOY, [*data, "train.max_iter=2", *overrides]))


YAML = f"""
_BASE_: "{ROOT}/configs/yaml/mnc/mnc_vgg16_3stage_voc.yaml"
MODEL:
  WEIGHTS: ""
  BACKBONE: {{FREEZE_AT: 0}}
  RPN: {{POST_NMS_TOPK_TRAIN: 20, POST_NMS_TOPK_TEST: 10}}
  ROI_HEADS: {{NUM_CLASSES: 5, BATCH_SIZE_PER_IMAGE: 8}}
  ROI_BOX_HEAD: {{FC_DIM: 16}}
  ROI_MNC_HEAD: {{MASK_FC_DIM: 16, END_TO_END: False}}
DATASETS:
  TRAIN: ("few_toy_scenes_train",)
  TEST: ("few_toy_scenes_val",)
DATALOADER: {{NUM_WORKERS: 0}}
INPUT:
  MIN_SIZE_TRAIN: (64,)
  MIN_SIZE_TEST: 64
SOLVER: {{IMS_PER_BATCH: 1, MAX_ITER: 1, BASE_LR: 0.0001}}
TEST: {{NUM_PANELS: 0, REPORT: {{ENABLED: False}}}}
"""


def yaml_trainer(folder, *overrides):
    (folder / "tiny.yaml").write_text(YAML)
    return Trainer(load_config(str(folder / "tiny.yaml"), ["OUTPUT_DIR", str(folder), *overrides]))


@pytest.mark.parametrize("kind", ["lazy", "yaml"])
def test_a_training_leaves_frozen_parts_as_they_are_bit_for_bit(kind, tmp_path):
    frozen, losses = ["backbone", "proposal_generator", *HEADS], ["loss_mask*"]
    if kind == "lazy":
        overrides = [f"train.freeze=[{','.join(frozen)}]", "train.losses=[loss_mask*]"]
        overrides.append("model.roi_heads.end_to_end=False")
        trainer = lazy_trainer(tmp_path, *overrides, "train.eval_period=1")
    else:
        trainer = yaml_trainer(tmp_path, "SOLVER.FREEZE", str(frozen), "SOLVER.LOSSES", str(losses))
    model, before = trainer.model, copy_of(trainer.model)
    trainer.train()
    assert changed(model, before) == {
        f"roi_heads.mask_head.{layer}.{kind}"
        for layer in ("fc", "predictor")
        for kind in ("weight", "bias")
    }
    in_optimizer = sum(len(group["params"]) for group in trainer.optimizer.param_groups)
    assert in_optimizer == 4


def test_without_options_everything_is_trained(tmp_path):
    trainer = lazy_trainer(tmp_path)
    before = copy_of(trainer.model)
    trainer.train()
    parameters = {name for name, _ in trainer.model.named_parameters()}
    unchanged = parameters - changed(trainer.model, before)
    assert not [name for name in unchanged if not name.endswith("bias")]
    assert any(name.endswith("running_mean") for name in changed(trainer.model, before))


@pytest.mark.parametrize("kind", ["lazy", "yaml"])
def test_a_training_on_some_losses_changes_what_they_reach_only(kind, tmp_path):
    if kind == "lazy":
        trainer = lazy_trainer(tmp_path, "train.losses=[loss_rpn_*]")
    else:
        trainer = yaml_trainer(tmp_path, "SOLVER.LOSSES", "['loss_rpn_*']")
    before = copy_of(trainer.model)
    trainer.train()
    names = changed(trainer.model, before)
    assert names and are_in(names, ["backbone", "proposal_generator"])


def test_an_unknown_part_is_found_before_the_first_iteration(tmp_path):
    with pytest.raises(ValueError, match="no part 'backbon'; it has .*'backbone'"):
        lazy_trainer(tmp_path, "train.freeze=[backbon]")


def documented_commands():
    """The overrides of each command of docs/mnc.md that trains with frozen parts, and the code."""
    text = (ROOT / "docs" / "mnc.md").read_text().replace("\\\n", "")
    commands = [shlex.split(line) for line in text.splitlines() if "train.freeze=" in line]
    [code] = re.findall(r'^    python -c "(.*?)"$', text, re.DOTALL | re.MULTILINE)
    return commands, textwrap.dedent(f"    {code}")


def small_model(net, command):
    """The model of a command in training mode, its config, and which losses it is trained on."""
    [path] = [x.replace("vgg16", net) for x in command if x.startswith("configs/mnc/")]
    cfg = load_config(str(ROOT / path), [x for x in command if x.startswith("train.")])
    backbones = cfg.model.backbone
    for backbone in [backbones] if row_of(command) == "shared" else backbones.values():
        if net == "vgg16" and hasattr(backbone, "out_features"):
            backbone.channels = [4, 4, 4, 4, 512]
    shrink(cfg.model)
    model = build_model(cfg).train()
    freeze_parts(model, cfg.train.freeze)
    select_losses(model, cfg.train.losses)
    return model, cfg


def row_of(command):
    return re.search("(separate|shared)_features", " ".join(command)).group(1)


@pytest.mark.parametrize("net", ["vgg16", "zf"])
def test_each_documented_step_of_the_ablation_trains_its_stage_only(
    net, inputs, storage, tmp_path, monkeypatch
):
    """One iteration each, of a small model."""
    commands, code = documented_commands()
    assert [row_of(c) for c in commands] == ["separate"] * 3 + ["shared"] * 3
    monkeypatch.chdir(tmp_path)
    last = f"{net}_separate_features.pth"
    for step, command in enumerate(commands):
        model, cfg = small_model(net, command)
        if step == 3:
            exec(code, {})  # stage 3's features become those of all stages
            last = "output/b0.pth"
        assert cfg.train.init_checkpoint == last
        if step > 0:
            load_weights(model, last)
        optimizer = as_run_config(cfg).build_optimizer(get_cfg(), model)
        before = copy_of(model)
        sum(model(inputs[:1]).values()).backward()
        optimizer.step()
        stage = step % 3
        parts = [["proposal_generator"], ["roi_heads.mask_head"], HEADS][stage]
        if row_of(command) == "separate":
            parts = [*parts, f"backbone.backbones.{['proposal', 'mask', 'category'][stage]}"]
        trained = changed(model, before)
        assert are_in(trained, parts)
        assert all(any(are_in([name], [part]) for name in trained) for part in parts)
        # All that is not frozen has a gradient, as DistributedDataParallel asks for.
        not_frozen = {name for name, p in model.named_parameters() if p.requires_grad}
        assert {name for name, p in model.named_parameters() if p.grad is not None} == not_frozen
        folder = Path(cfg.train.output_dir)
        folder.mkdir(parents=True)
        last = str(folder / "model_final.pth")
        torch.save({"model": model.state_dict(), "iteration": 1}, last)
