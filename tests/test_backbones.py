"""Every backbone that the configs offer, with few channels: one training step, one inference."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from torch import nn

from hybrid_cascade.engine.export import largest_differences, trace
from hybrid_cascade.layers.deform_conv import DeformConv

from .test_swap_heads import check_it_runs

CONFIGS = Path(__file__).parent.parent / "configs"


def load(name):
    """The model of a config, with an FPN and heads of a few channels."""
    model = LazyConfig.load(str(CONFIGS / "htc" / f"{name}.py")).model
    model.backbone.out_channels = 16
    model.semantic_branch.conv_dim = 16
    heads = model.roi_heads
    heads.box_heads[0].conv_dims = [8] * len(heads.box_heads[0].conv_dims)
    heads.box_heads[0].fc_dims = [16]
    heads.mask_heads[0].conv_dims = [16, 16]
    heads.batch_size_per_image = 8
    model.proposal_generator.post_nms_topk = (20, 10)
    return model


def function(file, name):
    return LazyConfig.load(str(CONFIGS / "common" / "backbones" / f"{file}.py"), name)


def resnet(name):
    model = load(name)
    bottom_up = model.backbone.bottom_up
    if "depth" in bottom_up.stages:
        bottom_up.stages = function("resnet", "resnet_stages")(bottom_up.stages.depth)
    bottom_up.stem.out_channels //= 4
    for stage in bottom_up.stages:
        for channels in ("in_channels", "bottleneck_channels", "out_channels"):
            stage[channels] //= 4
    return model


def regnet(kind):
    model = load("htc_regnety_4gf_fpn_1x")
    function("regnet", "use_regnet")(model, kind)
    model.backbone.bottom_up.update(stem_width=8, w_0=24, w_a=31.41 / 4, w_m=2.24, group_width=8)
    return model


def swin(name):
    model = load(name)
    model.backbone.bottom_up.update(embed_dim=12, num_heads=[1, 1, 2, 2])
    return model


def vitdet(name):
    model = load(name)
    model.backbone.net.update(img_size=64, embed_dim=24, num_heads=2, window_size=4)
    model.backbone.square_pad = 160
    return model


def mvitv2(size):
    model = load("htc_mvitv2_t_3x")
    function("mvitv2", "use_mvitv2")(model, size)
    model.backbone.bottom_up.embed_dim = 8
    return model


def timm(name):
    model = load("htc_timm_convnext_t_fpn_3x")
    model.backbone.bottom_up.update(name=name)
    return model


CASES = {
    "R50": (resnet, "htc_r50_fpn_1x"),
    "R101": (resnet, "htc_r101_fpn_20e"),
    "X101-32x4d": (resnet, "htc_x101_32x4d_fpn_20e"),
    "X101-64x4d": (resnet, "htc_x101_64x4d_fpn_20e"),
    "R50-DCN": (resnet, "htc_r50_fpn_dcn_1x"),
    "R101-DCN": (resnet, "htc_r101_fpn_dcn_20e"),
    "X101-32x4d-DCN": (resnet, "htc_x101_32x4d_fpn_dcn_20e"),
    "X101-64x4d-DCN": (resnet, "htc_x101_64x4d_fpn_dcn_20e"),
    "RegNetX-4GF": (regnet, "x"),
    "RegNetY-4GF": (regnet, "y"),
    "Swin-T": (swin, "htc_swin_t_fpn_3x"),
    "Swin-S": (swin, "htc_swin_s_fpn_3x"),
    "Swin-B": (swin, "htc_swin_b_fpn_3x"),
    "Swin-L, HTC++": (swin, "htc_pp_swin_l_3x"),
    "ViTDet-B": (vitdet, "htc_vitdet_b_3x"),
    "ViTDet-L": (vitdet, "htc_vitdet_l_3x"),
    "MViTv2-T": (mvitv2, "T"),
    "MViTv2-S": (mvitv2, "S"),
    "MViTv2-B": (mvitv2, "B"),
    "timm": (timm, "convnext_atto"),
}


@pytest.mark.parametrize("name", CASES)
def test_htc_trains_and_infers_on_every_backbone(name, inputs, storage):
    make, argument = CASES[name]
    check_it_runs(instantiate(make(argument)), inputs[:1])


def test_a_graph_with_deformable_convolutions_detects_what_the_model_detects(inputs):
    config = resnet("htc_r50_fpn_dcn_1x")
    config.roi_heads.num_classes = 5  # so that untrained scores are above the threshold
    model = instantiate(config).eval()
    graph = trace(model, inputs[0]["image"])
    with torch.jit.optimized_execution(False):  # it would take longer than all else
        assert len(graph(inputs[1]["image"])[0]) > 0
        differences = largest_differences(model, graph, inputs[1]["image"])
    assert set(differences.values()) == {0}


def test_deformable_convolutions_are_those_of_res3_to_res5():
    with torch.device("meta"):
        bottom_up = instantiate(resnet("htc_r50_fpn_dcn_1x").backbone.bottom_up)
    deformable = {
        name.split(".")[0] for name, m in bottom_up.named_modules() if isinstance(m, DeformConv)
    }
    assert deformable == {"res3", "res4", "res5"}


def test_a_stack_of_stages_of_its_own_is_the_resnet_of_detectron2():
    ours, theirs = load("htc_r50_fpn_1x"), load("htc_r50_fpn_1x")
    ours.backbone.bottom_up.stages = function("resnet", "resnet_stages")(50)
    with torch.device("meta"):
        ours, theirs = (instantiate(model.backbone.bottom_up) for model in (ours, theirs))
    assert str(ours) == str(theirs)


def decays(name):
    """Parameters of the config's optimizer by their weight decay."""
    cfg = LazyConfig.load(str(CONFIGS / "htc" / f"{name}.py"))
    make = {"htc_pp_swin_l_3x": swin, "htc_vitdet_b_3x": vitdet}[name]
    model = instantiate(make(name).backbone)
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
        blocks = instantiate(vitdet(name).backbone).net.blocks
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
