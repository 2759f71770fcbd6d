import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from torchvision.models.detection import ssd300_vgg16

from hybrid_cascade.model_zoo import get_config_file
from hybrid_cascade.modeling import SSDVGG16


@pytest.mark.parametrize(
    ("name", "cells", "num_boxes"),
    [
        ("ssd300", [38, 19, 10, 5, 3, 1], 8732),
        ("ssd512", [64, 32, 16, 8, 4, 2, 1], 24564),
    ],
)
def test_sides_of_maps_and_numbers_of_default_boxes_are_those_of_the_paper(name, cells, num_boxes):
    cfg = LazyConfig.load(get_config_file(f"ssd/{name}_vgg16.py")).model
    with torch.device("meta"):
        model = instantiate(cfg)
        maps = model.backbone(torch.empty(2, 3, cfg.image_size, cfg.image_size))
        logits = model.head(list(maps.values()))["cls_logits"]
    shapes = model.backbone.output_shape()
    assert list(maps) == list(shapes)
    for (key, shape), side in zip(shapes.items(), cells, strict=True):
        assert maps[key].shape == (2, shape.channels, side, side)
    assert [shape.stride for shape in shapes.values()] == list(cfg.anchor_generator.steps)
    assert logits.shape == (2, num_boxes, 81)


def test_parameters_have_the_names_of_torchvision():
    with torch.device("meta"):
        theirs = ssd300_vgg16(weights=None, weights_backbone=None).backbone.state_dict()
        ours = SSDVGG16().state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.parametrize(("freeze_at", "frozen"), [(0, 0), (1, 2), (3, 7), (5, 13)])
def test_the_first_blocks_are_frozen(freeze_at, frozen):
    with torch.device("meta"):
        backbone = SSDVGG16(freeze_at=freeze_at)
    weights = {n: p for n, p in backbone.named_parameters() if n.endswith("weight")}
    learns = [p.requires_grad for p in weights.values()]
    names = [n for n, p in weights.items() if not p.requires_grad]
    assert learns.count(False) == frozen and len(names) == frozen
    assert frozen == 0 or "features.0.weight" in names
    assert backbone.scale_weight.requires_grad


def test_a_freeze_at_of_more_than_5_blocks_is_an_error():
    with torch.device("meta"), pytest.raises(ValueError, match="5 blocks.*freeze_at=6"):
        SSDVGG16(freeze_at=6)
