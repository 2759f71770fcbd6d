"""The one or two lines of the README, for configs that people have."""

from functools import partial

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import get_cfg, instantiate
from detectron2.layers import ShapeSpec
from detectron2.model_zoo import get_config, get_config_file
from detectron2.modeling import (
    FPN,
    GeneralizedRCNN,
    SimpleFeaturePyramid,
    SwinTransformer,
    ViT,
    build_model,
)
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import nn

from hybrid_cascade import (
    add_hybrid_cascade_config,
    use_htc_heads,
    use_mnc_heads,
    use_semantic_branch,
    use_semantic_pyramid,
)
from hybrid_cascade.modeling import (
    HTCROIHeads,
    MNCROIHeads,
    Res5Head,
    SemanticPyramid,
    SemanticRCNN,
)


def shrink(model):
    model.roi_heads.batch_size_per_image = 8
    model.proposal_generator.post_nms_topk = (20, 10)


def resnet(config_path):
    model = get_config(config_path).model
    model.backbone.bottom_up.stages.depth = 18
    model.backbone.bottom_up.stages.pop("stride_in_1x1")
    shrink(model)
    return model


def vit():
    model = get_config("common/models/mask_rcnn_vitdet.py").model
    model.backbone = L(SimpleFeaturePyramid)(
        net=L(ViT)(
            img_size=64,
            patch_size=16,
            embed_dim=24,
            depth=2,
            num_heads=2,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            window_block_indexes=[0],
            window_size=4,
            use_rel_pos=True,
            out_feature="last_feat",
        ),
        in_feature="${.net.out_feature}",
        out_channels=256,
        scale_factors=(4.0, 2.0, 1.0, 0.5),
        top_block=L(LastLevelMaxPool)(),
        norm="LN",
        square_pad=192,
    )
    shrink(model)
    return model


def swin():
    model = get_config("common/models/cascade_rcnn.py").model
    model.backbone = L(FPN)(
        bottom_up=L(SwinTransformer)(depths=[1, 1, 1, 1], embed_dim=12, num_heads=[1, 1, 2, 2]),
        in_features=("p0", "p1", "p2", "p3"),
        out_channels=256,
        top_block=L(LastLevelMaxPool)(),
    )
    shrink(model)
    return model


CONFIGS = {
    "mask_rcnn_fpn.py": partial(resnet, "common/models/mask_rcnn_fpn.py"),
    "cascade_rcnn.py": partial(resnet, "common/models/cascade_rcnn.py"),
    "ViT": vit,
    "Swin": swin,
}


def check_it_runs(model, inputs):
    """A training step without an optimizer, and an inference; the outputs of the latter."""
    losses = model.train()(inputs)
    assert [name for name, loss in losses.items() if not loss.isfinite()] == []
    sum(losses.values()).backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert [n for n, p in trained.items() if p.grad is None or not p.grad.isfinite().all()] == []
    with torch.no_grad():
        outputs = model.eval()([{k: v for k, v in x.items() if k != "instances"} for x in inputs])
    assert len(outputs) == len(inputs)
    return outputs


@pytest.mark.parametrize("name", CONFIGS)
def test_one_line_gives_htc_without_the_semantic_branch(name, inputs, storage):
    config = CONFIGS[name]()
    use_htc_heads(config)
    model = instantiate(config)
    assert type(model) is GeneralizedRCNN and type(model.roi_heads) is HTCROIHeads
    assert model.roi_heads.num_cascade_stages == len(model.roi_heads.mask_head) == 3
    assert model.roi_heads.semantic_fusion == "none"
    check_it_runs(model, inputs)


@pytest.mark.parametrize("name", CONFIGS)
def test_two_lines_give_all_of_htc(name, inputs, storage):
    config = CONFIGS[name]()
    use_htc_heads(config)
    use_semantic_branch(config)
    model = instantiate(config)
    assert type(model) is SemanticRCNN
    assert model.roi_heads.semantic_fusion == "both"
    check_it_runs(model, inputs)


def test_one_line_gives_mnc_on_a_feature_pyramid(inputs, storage):
    config = resnet("common/models/mask_rcnn_fpn.py")
    use_mnc_heads(config)
    model = instantiate(config)
    assert type(model) is GeneralizedRCNN and type(model.roi_heads) is MNCROIHeads
    assert model.roi_heads.pooler.max_level == 5
    check_it_runs(model, inputs)


