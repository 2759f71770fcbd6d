"""MMDetection's backbones other than ResNet: maps that agree, and messages where there is none."""

from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from torch import nn

from hybrid_cascade import model_zoo
from hybrid_cascade.converters import MMDET, convert
from hybrid_cascade.converters.layer_names import Layout
from hybrid_cascade.modeling import HRFPN, TimmBackbone

from ..data.filled_weights import filled_weights

pytest.importorskip("timm")
DATA = Path(__file__).resolve().parents[1] / "data"
FEATURES = ["res2", "res3", "res4", "res5"]
TIMM_CONFIGS = {
    "convnext": "cascade_mask_rcnn/cascade_mask_rcnn_convnext_t_fpn_3x.py",
    "res2net": "htc/htc_res2net101_fpn_20e.py",
    "hrnet": "htc/htc_hrnet_w32_20e.py",
}


def under_a_pyramid(bottom_up):
    """A model with the names of a backbone under a pyramid."""
    return nn.ModuleDict({"backbone": nn.ModuleDict({"bottom_up": bottom_up})})


def convnext():
    return under_a_pyramid(
        TimmBackbone("convnext_tiny", depths=[1, 1, 2, 1], dims=[8, 16, 32, 64], out_norm="LN")
    )


def res2net(pool_first_block=False):
    size = {"channels": (8, 16, 32, 64), "stem_width": 4}
    return under_a_pyramid(TimmBackbone("res2net50d", pool_first_block=pool_first_block, **size))


def hrnet():
    with torch.device("meta"):
        body = TimmBackbone("hrnet_w18_small", feature_location="")
    return nn.ModuleDict({"backbone": HRFPN(body.to_empty(device="cpu"), FEATURES, 8)})


BUILD = {"convnext": convnext, "res2net": res2net, "hrnet": hrnet}


@pytest.fixture(scope="module")
def recorded():
    return torch.load(DATA / "backbones_mmdet.pth", weights_only=True)


@torch.no_grad()
def maps_of(model, weights, image):
    converted = convert(MMDET, weights, model.state_dict())
    model.load_state_dict(converted.state_dict)
    backbone = model.eval()["backbone"]
    maps = (backbone if isinstance(backbone, HRFPN) else backbone["bottom_up"])(image)
    return [map_ for name, map_ in maps.items() if name != "res1"]


@pytest.mark.parametrize("name", BUILD)
def test_maps_are_those_of_mmdetection(name, recorded):
    theirs = recorded["models"][name]
    maps = maps_of(BUILD[name](), filled_weights(theirs["shapes"]), recorded["image"])
    assert len(maps) == len(theirs["maps"])
    for map_, expected in zip(maps, theirs["maps"], strict=True):
        assert map_.shape == expected.shape
        assert (map_ - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_res2net_that_pools_in_its_first_block_differs_and_gets_a_warning(recorded):
    theirs = recorded["models"]["res2net"]
    weights = filled_weights(theirs["shapes"])
    model = res2net(pool_first_block=True)
    first = maps_of(model, weights, recorded["image"])[0]
    assert (first - theirs["maps"][0]).abs().max() > 0.1 * theirs["maps"][0].abs().max()
    model.backbone = model["backbone"]
    model.backbone.bottom_up = model.backbone["bottom_up"]
    for yaml, override in ((False, "pool_first_block=False"), (True, "POOL_FIRST_BLOCK False")):
        assert override in MMDET.check(model, yaml)
    model.backbone.bottom_up.net.layer1[0].pool = None
    assert MMDET.check(model, False) == ""


def build_config(path):
    with torch.device("meta"):
        return instantiate(model_zoo.get_config(path).model)


def of_mmdetection(name):
    """Shapes of the backbone and the neck of a full-size model of MMDetection, one of each kind."""
    keys = {
        "swin": ["layers.0.blocks.0.attn.qkv.weight"],
        "convnext": ["stages.0.0.depthwise_conv.weight"],
        "res2net": ["layer1.0.convs.0.weight"],
        "hrnet": ["stage2.0.branches.0.0.conv1.weight"],
    }
    return {f"backbone.{key}": torch.zeros(1) for key in keys[name]}


@pytest.mark.parametrize(
    ("name", "part", "advice"),
    [
        ("swin", "a Swin Transformer", "cascade_mask_rcnn_swin_t_fpn_3x.py"),
        ("convnext", "a ConvNeXt", "cascade_mask_rcnn_convnext_t_fpn_3x.py"),
        ("res2net", "a Res2Net", "htc_res2net101_fpn_20e.py"),
        ("hrnet", "an HRNet", "htc_hrnet_w32_20e.py"),
    ],
)
def test_a_config_without_the_backbone_of_the_file_is_refused(name, part, advice, tiny_model):
    with pytest.raises(ValueError, match=f"{part}.*of this config has none.*{advice}"):
        convert(MMDET, of_mmdetection(name), tiny_model.state_dict())


@pytest.mark.parametrize("name", TIMM_CONFIGS)
def test_names_of_timm_need_a_config(name):
    with pytest.raises(ValueError, match="--config-file"):
        convert(MMDET, of_mmdetection(name))


@pytest.mark.parametrize(
    ("tensor", "part"),
    [
        ("neck.pafpn_convs.0.conv.weight", "PAFPN"),
        ("neck.1.refine.conv.weight", "neck of several parts"),
        ("neck.rfp_aspp.aspp.0.weight", "DetectoRS"),
        ("backbone.layer1.0.conv2.fc1.weight", "ResNeSt"),
        ("rpn_head.conv_loc.weight", "guided anchoring"),
        ("rpn_head.stages.0.rpn_reg.weight", "cascade of RPNs"),
    ],
)
def test_a_part_without_counterpart_is_named(tensor, part):
    state_dict = {"backbone.conv1.weight": torch.zeros(1), tensor: torch.zeros(1)}
    with pytest.raises(ValueError, match=rf"{part}.*{tensor}.*no counterpart"):
        convert(MMDET, state_dict)


@pytest.mark.parametrize("name", TIMM_CONFIGS)
def test_the_configs_have_every_kind_of_tensor_of_the_file(name, recorded):
    """Their depths and widths differ from the recorded models; the names are of the same kinds."""
    model = build_config(TIMM_CONFIGS[name])
    target = model.state_dict()
    kinds = {
        key for key in recorded["models"][name]["shapes"] if not key.endswith("batches_tracked")
    }
    layout = Layout.of(target)
    renamed = [new for key in kinds for new in MMDET.rename(key, layout)]
    assert len(renamed) == len(kinds) and set(renamed) <= target.keys()
    assert MMDET.check(model, False) == ""
