from functools import partial
from unittest.mock import patch

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, LazyConfig, instantiate
from detectron2.data.detection_utils import build_augmentation
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead
from detectron2.solver import build_optimizer
from torch import nn

from hybrid_cascade.engine import build_model, load_config
from hybrid_cascade.engine.run_config import as_run_config
from hybrid_cascade.layers.deform_conv import DeformBottleneckBlock
from hybrid_cascade.modeling import MNCMaskHead, SemanticPyramid, SemanticRCNN

from .small_configs import CONFIGS, lazy_overrides, load_small
from .test_swap_heads import check_it_runs

MASK_HEADS = (MaskRCNNConvUpsampleHead, MNCMaskHead)
RUNNABLE = sorted(
    str(path.relative_to(CONFIGS))
    for path in CONFIGS.rglob("*.*")
    if path.suffix in (".py", ".yaml") and "common" not in path.parts and "base_" not in path.name
)
# Channels of the first stage, blocks.
TRANSFORMERS = {
    "swin_t": (96, 12),
    "swin_s": (96, 24),
    "swin_b": (128, 24),
    "swin_l": (192, 24),
    "vitdet_b": (768, 12),
    "vitdet_l": (1024, 24),
    "mvitv2_t": (96, 10),
}
WITH_YAML = sorted(path[5:-5] for path in RUNNABLE if path.endswith(".yaml"))


@pytest.mark.parametrize("path", RUNNABLE)
def test_every_config_loads_and_builds_what_its_name_says(path):
    cfg = load_config(str(CONFIGS / path), lazy_overrides(path))
    if path.endswith(".yaml"):
        return  # built below, beside its LazyConfig
    # Shapes without memory; transformers read the numbers of their stochastic depth.
    with torch.device("meta"), patch("torch.linspace", partial(torch.linspace, device="cpu")):
        model = instantiate(cfg.model)
    name = path.rpartition("/")[2]
    has_pyramid = "sfpn" in name
    has_branch = has_pyramid or (name.startswith("htc") and "without_semantic" not in name)
    assert isinstance(model, SemanticRCNN) == has_branch
    assert isinstance(getattr(model, "semantic_branch", None), SemanticPyramid) == has_pyramid
    has_masks = any(isinstance(m, MASK_HEADS) for m in model.modules())
    assert has_masks == name.startswith(("htc", "mask", "cascade_mask", "mnc"))
    for depth, blocks in (("r50", 6), ("r101", 23), ("x101", 23)):
        if depth in name:
            assert len(getattr(model.backbone, "bottom_up", model.backbone).res4) == blocks
    if "x101" in name:
        groups = next(int(part.split("x")[0]) for part in name.split("_") if part.endswith("x4d"))
        assert model.backbone.bottom_up.res2[0].conv2.groups == groups
    for backbone, (width, blocks) in TRANSFORMERS.items():
        if backbone in name:
            body = getattr(model.backbone, "bottom_up", None) or model.backbone.net
            assert body.patch_embed.proj.out_channels == width
            stages = getattr(body, "layers", [body])
            assert sum(len(stage.blocks) for stage in stages) == blocks


@pytest.mark.parametrize("path", RUNNABLE)
def test_every_config_trains_a_step_and_infers(path, inputs, storage):
    """SSD has its own size, all others have few channels (small_configs.py); the image is small."""
    cfg = load_small(path)
    model = build_model(cfg)
    for part in model.modules():
        if isinstance(part, FrozenBatchNorm2d):
            part.weight *= 0.5  # without ImageNet's, the output of a hundred layers would explode
        if hasattr(part, "test_score_thresh"):
            part.test_score_thresh = 0.0
    targets = getattr(model, "semantic_targets", None)
    if targets is not None and targets.source == "sem_seg":
        inputs[0]["sem_seg"] = torch.randint(0, targets.num_classes, inputs[0]["image"].shape[1:])
    [output] = check_it_runs(model, inputs[:1])
    found = output["instances"]
    assert len(found) > 0 and found.scores.isfinite().all()
    name = path.rpartition("/")[2]
    has_masks = name.startswith(("htc", "mask", "cascade_mask", "mnc"))
    assert found.has("pred_masks") == (has_masks and name != "mnc_vgg16_5stage_voc_2007_2012.py")
    if isinstance(cfg, CfgNode):
        optimizer = build_optimizer(cfg, model)
    else:
        cfg.optimizer.params.model = model
        optimizer = instantiate(cfg.optimizer)
    trained = [p for p in model.parameters() if p.requires_grad]
    in_groups = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in in_groups} == {id(p) for p in trained}
    biases = [p for p in trained if p.dim() == 1]
    before = [p.detach().clone() for p in biases]
    optimizer.step()
    assert all(p.isfinite().all() for p in trained)
    assert any(not torch.equal(*pair) for pair in zip(biases, before, strict=True))