def test_one_line_gives_mnc_with_res5_as_its_heads(inputs, storage):
    config = get_config("common/models/mask_rcnn_c4.py").model
    shrink(config)
    config.backbone.stages.depth = 50
    use_mnc_heads(config, num_stages=3)
    model = instantiate(config)
    heads = model.roi_heads
    assert type(heads.masked_head) is type(heads.box_head) is Res5Head
    assert heads.masked_head is not heads.box_head and heads.num_stages == 3
    check_it_runs(model, inputs)


@pytest.mark.parametrize("name", ["mask_rcnn_fpn.py", "mask_rcnn_c4.py"])
def test_global_context_of_mnc_widens_what_the_predictor_sees(name):
    config = get_config(f"common/models/{name}").model
    use_mnc_heads(config)
    widths = []
    for global_context in (False, True):
        config.roi_heads.global_context = global_context
        with torch.device("meta"):
            widths.append(instantiate(config).roi_heads.predictor.cls_score.in_features)
    assert widths[1] * 2 == widths[0] * 3


def test_global_context_of_mnc_is_one_override(inputs, storage):
    config = resnet("common/models/mask_rcnn_fpn.py")
    use_mnc_heads(config)
    config.roi_heads.global_context = True
    check_it_runs(instantiate(config), inputs)


def test_mnc_trains_through_boxes_unless_told_otherwise():
    config = resnet("common/models/mask_rcnn_fpn.py")
    use_mnc_heads(config)
    assert instantiate(config).proposal_generator.box_gradients
    config.roi_heads.end_to_end = False
    assert not instantiate(config).proposal_generator.box_gradients


def test_overrides_of_mncs_heads_reach_all_that_they_concern():
    config = resnet("common/models/mask_rcnn_fpn.py")
    config.roi_heads.box_predictor.test_topk_per_image = 17
    config.roi_heads.box_predictor.smooth_l1_beta = 1.0
    use_mnc_heads(config)
    model = instantiate(config)
    assert model.proposal_generator.max_box_gradient == model.roi_heads.max_box_gradient == 1 / 512
    assert model.roi_heads.predictor.test_topk_per_image == 17
    assert model.roi_heads.predictor.smooth_l1_beta == 1.0
    config.roi_heads.max_box_gradient = None
    config.roi_heads.num_classes = 5
    model = instantiate(config)
    assert model.proposal_generator.max_box_gradient is model.roi_heads.max_box_gradient is None
    assert model.roi_heads.predictor.cls_score.out_features == 6
    assert model.roi_heads.predictor.bbox_pred.out_features == 20


def test_mnc_replaces_no_cascade():
    config = get_config("common/models/cascade_rcnn.py").model
    with pytest.raises(ValueError, match="CascadeROIHeads"):
        use_mnc_heads(config)


@pytest.mark.parametrize("name", ["cascade_rcnn.py", "ViT", "Swin"])
def test_one_line_gives_sfpn_and_leaves_the_heads(name, inputs, storage):
    config = CONFIGS[name]()
    heads = config.roi_heads._target_
    use_semantic_pyramid(config)
    model = instantiate(config)
    assert type(model) is SemanticRCNN and type(model.semantic_branch) is SemanticPyramid
    assert type(model.roi_heads) is heads is not HTCROIHeads
    assert "semantic" not in model.semantic_branch.output_shape()
    check_it_runs(model, inputs)


def test_the_pyramid_takes_the_place_of_the_semantic_branch_of_htc():
    config = resnet("common/models/mask_rcnn_fpn.py")
    use_htc_heads(config)
    use_semantic_pyramid(config)
    assert not config.semantic_branch.output_context_map  # nobody asked for the fusion
    use_semantic_branch(config)
    use_semantic_pyramid(config, num_classes=90, source="instances")
    model = instantiate(config)
    assert model.semantic_branch.num_classes == 90 and model.semantic_targets.source == "instances"
    assert "semantic" in model.semantic_branch.output_shape()
    assert model.roi_heads.semantic_fusion == "both"


def detectron2_yaml(*overrides):
    cfg = get_cfg()
    add_hybrid_cascade_config(cfg)
    cfg.merge_from_file(get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"))
    small = "RESNETS.STEM_OUT_CHANNELS 8 RESNETS.RES2_OUT_CHANNELS 32 RESNETS.WIDTH_PER_GROUP 8"
    cfg.merge_from_list([w if w.isdigit() else f"MODEL.{w}" for w in small.split()])
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 8])
    cfg.merge_from_list(["MODEL.RPN.POST_NMS_TOPK_TRAIN", 20, "MODEL.RPN.POST_NMS_TOPK_TEST", 10])
    cfg.merge_from_list(overrides)
    return cfg


