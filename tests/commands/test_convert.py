from pathlib import Path

import pytest
import torch
from detectron2 import model_zoo as detectron2_zoo

from hybrid_cascade.commands import convert
from hybrid_cascade.engine import build_model, load_config, load_weights
from tests.caffemodel_writer import caffemodel

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = str(ROOT / "tests/data/htc_tiny_mmdet.pth")
CONFIG = str(ROOT / "tests/data/htc_tiny_mmdet.py")

YAML = f"""
_BASE_: {detectron2_zoo.get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml")}
INPUT: {{FORMAT: RGB}}
MODEL:
  META_ARCHITECTURE: SemanticRCNN
  WEIGHTS: ""
  PIXEL_MEAN: [123.675, 116.28, 103.53]
  PIXEL_STD: [58.395, 57.12, 57.375]
  RESNETS: {{STEM_OUT_CHANNELS: 8, RES2_OUT_CHANNELS: 32, WIDTH_PER_GROUP: 8, STRIDE_IN_1X1: false}}
  FPN: {{OUT_CHANNELS: 32}}
  ROI_HEADS: {{NAME: HTCROIHeads, NUM_CLASSES: 5, SCORE_THRESH_TEST: 0.001}}
  ROI_BOX_HEAD: {{FC_DIM: 64, CLS_AGNOSTIC_BBOX_REG: true}}
  ROI_MASK_HEAD: {{CONV_DIM: 32}}
  ROI_BOX_CASCADE_HEAD:
    BBOX_REG_WEIGHTS: [[10, 10, 5, 5], [20, 20, 10, 10], [30.30303, 30.30303, 14.925373, 14.925373]]
  SEMANTIC_BRANCH: {{NUM_CLASSES: 9, CONV_DIM: 32}}
"""


def run(*args):
    return convert.main([str(a) for a in args])


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.pth"


@torch.no_grad()
def test_models_of_lazy_config_and_yaml_load_the_result_and_agree(out, tmp_path, capsys):
    (tmp_path / "tiny.yaml").write_text(YAML)
    image = torch.load(CHECKPOINT, weights_only=True)["outputs"]["image_bgr"].flip(0)
    results = []
    for config in (CONFIG, tmp_path / "tiny.yaml"):
        assert run("--from", "mmdet", CHECKPOINT, out, "--config-file", config) == 0
        report = capsys.readouterr().out
        assert "neck.lateral_convs -> backbone.fpn_lateral2" in report
        assert "backbone.layer1: a counter that batch norm does not need" in report
        assert "WARNING" not in report and "373 tensors" in report
        model = build_model(load_config(str(config)))
        load_weights(model, str(out))
        results.append(model([{"image": image}])[0]["instances"])
    lazy, yaml = results
    assert len(lazy) == 100
    torch.testing.assert_close(lazy.pred_boxes.tensor, yaml.pred_boxes.tensor)
    torch.testing.assert_close(lazy.scores, yaml.scores)


def test_without_a_config_the_report_describes_the_images_that_the_weights_expect(out, capsys):
    assert run("--from", "mmdet", CHECKPOINT, out) == 0
    report = capsys.readouterr().out
    assert "model.input_format=RGB" in report and "stride_in_1x1=False" in report
    assert len(torch.load(out, weights_only=True)["model"]) == 373


def test_a_config_that_prepares_images_in_another_way_gets_a_warning(out, capsys):
    options = ["model.pixel_std=[1,1,1]"]
    assert run("--from", "mmdet", CHECKPOINT, out, "--config-file", CONFIG, *options) == 0
    assert "WARNING: this config prepares images in another way" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("mmdet", ["model.roi_heads.num_classes=7"], "Wrong shapes"),
        ("mmdet", ["model.semantic_branch.num_convs=5"], "get no value"),
        ("mmdet", ["train.no_such_key=5"], "no_such_key"),
        ("torchvision", [], "Nothing in the file has the name of a torchvision weight"),
        ("detectron2", [], "Nothing in the file has the name of a Detectron2 weight"),
    ],
)
def test_a_file_that_does_not_fit_is_an_error_and_nothing_is_written(
    out, capsys, source, options, message
):
    assert run("--from", source, CHECKPOINT, out, "--config-file", CONFIG, *options) == 2
    error = capsys.readouterr().err
    assert message in error and CHECKPOINT in error
    assert not out.exists()


def test_damaged_and_missing_files_are_errors(out, tmp_path, capsys):
    (tmp_path / "half.pth").write_bytes(Path(CHECKPOINT).read_bytes()[:3_000_000])
    assert run("--from", "mmdet", tmp_path / "half.pth", out) == 2
    assert "truncated or damaged" in capsys.readouterr().err
    assert run("--from", "mmdet", tmp_path / "none.pth", out) == 2
    assert "There is no file" in capsys.readouterr().err


def test_torchvision_weights_start_a_training(out, tmp_path, capsys):
    # MMDetection's backbone has torchvision's names, so its weights stand for a small ResNet.
    weights = torch.load(CHECKPOINT, weights_only=True)["state_dict"]
    prefix = "backbone."
    weights = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
    torch.save({**weights, "fc.weight": torch.zeros(1000, 256)}, tmp_path / "resnet.pth")
    assert run("--from", "torchvision", tmp_path / "resnet.pth", out, "--config-file", CONFIG) == 0
    report = capsys.readouterr().out
    assert "layer4 -> backbone.bottom_up.res5" in report
    assert "fc: the classification layers" in report
    assert "roi_heads.box_head: not in the file" in report
    assert "WARNING" not in report


def test_a_file_of_caffe_is_read_and_a_truncated_one_refused(out, tmp_path, capsys):
    weights = {"fc7_mask.weight": torch.randn(4, 4), "fc7_mask.bias": torch.randn(4)}
    content = caffemodel({**weights, "fc9.bias": torch.zeros(2)})
    (tmp_path / "mnc.caffemodel").write_bytes(content)
    assert run("--from", "caffe-mnc", tmp_path / "mnc.caffemodel", out) == 0
    report = capsys.readouterr().out
    assert "fc7_mask -> roi_heads.masked_head.fc2 (2)" in report
    assert "fc9: not a name of MNC that we know (1)" in report
    converted = torch.load(out, weights_only=True)["model"]
    assert torch.equal(converted["roi_heads.masked_head.fc2.bias"], weights["fc7_mask.bias"])
    (tmp_path / "mnc.caffemodel").write_bytes(content[:50])
    assert run("--from", "caffe-mnc", tmp_path / "mnc.caffemodel", out) == 2
    assert "mnc.caffemodel is truncated" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args", [["out.pkl"], ["no/such/folder/out.pth"], ["out.pth", "model.roi_heads.num_classes=5"]]
)
def test_bad_usage_is_reported_at_once(tmp_path, args):
    with pytest.raises(SystemExit):
        run("--from", "mmdet", CHECKPOINT, tmp_path / args[0], *args[1:])
