"""torchvision's SSD and its VGG-16: which tensors convert, and that detections are the same."""

import re
import sys

import pytest
import torch
import torchvision
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from torchvision.models.detection import ssd300_vgg16

from hybrid_cascade import model_zoo
from hybrid_cascade.converters import convert, describe, find_source
from hybrid_cascade.engine import build_model, load_config, load_weights

sys.path.insert(0, str(model_zoo.CONFIGS.parent / "tools"))
import convert_checkpoint  # noqa: E402

CATEGORY_IDS = MetadataCatalog.get("coco_2017_val").thing_dataset_id_to_contiguous_id


def target(config="ssd/ssd300_vgg16.py", **overrides):
    cfg = model_zoo.get_config(config).model
    cfg.update(overrides)
    with torch.device("meta"):
        return instantiate(cfg)


def published(builder=ssd300_vgg16):
    """Return a state dict with the names and shapes of a published file."""
    names = {"weights_backbone": None} if builder is ssd300_vgg16 else {}
    with torch.device("meta"):
        return builder(weights=None, **names).state_dict()


def convert_to(model, state_dict):
    names = model.state_dict()
    return convert(find_source("torchvision", state_dict, names), state_dict, names)


def test_a_converted_file_gives_the_boxes_and_scores_of_torchvision(tmp_path):
    with torch.device("meta"):  # the initialization of VGG-16 takes seconds
        theirs = ssd300_vgg16(weights=None, weights_backbone=None, score_thresh=0.3).eval()
    theirs.to_empty(device="cpu")
    torch.nn.init.constant_(theirs.backbone.scale_weight, 20)
    for module in theirs.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    with torch.no_grad():
        for layer in theirs.head.classification_head.module_list:
            # Training has lowered the scores of classes that do not occur.
            bias = layer.bias.view(-1, 91)
            bias[:, [c for c in range(1, 91) if c not in CATEGORY_IDS]] = -1e4
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    config = model_zoo.get_config_file("ssd/ssd300_vgg16.py")
    # The same memory format as torchvision: random weights amplify differences of rounding.
    overrides = ["train.channels_last=False", "model.score_thresh=0.3"]
    args = ["--from", "torchvision", str(tmp_path / "theirs.pth"), str(tmp_path / "ours.pth")]
    assert convert_checkpoint.main([*args, "--config-file", config, *overrides]) == 0
    ours = build_model(load_config(config, overrides))
    load_weights(ours, str(tmp_path / "ours.pth"))

    image = torch.randint(0, 256, (3, 211, 333), dtype=torch.uint8)
    with torch.no_grad():
        expected = theirs([image / 255])[0]
        found = ours([{"image": image}])[0]["instances"]
    full = (expected["boxes"][:, 2:] > expected["boxes"][:, :2]).all(dim=1)
    assert len(found) == full.sum() > 10
    torch.testing.assert_close(found.scores, expected["scores"][full], rtol=0, atol=1e-3)
    torch.testing.assert_close(found.pred_boxes.tensor, expected["boxes"][full], rtol=0, atol=0.02)
    classes = [CATEGORY_IDS[label] for label in expected["labels"][full].tolist()]
    assert found.pred_classes.tolist() == classes and len(set(classes)) > 3


def test_layers_for_another_number_of_classes_start_fresh():
    model = target(num_classes=5)
    result = convert_to(model, published())
    layers = {name.rpartition(".")[0] for name in result.fresh}
    assert layers == {f"head.classification_head.module_list.{i}" for i in range(6)}
    assert all("other classes" in why for why in result.fresh.values())


def test_a_model_with_all_90_classes_keeps_them():
    assert not convert_to(target(num_classes=90), published()).fresh


def test_default_boxes_of_another_model_are_refused():
    with pytest.raises(ValueError, match="Wrong shapes.*regression_head.module_list.4.weight"):
        convert_to(target("ssd/ssd512_vgg16.py"), published())


@pytest.mark.parametrize("config", ["ssd/ssd300_vgg16.py", "ssd/ssd512_vgg16.py"])
def test_vgg16_fills_its_layers_and_the_rest_starts_fresh(config):
    model = target(config)
    vgg = torchvision.models.vgg16
    result = convert_to(model, published(vgg))
    assert len(result.state_dict) == 26
    assert ("features.21.bias", "backbone.features.21.bias") in result.mapped
    assert ("features.24.weight", "backbone.extra.0.1.weight") in result.mapped
    assert {"backbone.scale_weight", "backbone.extra.0.7.1.weight"} < set(result.fresh)
    assert set(result.state_dict) | set(result.fresh) == set(model.state_dict())
    assert set(result.left.values()) == {"the classification layers"}


def test_vgg16_computes_the_same_in_ssd():
    vgg = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    model = instantiate(model_zoo.get_config("ssd/ssd300_vgg16.py").model.backbone)
    state_dict = {f"features.{k}": v for k, v in vgg.state_dict().items()}
    renamed = convert_to(target(), state_dict).state_dict
    weights = {name.removeprefix("backbone."): tensor for name, tensor in renamed.items()}
    model.load_state_dict(weights, strict=False)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        conv4_3 = vgg[:23](x)
        torch.testing.assert_close(model.features(x), conv4_3)
        torch.testing.assert_close(model.extra[0][:7](conv4_3), vgg[23:30](conv4_3))


@pytest.mark.parametrize("builder", ["vgg19", "vgg16_bn"])
def test_other_vggs_are_refused(builder):
    with pytest.raises(ValueError, match="This is a VGG with"):
        convert_to(target(), published(getattr(torchvision.models, builder)))


def test_an_incomplete_vgg16_is_refused():
    state_dict = published()
    del state_dict["backbone.extra.0.5.bias"]
    with pytest.raises(ValueError, match="get no value.*backbone.extra.0.5.bias"):
        convert_to(target(), state_dict)


def test_an_ssd_is_refused_for_other_models():
    htc = target("quick_start/htc_toy.py")
    with pytest.raises(ValueError, match="Nothing in the file has the name"):
        convert_to(htc, published())


def test_a_config_that_prepares_images_in_another_way_is_warned_about():
    cfg = model_zoo.get_config("ssd/ssd300_vgg16.py").model
    model, state_dict = instantiate(cfg), published()
    source = find_source("torchvision", state_dict, model.state_dict())
    converted = convert(source, state_dict, model.state_dict())
    assert "WARNING" not in "\n".join(describe(source, converted, model))
    model.input_format = "BGR"
    warned = "\n".join(describe(source, converted, model))
    assert re.search(r"WARNING.*model.input_format=RGB.*\[122.99925,116.9991,103.9992\]", warned)
    assert "stride" not in warned


def test_without_a_model_the_names_in_the_file_tell_that_it_is_an_ssd():
    result = convert(find_source("torchvision", published()), published())
    name = "head.classification_head.module_list.0.weight"
    assert result.state_dict[name].shape[0] == 4 * 81
