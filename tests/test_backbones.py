"""Backbones that configs/common offers and no config has, and details of those in configs."""

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from torch import nn

from hybrid_cascade.export import largest_differences, trace
from hybrid_cascade.layers.deform_conv import DeformConv

from .small_configs import CONFIGS, load_small
from .test_swap_heads import check_it_runs


def config(name, change=lambda model: None):
    """Return the model of a config in configs/htc, changed, and with few channels."""
    return load_small(f"htc/{name}.py", change).model


def function(file, name):
    return LazyConfig.load(str(CONFIGS / "common" / "backbones" / f"{file}.py"), name)


def regnetx(model):
    function("regnet", "use_regnet")(model, "x")


def mvitv2(size):
    return lambda model: function("mvitv2", "use_mvitv2")(model, size)


def resnet50_of_timm(model):
    model.backbone.bottom_up.update(name="resnet50")


CASES = {
    "RegNetX-4GF": ("htc_regnety_4gf_fpn_1x", regnetx),
    "MViTv2-S": ("htc_mvitv2_t_3x", mvitv2("S")),
    "MViTv2-B": ("htc_mvitv2_t_3x", mvitv2("B")),
    "another of timm": ("htc_timm_convnext_t_fpn_3x", resnet50_of_timm),
}


@pytest.mark.parametrize("name", CASES)
def test_htc_trains_and_infers_on_the_backbones_that_no_config_has(name, inputs, storage):
    check_it_runs(instantiate(config(*CASES[name])), inputs[:1])


def test_a_graph_with_deformable_convolutions_detects_what_the_model_detects(inputs):
    model = config("htc_r50_fpn_dcn_1x")
    model.roi_heads.num_classes = 5  # so that untrained scores are above the threshold
    model = instantiate(model).eval()
    graph = trace(model, inputs[0]["image"])
    with torch.jit.optimized_execution(False):  # it would take longer than all else
        assert len(graph(inputs[1]["image"])[0]) > 0
        differences = largest_differences(model, graph, inputs[1]["image"])
    assert set(differences.values()) == {0}


def test_deformable_convolutions_are_those_of_res3_to_res5():
    with torch.device("meta"):
        bottom_up = instantiate(config("htc_r50_fpn_dcn_1x").backbone.bottom_up)
    deformable = {
        name.split(".")[0] for name, m in bottom_up.named_modules() if isinstance(m, DeformConv)
    }
    assert deformable == {"res3", "res4", "res5"}


def test_a_stack_of_stages_of_its_own_is_the_resnet_of_detectron2():
    path = str(CONFIGS / "htc" / "htc_r50_fpn_1x.py")
    ours, theirs = LazyConfig.load(path).model, LazyConfig.load(path).model
    ours.backbone.bottom_up.stages = function("resnet", "resnet_stages")(50)
    with torch.device("meta"):
        ours, theirs = (instantiate(model.backbone.bottom_up) for model in (ours, theirs))
    assert str(ours) == str(theirs)


def decays(name):
    """Return weight decay and learning rate of the backbone's parameters, by name."""
    cfg = load_small(f"htc/{name}.py")
    model = instantiate(cfg.model.backbone)
    if name.startswith("htc_vitdet"):
        model = nn.ModuleDict({"backbone": model})
    cfg.optimizer.params.model = model
    names = {id(p): n for n, p in model.named_parameters()}
    optimizer = instantiate(cfg.optimizer)
    return {
        names[id(p)]: (group["weight_decay"], group["lr"])
        for group in optimizer.param_groups
        for p in group["params"]
    }


def test_swins_norms_and_position_biases_do_not_decay_and_all_else_does():
    decay = decays("htc_pp_swin_l_3x")
    still = {name for name, (weight_decay, _) in decay.items() if weight_decay == 0}
    assert still == {n for n in decay if "norm" in n or "relative_position_bias_table" in n}
    assert any("relative_position" in name for name in still)
    assert {values for name, values in decay.items() if name not in still} == {(0.05, 1e-4)}


def test_blocks_of_vitdet_learn_the_slower_the_deeper_they_lie_below_the_heads():
    rates = decays("htc_vitdet_b_3x")
    for block in range(12):
        rate = rates[f"backbone.net.blocks.{block}.mlp.fc1.weight"][1]
        assert rate == pytest.approx(1e-4 * 0.7 ** (12 - block))
    assert rates["backbone.simfp_2.0.weight"][1] == pytest.approx(1e-4)
    assert rates["backbone.net.pos_embed"][0] == 0


def test_every_fourth_part_of_vitdet_ends_with_a_block_that_sees_all_of_the_image():
    for name, last in (("htc_vitdet_b_3x", [2, 5, 8, 11]), ("htc_vitdet_l_3x", [5, 11, 17, 23])):
        blocks = instantiate(config(name).backbone).net.blocks
        assert [i for i, block in enumerate(blocks) if block.window_size == 0] == last


def test_the_heads_of_htc_pp_are_larger_with_batch_norms_over_all_gpus_and_giou():
    heads = LazyConfig.load(str(CONFIGS / "htc" / "htc_pp_swin_l_3x.py")).model.roi_heads
    with torch.device("meta"):
        heads = instantiate(heads)
    for head, predictor in zip(heads.box_head, heads.box_predictor, strict=True):
        assert [isinstance(conv.norm, nn.SyncBatchNorm) for conv in head.conv_norm_relus] == [
            True
        ] * 4
        assert [fc.out_features for fc in head.fcs] == [1024]
        assert predictor.box_reg_loss_type == "giou"
        assert predictor.loss_weight["loss_box_reg"] == 10
