import logging
from pathlib import Path

import detectron2.data.transforms as T
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import get_cfg, instantiate
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import Instances
from omegaconf import OmegaConf

from hybrid_cascade import add_hybrid_cascade_config
from hybrid_cascade.engine import build_model, load_config, with_test_time_options
from hybrid_cascade.engine.config_files import TRAIN_DEFAULTS
from hybrid_cascade.modeling import (
    MNCROIHeads,
    RCNNEnsemble,
    RCNNWithTestTimeAugmentation,
    VotingEnsemble,
)

from ..modeling.conftest import spread_outputs

CONFIGS = Path(__file__).parent.parent.parent / "configs"
HTC = str(CONFIGS / "quick_start" / "htc_toy.py")
CASCADE = str(CONFIGS / "quick_start" / "cascade_mask_rcnn_toy.py")
SSD = str(CONFIGS / "quick_start" / "ssd_toy.py")
MNC = str(CONFIGS / "quick_start" / "mnc_toy.py")
YAML_CASCADE = str(CONFIGS / "yaml" / "cascade_mask_rcnn" / "cascade_mask_rcnn_r50_fpn_1x.yaml")
# The cascade for the toy scenes, with few channels; trained with other pixels than the others.
OVERRIDES = """MODEL.ROI_HEADS.NUM_CLASSES 5 MODEL.RESNETS.DEPTH 18
    MODEL.RESNETS.RES2_OUT_CHANNELS 64 MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 16
    MODEL.ROI_MASK_HEAD.CONV_DIM 16 MODEL.RPN.POST_NMS_TOPK_TEST 20 INPUT.FORMAT BGR
    MODEL.PIXEL_MEAN [100.0,110.0,120.0] MODEL.PIXEL_STD [1.0,1.0,1.0]
    DATASETS.TEST ('toy_scenes_val',)"""
YAML_TOY = OVERRIDES.split()
LAZY_TOY = ["model.proposal_generator.post_nms_topk=[30,30]"]

MODELS = ["mnc_toy", "htc_toy", "mask_rcnn_toy"]


@pytest.fixture
def model(request, tiny_config):
    return instantiate(tiny_config(request.param)).eval()


@pytest.fixture
def other_checkpoint(model, tmp_path):
    """Of a model whose weights are all larger by 1."""
    path = str(tmp_path / "other.pth")
    torch.save({"model": {k: v + 1 for k, v in model.state_dict().items()}}, path)
    return path


def lazy(**options):
    cfg = OmegaConf.create({"train": TRAIN_DEFAULTS})
    cfg.train.test_time.update(options)
    return cfg


def yaml(*overrides):
    cfg = get_cfg()
    add_hybrid_cascade_config(cfg)
    cfg.merge_from_list(overrides)
    return cfg


VIEWS = [
    lazy(short_sides=[96, 128], max_size=500, flip=True),
    yaml(
        *("TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", (96, 128)),
        *("TEST.AUG.MAX_SIZE", 500, "TEST.AUG.FLIP", True),
    ),
]


@pytest.mark.parametrize("model", MODELS[:1], indirect=True)
@pytest.mark.parametrize("cfg", [lazy(), yaml()])
def test_without_options_the_model_stays(cfg, model):
    assert with_test_time_options(cfg, model) is model


@pytest.mark.parametrize("model", MODELS, indirect=True)
def test_further_checkpoints_become_models_of_their_own(model, other_checkpoint):
    is_mnc = isinstance(model.roi_heads, MNCROIHeads)
    for cfg in (lazy(checkpoints=[other_checkpoint]), yaml("TEST.CHECKPOINTS", [other_checkpoint])):
        joined = with_test_time_options(cfg, model)
        assert type(joined) is (VotingEnsemble if is_mnc else RCNNEnsemble) and not joined.training
        assert joined.models[0] is model
        first, second = (m.proposal_generator.rpn_head.conv.bias for m in joined.models)
        assert torch.equal(second, first + 1)


@pytest.mark.parametrize("model", MODELS, indirect=True)
@pytest.mark.parametrize("cfg", VIEWS)
def test_views_reach_the_model(cfg, model):
    joined = with_test_time_options(cfg, model)
    if isinstance(joined, VotingEnsemble):
        assert [r.short_edge_length for r in joined.resizes] == [(96, 96), (128, 128)]
        assert {r.max_size for r in joined.resizes} == {500}
        assert joined.flips == (False, True)
        return
    assert isinstance(joined, RCNNWithTestTimeAugmentation) and joined.model is model
    views = joined.tta_mapper
    assert (views.min_sizes, views.max_size, views.flip) == ([96, 128], 500, True)
    # What Detectron2 reads of a CfgNode is the model's.
    assert joined.cfg.MODEL.ROI_HEADS.NUM_CLASSES == 5 and joined.cfg.MODEL.MASK_ON


