from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer

from hybrid_cascade import Predictor
from hybrid_cascade.engine import as_run_config, build_model, load_config

CONFIGS = Path(__file__).parents[2] / "configs"
TOY = str(CONFIGS / "quick_start" / "htc_toy.py")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of the toy HTC, random, with scores worth comparing."""
    torch.manual_seed(0)
    model = build_model(load_config(TOY, ["train.device=cpu"]))
    for predictor in model.roi_heads.box_predictor:
        torch.nn.init.normal_(predictor.cls_score.weight, std=0.2)
    folder = tmp_path_factory.mktemp("weights")
    DetectionCheckpointer(model, str(folder)).save("toy")
    return folder / "toy.pth"


@pytest.fixture(scope="module")
def predictor(weights):
    return Predictor(TOY, weights, device="cpu", score_thresh=0.0)


def picture(seed, height=96, width=128):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def by_hand(model, image, channels):
    tensor = torch.as_tensor(image[:, :, channels].transpose(2, 0, 1).copy())
    inputs = {"image": tensor, "height": image.shape[0], "width": image.shape[1]}
    with torch.no_grad():
        return model([inputs])[0]["instances"]


def test_an_array_of_bgr_goes_into_the_model_in_its_order_of_channels(predictor):
    image = picture(0)
    [result] = predictor(image)
    expected = by_hand(predictor.model, image, [2, 1, 0])  # the toy's model takes RGB
    assert len(result) == len(expected) > 0
    assert torch.equal(result.instances.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(result.instances.pred_masks, expected.pred_masks)
    wrong = by_hand(predictor.model, image, [0, 1, 2])
    assert not torch.equal(result.instances.scores, wrong.scores)


def test_files_arrays_and_batches_give_the_same_in_order(predictor, weights, tmp_path):
    images = [picture(i) for i in range(3)]
    for i, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
    from_files = list(predictor(tmp_path))
    assert [Path(r.name).name for r in from_files] == ["0.png", "1.png", "2.png"]
    of_two = Predictor(TOY, weights, device="cpu", score_thresh=0.0, batch_size=2)
    for results in (list(predictor(images)), list(of_two(images))):
        for ours, other in zip(results, from_files, strict=True):
            torch.testing.assert_close(ours.scores, other.scores, atol=1e-4, rtol=0)


def test_results_have_the_size_of_the_image_where_the_config_resizes(weights):
    small = Predictor(
        TOY,
        weights,
        device="cpu",
        overrides=[
            "dataloader.test.mapper.augmentations=[{_target_: "
            "detectron2.data.transforms.ResizeShortestEdge, short_edge_length: 64}]"
        ],
        score_thresh=0.0,
    )
    [result] = small(picture(0))
    assert result.masks.shape[1:] == (96, 128) and result.boxes[:, 2].max() > 90


def test_names_and_thresholds_are_those_of_the_arguments(predictor, weights):
    assert predictor.metadata.thing_classes == ["ball", "buoy", "tent", "sail", "kite"]
    named = Predictor(TOY, weights, device="cpu", class_names=list("abcde"), score_thresh=0.3)
    [result] = named(picture(0))
    assert set(result.class_names) <= set("abcde")
    [everything] = predictor(picture(0))
    assert len(result) == (everything.scores >= 0.3).sum()


def test_names_are_those_of_the_checkpoint(weights, tmp_path):
    names = ["a", "b", "c", "d", "e"]
    content = torch.load(weights, weights_only=True)
    torch.save({**content, "trained_with": {"thing_classes": names}}, tmp_path / "named.pth")
    assert Predictor(TOY, tmp_path / "named.pth", device="cpu").class_names == names


def test_a_config_may_be_a_name_or_loaded(weights, predictor):
    [expected] = predictor(picture(1))
    for config in ("quick_start/htc_toy.py", load_config(TOY)):
        [result] = Predictor(config, weights, device="cpu", score_thresh=0.0)(picture(1))
        assert torch.equal(result.instances.scores, expected.instances.scores)


def test_a_yaml_config_predicts(tmp_path):
    sizes = "RESNETS.STEM_OUT_CHANNELS 8 RESNETS.RES2_OUT_CHANNELS 32 RESNETS.WIDTH_PER_GROUP 8"
    overrides = [w if w.isdigit() else f"MODEL.{w}" for w in sizes.split()]
    overrides += ["MODEL.DEVICE", "cpu", "MODEL.RPN.POST_NMS_TOPK_TEST", "10"]
    path = str(CONFIGS / "yaml" / "htc" / "htc_without_semantic_r50_fpn_1x.yaml")
    model = as_run_config(load_config(path, overrides)).build_model()
    DetectionCheckpointer(model, str(tmp_path)).save("yaml")
    predictor = Predictor(path, tmp_path / "yaml.pth", overrides=overrides)
    [result] = predictor(picture(0, 40, 60))
    assert result.image.shape == (40, 60, 3) and result.class_names == result.class_names


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"config": "htc/nothing.py"}, FileNotFoundError, "no config file 'htc/nothing.py'"),
        ({"weights": "nowhere.pth"}, FileNotFoundError, "nowhere.pth"),
        ({"weights": None}, ValueError, "No weights given"),
        ({"class_names": ["one"]}, ValueError, "1 class_names for a model of 5"),
        ({"config": load_config(TOY), "overrides": ["train.seed=1"]}, ValueError, "overrides"),
    ],
)
def test_what_does_not_fit_is_named(arguments, error, message, weights):
    with pytest.raises(error, match=message):
        Predictor(**{"config": TOY, "weights": weights, "device": "cpu", **arguments})