def test_one_key_of_detectron2s_yaml_gives_htc_without_the_semantic_branch(inputs, storage):
    model = build_model(detectron2_yaml("MODEL.ROI_HEADS.NAME", "HTCROIHeads"))
    assert type(model) is GeneralizedRCNN and model.roi_heads.semantic_fusion == "none"
    check_it_runs(model, inputs)


@pytest.mark.parametrize("agnostic", [True, False])
def test_the_yaml_says_whether_boxes_are_regressed_for_each_class(agnostic):
    key = "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG"
    cfg = detectron2_yaml("MODEL.ROI_HEADS.NAME", "HTCROIHeads", key, agnostic)
    for predictor, weight in zip(
        build_model(cfg).roi_heads.box_predictor, (10, 20, 30), strict=True
    ):
        assert predictor.bbox_pred.out_features == (4 if agnostic else 4 * 80)
        assert predictor.box2box_transform.weights[0] == weight


def test_two_keys_of_detectron2s_yaml_give_all_of_htc(inputs, storage):
    model = build_model(
        detectron2_yaml(
            *("MODEL.ROI_HEADS.NAME", "HTCROIHeads"),
            *("MODEL.META_ARCHITECTURE", "SemanticRCNN"),
        )
    )
    assert model.roi_heads.semantic_fusion == "both" and len(model.roi_heads.mask_head) == 3
    check_it_runs(model, inputs)


def test_two_keys_of_detectron2s_yaml_give_sfpn(inputs, storage):
    model = build_model(
        detectron2_yaml(
            *("MODEL.META_ARCHITECTURE", "SemanticRCNN"),
            *("MODEL.SEMANTIC_BRANCH.NAME", "SemanticPyramid"),
        )
    )
    assert type(model.semantic_branch) is SemanticPyramid
    check_it_runs(model, inputs)


def test_the_heads_keep_the_layers_of_the_config():
    config = resnet("common/models/mask_rcnn_fpn.py")
    config.roi_heads.box_head.conv_dims = [32]
    config.roi_heads.box_head.fc_dims = [48]
    config.roi_heads.box_predictor.input_shape = ShapeSpec(channels=48)
    config.roi_heads.mask_head.conv_dims = [24, 24]
    use_htc_heads(config)
    heads = instantiate(config).roi_heads
    for box_head, mask_head in zip(heads.box_head, heads.mask_head, strict=True):
        assert box_head.conv1.out_channels == 32 and box_head.fc1.out_features == 48
        assert mask_head.mask_fcn1.out_channels == 24


def test_the_number_of_stages_is_the_number_of_ious():
    config = resnet("common/models/mask_rcnn_fpn.py")
    use_htc_heads(config, ious=(0.5, 0.6), bbox_reg_weights=((10, 10, 5, 5), (20, 20, 10, 10)))
    heads = instantiate(config).roi_heads
    assert heads.num_cascade_stages == len(heads.mask_head) == 2
    assert heads.stage_loss_weights == [1.0, 0.5]
    with pytest.raises(ValueError, match="3 ious, but 1 bbox_reg_weights"):
        use_htc_heads(resnet("common/models/mask_rcnn_fpn.py"), bbox_reg_weights=((1, 1, 1, 1),))


def test_a_detector_of_boxes_stays_one():
    config = resnet("common/models/mask_rcnn_fpn.py")
    for key in ("mask_in_features", "mask_pooler", "mask_head"):
        config.roi_heads.pop(key)
    use_htc_heads(config)
    assert not instantiate(config).roi_heads.mask_on


def test_other_roi_heads_are_refused():
    with pytest.raises(ValueError, match="StandardROIHeads or CascadeROIHeads, not .*Res5ROIHeads"):
        use_htc_heads(get_config("common/models/mask_rcnn_c4.py").model)


def test_three_keys_of_detectron2s_yaml_give_mnc(inputs, storage):
    model = build_model(
        detectron2_yaml(
            *("MODEL.ROI_HEADS.NAME", "MNCROIHeads"),
            *("MODEL.PROPOSAL_GENERATOR.NAME", "RPNWithBoxGradients"),
            *("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 14),
        )
    )
    assert type(model.roi_heads) is MNCROIHeads
    check_it_runs(model, inputs)