@pytest.mark.parametrize("model", MODELS, indirect=True)
@pytest.mark.parametrize(
    "cfg",
    [
        lazy(short_sides=[96, 128], max_size=[144, 192], flip=True),
        yaml(
            *("TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", (96, 128)),
            *("TEST.AUG.MAX_SIZES", (144, 192), "TEST.AUG.MAX_SIZE", 1),
        ),
    ],
)
def test_each_size_of_a_config_can_have_a_bound_of_its_own(cfg, model):
    joined = with_test_time_options(cfg, model)
    if isinstance(joined, VotingEnsemble):
        assert [r.max_size for r in joined.resizes] == [144, 192]
        return
    image = {"image": torch.zeros(3, 100, 1000), "height": 100, "width": 1000}
    assert [v["image"].shape[2] for v in joined.tta_mapper(image)][::2] == [144, 192]


@pytest.mark.parametrize("model", MODELS[1:], indirect=True)
def test_each_view_is_seen_by_the_ensemble(model, other_checkpoint):
    joined = with_test_time_options(lazy(checkpoints=[other_checkpoint], flip=True), model)
    assert isinstance(joined, RCNNWithTestTimeAugmentation)
    assert isinstance(joined.model, RCNNEnsemble) and not joined.training


@pytest.mark.parametrize("model", MODELS[:1], indirect=True)
def test_a_missing_checkpoint_is_named(model):
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        with_test_time_options(lazy(checkpoints=["nowhere.pth"]), model)


def test_models_that_cannot_join_are_refused(tiny_config):
    with pytest.raises(ValueError, match="a Linear"):
        with_test_time_options(lazy(flip=True), torch.nn.Linear(1, 1))
    model = instantiate(tiny_config("htc_toy"))
    for output in ("output_sem_seg", "output_panoptic_seg"):
        setattr(model, output, True)
        with pytest.raises(ValueError, match=f"{output}=False"):
            with_test_time_options(lazy(flip=True), model)
        setattr(model, output, False)


def save_lively(path, config_file, opts):
    """Save the weights of a model whose scores, boxes and masks differ between RoIs."""
    model = build_model(load_config(config_file, opts))
    spread_outputs(model)
    torch.save({"model": model.state_dict()}, path)
    return model


def mean_by_hand(models, image):
    """Score, refine and mask the proposals of all models by each; return the instances.

    The image is in the channel order of the first model.
    """
    seen, proposals = [], []
    for model in models:
        flipped = model.input_format != models[0].input_format
        images = model.preprocess_image([{"image": image.flip(0) if flipped else image}])
        maps = model.backbone(images.tensor)
        if hasattr(model, "semantic_branch"):
            maps, _, _ = model.semantic_branch(maps, None)
        seen.append(maps)
        proposals += model.proposal_generator(images, maps, None)[0]
    proposals = [Instances.cat(proposals)]
    predicted = [
        model.roi_heads.predict_boxes_and_scores(maps, proposals)
        for model, maps in zip(models, seen, strict=True)
    ]
    boxes = sum(boxes[0] for boxes, _ in predicted) / len(models)
    scores = sum(scores[0] for _, scores in predicted) / len(models)
    last = models[0].roi_heads.final_predictor
    limits = last.test_score_thresh, last.test_nms_thresh, last.test_topk_per_image
    [found], _ = fast_rcnn_inference([boxes], [scores], [image.shape[1:]], *limits)
    masks = [
        model.roi_heads.forward_with_given_boxes(
            maps, [Instances(found.image_size, **found.get_fields())]
        )[0].pred_masks
        for model, maps in zip(models, seen, strict=True)
    ]
    found.pred_masks = sum(masks) / len(models)
    return found


