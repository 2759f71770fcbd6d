import logging
from collections import Counter
from pathlib import Path

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.utils import logger
from torch import nn

from hybrid_cascade import Predictor
from hybrid_cascade.engine import (
    build_model,
    evaluate,
    evaluation,
    inference_autocast,
    inference_model,
    load_config,
    prepare_inference,
)
from hybrid_cascade.modeling import Float32Layer

CONFIGS = Path(__file__).parents[2] / "configs"
TOY = str(CONFIGS / "quick_start" / "htc_toy.py")
LAZY = (TOY, "train.inference.dtype={}", "train.inference.fuse_layers={}")
YAML = (
    str(CONFIGS / "yaml" / "htc" / "htc_r50_fpn_1x.yaml"),
    "TEST.INFERENCE.DTYPE {}",
    "TEST.INFERENCE.FUSE_LAYERS {}",
)
NORMS = FrozenBatchNorm2d | nn.BatchNorm2d


def load(kind, dtype="float32", fuses=True):
    path, *keys = kind
    return load_config(path, " ".join(k.format(v) for k, v in zip(keys, (dtype, fuses))).split())  # noqa: B905


def count(model, kind):
    return sum(isinstance(m, kind) for m in model.modules())


@pytest.fixture
def processor(monkeypatch):
    """Sets whether the processor has instructions for bfloat16."""
    return lambda has: monkeypatch.setattr(inference_model, "cpu_has_bfloat16", lambda: has)


@pytest.mark.parametrize("kind", [LAZY, YAML], ids=["lazy", "yaml"])
@pytest.mark.parametrize(
    ("dtype", "has_instructions", "expected"),
    [
        ("float32", True, False),
        ("auto", True, True),
        ("auto", False, False),
        ("bfloat16", True, True),
        ("bfloat16", False, True),
    ],
)
def test_auto_is_bfloat16_where_the_processor_has_it(
    kind, dtype, has_instructions, expected, processor, caplog
):
    processor(has_instructions)
    cfg = load(kind, dtype)
    with caplog.at_level(logging.WARNING), inference_autocast(cfg):
        assert torch.is_autocast_enabled("cpu") is expected
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")
    model = nn.ModuleDict({"predictor": nn.Linear(2, 2)})
    assert count(prepare_inference(cfg, model), Float32Layer) == int(expected)


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_auto_is_float32_on_a_gpu(processor):
    processor(True)
    # Without a GPU, torch switches its autocast off, whatever is asked for.
    assert not inference_model._computes_in_bfloat16("auto", "cuda")
    assert inference_model._computes_in_bfloat16("bfloat16", "cuda")
    cfg = load(LAZY, "bfloat16")
    cfg.train.device = "cuda:1"
    assert inference_autocast(cfg).device == "cuda"


def test_slow_bfloat16_is_warned_of(processor, caplog, monkeypatch):
    monkeypatch.setattr(logger, "_LOG_COUNTER", Counter())  # it is logged once in a process
    processor(False)
    with caplog.at_level(logging.WARNING):
        inference_autocast(load(LAZY, "bfloat16"))
    assert "no instructions for bfloat16" in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor: 0\nflags\t\t: fpu avx512f avx512_bf16\n", True),
        ("flags : fpu amx_bf16 amx_tile\n", True),
        ("flags : fpu avx512f\n", False),
        ("Features : fp asimd bf16\n", False),
        (None, False),
    ],
)
def test_the_instructions_are_those_of_cpuinfo(text, expected, tmp_path):
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    assert inference_model.cpu_has_bfloat16(path) is expected


@pytest.mark.parametrize("kind", [LAZY, YAML], ids=["lazy", "yaml"])
def test_layers_are_joined_unless_the_config_says_otherwise(kind):
    cfg = load(kind)
    model = build_model(cfg).train()
    fused = prepare_inference(cfg, model)
    assert count(fused, NORMS) == 0 < count(model, NORMS)
    assert not fused.training and model.training
    assert prepare_inference(load(kind, fuses=False), model) is model


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A toy HTC whose scores differ, and its checkpoint."""
    torch.manual_seed(0)
    model = build_model(load_config(TOY, ["train.device=cpu"]))
    for predictor in model.roi_heads.box_predictor:
        nn.init.normal_(predictor.cls_score.weight, std=0.02)
    path = tmp_path_factory.mktemp("weights") / "toy.pth"
    torch.save({"model": model.state_dict()}, path)
    return model, path


def test_a_predictor_detects_in_the_type_of_the_config(trained):
    image = torch.randint(0, 256, (96, 128, 3), dtype=torch.uint8).numpy()
    found = {}
    for dtype in ("float32", "bfloat16"):
        predictor = Predictor(
            TOY, trained[1], score_thresh=0, overrides=[f"train.inference.dtype={dtype}"]
        )
        assert count(predictor.model, NORMS) == 0
        [result] = predictor(image)
        found[dtype] = result.instances
        assert result.instances.scores.dtype == torch.float32
    scores = [x.scores[:5] for x in found.values()]
    assert not torch.equal(*scores)
    torch.testing.assert_close(*scores, atol=0.05, rtol=0)


@pytest.mark.parametrize("training", [False, True])
def test_an_evaluation_leaves_the_model_as_it_is(training, trained, tmp_path, monkeypatch):
    model = trained[0].train(training)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    cfg = load_config(
        TOY,
        [f"train.output_dir={tmp_path}", "train.inference.dtype=bfloat16", "train.device=cpu"],
    )
    seen = []

    def inference_on_dataset(detect, loader, evaluators):
        with torch.no_grad():
            [output] = detect([{"image": torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)}])
        seen.append(output["instances"])
        assert not torch.is_autocast_enabled("cpu")  # evaluators compute in float32
        return {}

    monkeypatch.setattr(evaluation, "inference_on_dataset", inference_on_dataset)
    monkeypatch.setattr(evaluation, "check_evaluation", lambda *_: None)
    monkeypatch.setattr(evaluation, "_build_evaluators", lambda *_: [])
    monkeypatch.setattr(
        "hybrid_cascade.engine.run_config.LazyRunConfig.build_test_loaders",
        lambda self: [("some_dataset", [])],
    )
    types = []
    hook = model.backbone.register_forward_hook(lambda *args: types.append(args[2]["p2"].dtype))
    evaluate(cfg, model, check_data=False)
    hook.remove()
    assert types == [torch.bfloat16]
    assert seen[0].scores.dtype == torch.float32 and len(seen[0]) > 0
    after = model.state_dict()
    assert model.training is training and after.keys() == before.keys()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert count(model, Float32Layer) == 0