def plain_settings(part):
    return {k: v for k, v in vars(part).items() if isinstance(v, int | float | str)}


@pytest.mark.parametrize("path", WITH_YAML)
def test_lazy_config_and_yaml_build_the_same_model(path, inputs):
    lazy = load_config(str(CONFIGS / f"{path}.py"))
    yaml = load_config(str(CONFIGS / "yaml" / f"{path}.yaml"))
    with torch.device("meta"):
        ours = instantiate(lazy.model)
        theirs = META_ARCH_REGISTRY.get(yaml.MODEL.META_ARCHITECTURE)(yaml)
    # Layers and their sizes, which parameters are trained, and the settings of every part.
    assert repr(ours) == repr(theirs)
    assert [(n, p.shape, p.requires_grad) for n, p in ours.named_parameters()] == [
        (n, p.shape, p.requires_grad) for n, p in theirs.named_parameters()
    ]
    for (name, part), (_, other) in zip(ours.named_modules(), theirs.named_modules(), strict=True):
        assert plain_settings(part) == plain_settings(other), name

    # All else, anchors for example, changes what a small model detects.
    ours = build_model(load_small(f"{path}.py"))
    theirs = build_model(load_small(f"yaml/{path}.yaml"))
    theirs.load_state_dict(ours.state_dict())
    images = [{k: v for k, v in x.items() if k != "instances"} for x in inputs[:1]]
    with torch.no_grad():
        ours, theirs = (model(images)[0]["instances"] for model in (ours, theirs))
    assert len(ours) == len(theirs) > 0
    assert ours.get_fields().keys() == theirs.get_fields().keys()
    for field in set(ours.get_fields()) - {"pred_boxes"}:
        assert torch.equal(ours.get(field), theirs.get(field))
    assert torch.equal(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)


@pytest.mark.parametrize("path", WITH_YAML)
def test_lazy_config_and_yaml_train_alike(path):
    lazy = load_config(str(CONFIGS / f"{path}.py"))
    yaml = load_config(str(CONFIGS / "yaml" / f"{path}.yaml"))
    assert lazy.train.max_iter == yaml.SOLVER.MAX_ITER
    assert lazy.train.init_checkpoint == yaml.MODEL.WEIGHTS
    assert lazy.optimizer.lr == yaml.SOLVER.BASE_LR
    assert lazy.optimizer.weight_decay == yaml.SOLVER.WEIGHT_DECAY
    assert lazy.optimizer.params.get("bias_lr_factor", 1.0) == yaml.SOLVER.BIAS_LR_FACTOR
    schedule = lazy.lr_multiplier
    milestones = instantiate(schedule.get("scheduler", schedule))._milestones
    assert [m for m in milestones if m < lazy.train.max_iter] == list(yaml.SOLVER.STEPS)
    assert instantiate(schedule)(0) == pytest.approx(
        yaml.SOLVER.WARMUP_FACTOR if yaml.SOLVER.WARMUP_ITERS else 1.0
    )
    train, test = lazy.dataloader.train, lazy.dataloader.test
    assert train.total_batch_size == yaml.SOLVER.IMS_PER_BATCH
    assert (train.dataset.names,) == yaml.DATASETS.TRAIN
    assert (test.dataset.names,) == yaml.DATASETS.TEST
    assert train.mapper.image_format == yaml.INPUT.FORMAT == lazy.model.input_format
    if train.mapper.use_instance_mask:
        assert train.mapper.get("instance_mask_format", "polygon") == yaml.INPUT.MASK_FORMAT
    if "roi_heads" not in lazy.model:
        return
    assert lazy.model.proposal_generator.smooth_l1_beta == yaml.MODEL.RPN.SMOOTH_L1_BETA
    heads = lazy.model.roi_heads
    if "box_predictors" in heads:
        assert list(heads.stage_loss_weights) == list(yaml.MODEL.ROI_HTC_HEAD.STAGE_LOSS_WEIGHTS)
        assert [list(m.thresholds) for m in heads.proposal_matchers] == [
            [iou] for iou in yaml.MODEL.ROI_BOX_CASCADE_HEAD.IOUS
        ]