@pytest.mark.parametrize("first", ["lazy", "yaml"])
@pytest.mark.parametrize("second", ["lazy", "yaml"])
def test_models_of_different_configs_detect_together(first, second, tmp_path):
    path = tmp_path / "other.pth"
    config, opts = (CASCADE, LAZY_TOY) if second == "lazy" else (YAML_CASCADE, YAML_TOY)
    other = save_lively(path, config, opts)
    if first == "lazy":
        quoted = ",".join(f'"{part}"' for part in (config, path, *opts))
        pairs = [f"train.test_time.checkpoints=[[{quoted}]]"]
        model = save_lively(tmp_path / "first.pth", HTC, LAZY_TOY)
        cfg = load_config(HTC, [*LAZY_TOY, *pairs])
    else:
        pairs = ["TEST.CHECKPOINTS", str([(config, str(path), *opts)])]
        model = save_lively(tmp_path / "first.pth", YAML_CASCADE, YAML_TOY)
        cfg = load_config(YAML_CASCADE, [*YAML_TOY, *pairs])
    joined = with_test_time_options(cfg, model)
    assert isinstance(joined, RCNNEnsemble) and joined.models[0] is model
    assert joined.models[1].input_format == ("RGB" if second == "lazy" else "BGR")
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        expected = mean_by_hand([model, other], image)
        [found] = joined.inference([{"image": image}], do_postprocess=False)
        [alone] = model.inference([{"image": image}], do_postprocess=False)
    assert len(found) == len(expected) > 0
    assert torch.equal(found.pred_classes, expected.pred_classes)
    torch.testing.assert_close(found.scores, expected.scores)
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    torch.testing.assert_close(found.pred_masks, expected.pred_masks)
    assert len(alone) != len(found) or not torch.allclose(alone.scores, found.scores)


def test_weights_of_the_same_config_and_pairs_may_be_mixed(tmp_path):
    first = save_lively(tmp_path / "a.pth", CASCADE, [])
    save_lively(tmp_path / "b.pth", HTC, [])
    checkpoints = f"[{tmp_path}/a.pth,[{HTC},{tmp_path}/b.pth]]"
    joined = with_test_time_options(
        load_config(CASCADE, [f"train.test_time.checkpoints={checkpoints}"]), first
    )
    assert [hasattr(m, "semantic_branch") for m in joined.models] == [False, False, True]


def pair(config, path):
    return load_config(HTC, [f"train.test_time.checkpoints=[['{config}','{path}']]"])


def test_models_that_do_not_fit_together_are_refused_before_they_detect(tmp_path):
    model = build_model(load_config(HTC))
    for config, problem in ((MNC, "with MNCROIHeads can't be averaged"), (SSD, "of a SSD can't")):
        path = tmp_path / f"{Path(config).stem}.pth"
        torch.save({"model": build_model(load_config(config)).state_dict()}, path)
        with pytest.raises(ValueError, match=f"{path.name}.*of {config} can't detect.*{problem}"):
            with_test_time_options(pair(config, path), model)
    with pytest.raises(ValueError, match="htc.pth.*can't detect together.*MNCROIHeads only"):
        torch.save({"model": model.state_dict()}, tmp_path / "htc.pth")
        cfg = load_config(MNC, [f"train.test_time.checkpoints=[[{HTC},{tmp_path}/htc.pth]]"])
        with_test_time_options(cfg, build_model(load_config(MNC)))
    with pytest.raises(ValueError, match="cascade_mask_rcnn_r50.*other classes .coco_2017_val."):
        with_test_time_options(pair(YAML_CASCADE, "any.pth"), model)
    with pytest.raises(FileNotFoundError, match="nowhere.py"):
        with_test_time_options(pair("nowhere.py", "any.pth"), model)
    with pytest.raises(ValueError, match="htc.pth.*does not fit the model"):
        with_test_time_options(pair(CASCADE, tmp_path / "htc.pth"), model)


@pytest.mark.parametrize("entry", ["[a.py]", "3", "[a.py,null]", "{a.py:b.pth}"])
def test_an_entry_that_is_no_pair_is_an_error_that_names_it(entry):
    with pytest.raises(ValueError, match="test_time.checkpoints has the entry .*configs/b.py"):
        load_config(HTC, [f"train.test_time.checkpoints=[{entry}]"])
    with pytest.raises(ValueError, match="TEST.CHECKPOINTS has the entry"):
        with_test_time_options(yaml("TEST.CHECKPOINTS", [["a.yaml"]]), torch.nn.Linear(1, 1))


def test_one_file_instead_of_a_list_is_an_error():
    with pytest.raises(ValueError, match="train.test_time.checkpoints is 'b.pth', but has to be a"):
        load_config(HTC, ["train.test_time.checkpoints=b.pth"])


def test_the_log_says_if_a_model_expects_images_of_another_size(tmp_path, caplog):
    caplog.set_level(logging.WARNING, logger="hybrid_cascade")
    model = build_model(load_config(HTC))
    torch.save({"model": model.state_dict()}, tmp_path / "b.pth")
    with_test_time_options(pair(HTC, tmp_path / "b.pth"), model)
    assert not caplog.messages
    cfg = pair(HTC, tmp_path / "b.pth")
    cfg.dataloader.test.mapper.augmentations = [L(T.ResizeShortestEdge)(short_edge_length=240)]
    with_test_time_options(cfg, model)
    [message] = caplog.messages
    assert "becomes 240 x 320" in message and f"{HTC} alone would make it 480 x 640" in message