@pytest.mark.parametrize(
    "path",
    [p for p in RUNNABLE if p.startswith(("htc/", "quick_start/htc", "own_data/htc", "sfpn/htc"))],
)
def test_configs_of_htc_train_as_published(path):
    model = load_config(str(CONFIGS / path), lazy_overrides(path)).model
    heads, rpn = model.roi_heads, model.proposal_generator
    assert (heads.interleaved, heads.mask_information_flow, heads.resample_stages) == (True,) * 3
    # The images of the toy scenes are smaller than the largest anchors.
    assert rpn.anchor_boundary_thresh == (-1 if path.endswith("toy.py") else 0)
    branch = model.get("semantic_branch")
    if branch is not None:
        assert (branch.loss_mean, branch.label_sampling) == ("all", "corner")


@pytest.mark.parametrize("net", ["vgg16", "zf"])
def test_rows_of_mncs_ablation_differ_as_their_names_say(net):
    built = {}
    for row in ("separate_features", "shared_features", "3stage", "5stage"):
        cfg = load_config(str(CONFIGS / "mnc" / f"mnc_{net}_{row}_voc.py"))
        with torch.device("meta"):
            built[row] = instantiate(cfg.model)
        weights = f"{net}_{row}.pth" if row == "separate_features" else f"{net}.pth"
        assert cfg.train.init_checkpoint == weights
    heads = {row: model.roi_heads for row, model in built.items()}
    assert {row: h.num_stages for row, h in heads.items()} == {
        "separate_features": 3,
        "shared_features": 3,
        "3stage": 3,
        "5stage": 5,
    }
    assert all((h.test_stages or h.num_stages) == 5 for h in heads.values())
    assert [h.end_to_end for h in heads.values()] == [False, False, True, True]
    separate = built["separate_features"]
    used = [*separate.proposal_generator.in_features, *heads["separate_features"].mask_in_features]
    used += heads["separate_features"].in_features
    assert sorted(used) == sorted(separate.backbone.output_shape()) and len(set(used)) == 3
    assert not separate.proposal_generator.box_gradients


@pytest.mark.parametrize("path", [p for p in RUNNABLE if p.startswith("mnc/")])
def test_all_mncs_see_images_of_600_pixels(path):
    loader = load_config(str(CONFIGS / path)).dataloader
    for mapper in (loader.train.mapper, loader.test.mapper):
        resize = instantiate(mapper.augmentations[0])
        assert resize.max_size == 1000
        sizes = [(480, 640), (640, 480), (300, 900)]
        found = [
            resize.get_transform(np.zeros((*size, 3), np.uint8)) for size in sizes for _ in "ab"
        ]
        assert {(t.new_h, t.new_w) for t in found} == {(600, 800), (800, 600), (333, 1000)}


# An override of the config, and a check that it has reached the model.
KNOBS = {
    "backbone.bottom_up.stages.depth=101": lambda m: len(m.backbone.bottom_up.res4) == 23,
    "backbone.bottom_up.freeze_at=3": lambda m: (
        not m.backbone.bottom_up.res3[0].conv1.weight.requires_grad
        and m.backbone.bottom_up.res4[0].conv1.weight.requires_grad
    ),
    "proposal_generator.anchor_matcher.thresholds=[0.2,0.6]": lambda m: (
        m.proposal_generator.anchor_matcher.thresholds[1:3] == [0.2, 0.6]
    ),
    "proposal_generator.pre_nms_topk=[4000,2000]": lambda m: (
        m.proposal_generator.pre_nms_topk == {True: 4000, False: 2000}
    ),
    "proposal_generator.post_nms_topk=[1000,500]": lambda m: (
        m.proposal_generator.post_nms_topk == {True: 1000, False: 500}
    ),
    "roi_heads.box_heads.0.conv_dims=[256,128]": lambda m: all(
        head.conv2.out_channels == 128 for head in m.roi_heads.box_head
    ),
    "roi_heads.box_heads.0.fc_dims=[512]": lambda m: all(
        head.fc1.out_features == predictor.cls_score.in_features == 512
        for head, predictor in zip(m.roi_heads.box_head, m.roi_heads.box_predictor, strict=True)
    ),
    "roi_heads.mask_heads.0.conv_dims=[256,256,128]": lambda m: all(
        len(head.conv_norm_relus) == 2 and head.deconv.out_channels == 128
        for head in m.roi_heads.mask_head
    ),
    "roi_heads.box_pooler.output_size=9": lambda m: all(
        head.fc1.in_features == 256 * 81 for head in m.roi_heads.box_head
    ),
    "roi_heads.box_pooler.sampling_ratio=2": lambda m: (
        m.roi_heads.box_pooler.pooler.level_poolers[0].sampling_ratio == 2
    ),
    "roi_heads.mask_pooler.output_size=10": lambda m: (
        m.roi_heads.mask_pooler.pooler.output_size == (10, 10)
    ),
    "roi_heads.stage_loss_weights=[1,1,1]": lambda m: m.roi_heads.stage_loss_weights == [1, 1, 1],
    "roi_heads.box_predictors.1.box2box_transform.weights=[5,5,2,2]": lambda m: (
        [list(p.box2box_transform.weights)[0] for p in m.roi_heads.box_predictor] == [10, 5, 30]
    ),
    "roi_heads.proposal_matchers.1.thresholds=[0.55]": lambda m: (
        [matcher.thresholds[1] for matcher in m.roi_heads.proposal_matchers] == [0.5, 0.55, 0.7]
    ),
    "roi_heads.num_classes=7": lambda m: all(
        p.cls_score.out_features == 8 and head.predictor.out_channels == 7
        for p, head in zip(m.roi_heads.box_predictor, m.roi_heads.mask_head, strict=True)
    ),
    "backbone.out_channels=128": lambda m: all(
        head.fc1.in_features == 128 * 49 for head in m.roi_heads.box_head
    ),
}


@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_of_cascade_mask_rcnn_is_reached_from_the_command_line(knob):
    path = CONFIGS / "cascade_mask_rcnn" / "cascade_mask_rcnn_r50_fpn_1x.py"
    cfg = load_config(str(path), [f"model.{knob}"])
    with torch.device("meta"):
        model = instantiate(cfg.model)
    assert KNOBS[knob](model)


def test_the_cascade_mask_rcnn_config_documents_its_knobs():
    text = (CONFIGS / "cascade_mask_rcnn" / "cascade_mask_rcnn_r50_fpn_1x.py").read_text()
    for knob in KNOBS:
        key = knob.partition("=")[0]
        if key not in ("roi_heads.num_classes", "backbone.out_channels"):
            assert f"model.{key}=" in text


def test_common_files_are_configs_too():
    for path in (CONFIGS / "common").rglob("*.py"):
        LazyConfig.load(str(path))


@pytest.mark.parametrize("path", ["ssd/ssd300_vgg16", "ssd/ssd512_vgg16", "quick_start/ssd_toy"])
def test_ssd_resizes_images_itself(path):
    cfg = load_config(str(CONFIGS / f"{path}.py"))
    mappers = (cfg.dataloader.train.mapper, cfg.dataloader.test.mapper)
    augmentations = [instantiate(x) for mapper in mappers for x in mapper.augmentations]
    assert not any(isinstance(x, T.Resize | T.ResizeShortestEdge) for x in augmentations)


def test_the_yaml_of_ssd_resizes_nothing_before_the_model():
    yaml = load_config(str(CONFIGS / "yaml/ssd/ssd300_vgg16.yaml"))
    for is_train in (True, False):
        augmentations = T.AugmentationList(build_augmentation(yaml, is_train))
        aug_input = T.AugInput(np.zeros((50, 70, 3), dtype=np.uint8))
        augmentations(aug_input)
        assert aug_input.image.shape == (50, 70, 3)


def test_the_challenge_config_has_the_extensions_of_the_paper():
    cfg = load_config(str(CONFIGS / "htc" / "htc_challenge_x101_64x4d_fpn_dcn_20e.py"))
    with torch.device("meta"):
        model = instantiate(cfg.model)
    resnet = model.backbone.bottom_up
    for stage in (resnet.res3, resnet.res4, resnet.res5):
        assert all(isinstance(block, DeformBottleneckBlock) for block in stage)
        assert all(isinstance(block.conv3.norm, nn.SyncBatchNorm) for block in stage)
    assert not any(isinstance(part, nn.SyncBatchNorm) for part in resnet.res2.modules())
    for part in (model.backbone.fpn_output2, *model.semantic_branch.convs):
        assert isinstance(part.norm, nn.SyncBatchNorm)
    for head in model.roi_heads.mask_head:
        assert isinstance(head.mask_fcn1.norm, nn.SyncBatchNorm)
    resize = cfg.dataloader.train.mapper.augmentations[0]
    assert (list(resize.short_edge_length), resize.max_size) == ([400, 1400], 1600)
    test_time = cfg.train.test_time
    sizes = list(zip(test_time.short_sides, test_time.max_size, strict=True))
    assert sizes == [(600, 900), (800, 1200), (1000, 1500), (1200, 1800), (1400, 2100)]
    assert test_time.flip


def test_a_bound_for_each_size_can_be_given_on_the_command_line():
    path = str(CONFIGS / "htc" / "htc_r50_fpn_1x.py")
    sizes = ["train.test_time.short_sides=[600,800]", "train.test_time.max_size=[900,1200]"]
    options = as_run_config(load_config(path, sizes)).inference_options
    assert list(options.max_size) == [900, 1200]


@pytest.mark.parametrize("backbone", ["swin", "convnext"])
def test_published_cascades_of_these_backbones_regress_boxes_for_each_class(backbone):
    cfg = load_config(
        str(CONFIGS / "cascade_mask_rcnn" / f"cascade_mask_rcnn_{backbone}_t_fpn_3x.py")
    )
    with torch.device("meta"), patch("torch.linspace", partial(torch.linspace, device="cpu")):
        model = instantiate(cfg.model)
    for predictor, head in zip(
        model.roi_heads.box_predictor, model.roi_heads.box_head, strict=True
    ):
        assert predictor.bbox_pred.out_features == 4 * 80
        assert predictor.box_reg_loss_type == "giou"
        assert isinstance(head.conv4.norm, nn.SyncBatchNorm) and not hasattr(head, "fc2")
    assert model.roi_heads.resample_stages


def test_half_of_the_images_are_cropped_before_they_are_resized():
    cfg = load_config(str(CONFIGS / "cascade_mask_rcnn" / "cascade_mask_rcnn_swin_t_fpn_3x.py"))
    flip, crop, resize = instantiate(cfg.dataloader.train.mapper.augmentations)
    assert isinstance(flip, T.RandomFlip) and crop.prob == 0.5
    image = np.zeros((640, 480, 3), dtype=np.uint8)
    crop.aug(crop_input := T.AugInput(image))
    assert all(384 <= side <= 600 for side in crop_input.image.shape[:2])
    resize(whole := T.AugInput(image))
    assert 480 <= min(whole.image.shape[:2]) <= 800 and max(whole.image.shape[:2]) <= 1333
