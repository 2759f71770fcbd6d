from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import GeneralizedRCNN, build_model
from detectron2.structures import BoxMode
from PIL import Image
from torch.nn import functional as F

from hybrid_cascade import add_hybrid_cascade_config
from hybrid_cascade.engine import FittingCheckpointer, load_config
from hybrid_cascade.modeling import SemanticContextHead, SemanticPyramid

CONFIGS = Path(__file__).parents[3] / "configs"
CHANNELS, CLASSES = 6, 4
SHAPES = {f"p{k}": ShapeSpec(channels=CHANNELS, stride=2**k) for k in range(2, 7)}


def make(**kwargs):
    return SemanticPyramid(
        input_shape=SHAPES, num_classes=CLASSES, conv_dim=8, num_convs=1, **kwargs
    )


def make_features(height, width):
    """Maps of an image of this size, p6 the max pool of p5 as in Detectron2's FPN."""
    features = {f"p{k}": torch.randn(2, CHANNELS, height >> k, width >> k) for k in range(2, 6)}
    return {**features, "p6": F.max_pool2d(features["p5"], kernel_size=1, stride=2)}


def train_the_last_layers(branch):
    """As after some steps: the convolutions that start at zero have moved."""
    for fusion_conv in branch.fusion_convs.values():
        torch.nn.init.normal_(fusion_conv[1].weight, std=0.1)
        torch.nn.init.normal_(fusion_conv[1].bias, std=0.1)
    return branch


def without_ground_truth(inputs):
    return [{k: v for k, v in x.items() if k != "instances"} for x in inputs]


def detect(model, inputs):
    with torch.no_grad():
        return [o["instances"] for o in model.eval()(without_ground_truth(inputs))]


def assert_same_detections(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert len(a) == len(b) > 0
        assert a.get_fields().keys() == b.get_fields().keys()
        assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
        for name in a.get_fields().keys() - {"pred_boxes"}:
            assert torch.equal(a.get(name), b.get(name))


def without_gradient(model):
    return [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]


# The layers


@pytest.mark.parametrize("size", [(128, 192), (160, 224), (32, 96)])
def test_it_starts_as_the_pyramid_that_it_is_given(size):
    features = make_features(*size)
    enriched, _, _ = make()(dict(features), None)
    assert all(torch.equal(enriched[name], features[name]) for name in features)


def test_it_computes_what_its_docstring_says():
    branch, features = train_the_last_layers(make()), make_features(128, 192)
    context = SemanticContextHead(SHAPES, num_classes=CLASSES, conv_dim=8, num_convs=1)
    context.load_state_dict(branch.state_dict(), strict=False)
    embedding = context(features, None)[0]["semantic"]
    assert embedding.any()
    semantic_levels = {
        "p2": embedding.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3),
        "p3": embedding,
        "p4": F.avg_pool2d(embedding, 2),
        "p5": F.avg_pool2d(embedding, 4),
        "p6": F.avg_pool2d(embedding, 8),
    }
    enriched, _, _ = branch(features, None)
    for name, semantic_level in semantic_levels.items():
        reduce, output = branch.fusion_convs[name]
        x = torch.cat([features[name], semantic_level], dim=1)
        x = F.relu(F.conv2d(x, reduce.weight, reduce.bias))
        x = features[name] + F.conv2d(x, output.weight, output.bias, padding=1)
        torch.testing.assert_close(enriched[name], x)
        assert not torch.allclose(enriched[name], features[name])


def test_the_segmentation_is_that_of_the_semantic_context_head():
    branch, features = train_the_last_layers(make(loss_weight=0.7)), make_features(128, 192)
    context = SemanticContextHead(
        SHAPES, num_classes=CLASSES, conv_dim=8, num_convs=1, loss_weight=0.7
    )
    context.load_state_dict(branch.state_dict(), strict=False)
    targets = torch.randint(0, CLASSES, (2, 128, 192))
    _, logits, losses = branch(features, targets)
    _, their_logits, their_losses = context(features, targets)
    assert torch.equal(logits, their_logits)
    assert losses == their_losses and losses["loss_sem_seg"] > 0


@pytest.mark.parametrize("size", [(160, 224), (32, 96)])  # p6 of odd and of single cells
def test_maps_keep_their_shapes_and_the_caller_its_maps(size):
    features = make_features(*size)
    before = {name: x.clone() for name, x in features.items()}
    enriched, _, _ = train_the_last_layers(make())(features, None)
    assert {n: x.shape for n, x in enriched.items()} == {n: x.shape for n, x in before.items()}
    assert features.keys() == before.keys()
    assert all(torch.equal(features[name], before[name]) for name in before)


def test_levels_that_are_not_asked_for_pass_as_they_are():
    branch = train_the_last_layers(make(in_features=["p2", "p3", "p4", "p5"]))
    features = make_features(128, 192)
    enriched, _, _ = branch(features, None)
    assert enriched["p6"] is features["p6"]
    assert not torch.allclose(enriched["p5"], features["p5"])
    assert branch.output_shape() == SHAPES


def test_output_context_map_adds_the_embedding_and_changes_nothing_else():
    branch, features = train_the_last_layers(make(output_context_map=True)), make_features(64, 96)
    plain = make()
    plain.load_state_dict(branch.state_dict())
    enriched, logits, _ = branch(features, None)
    context = SemanticContextHead(SHAPES, num_classes=CLASSES, conv_dim=8, num_convs=1)
    context.load_state_dict(branch.state_dict(), strict=False)
    assert torch.equal(enriched.pop("semantic"), context(features, None)[0]["semantic"])
    assert branch.output_shape()["semantic"] == ShapeSpec(channels=CHANNELS, stride=8)
    expected, expected_logits, _ = plain(features, None)
    assert plain.output_shape() == SHAPES and expected.keys() == enriched.keys()
    assert torch.equal(logits, expected_logits)
    assert all(torch.equal(enriched[name], expected[name]) for name in expected)


def test_a_level_that_the_backbone_does_not_have_is_refused():
    with pytest.raises(ValueError, match=r"asks for \['p7'\]; the backbone has \['p2'"):
        make(in_features=["p3", "p7"])


# Whole models


@pytest.mark.parametrize("name", ["faster_rcnn", "mask_rcnn"])
def test_the_initial_network_detects_what_plain_fpn_detects(tiny_config, inputs, tmp_path, name):
    plain = instantiate(tiny_config(f"{name}_toy"))
    model = instantiate(tiny_config(f"{name}_sfpn_toy"))
    assert type(plain) is GeneralizedRCNN
    torch.save({"model": plain.state_dict()}, tmp_path / "trained.pth")
    # As at the start of a training; the branch's own layers stay as they were initialised.
    FittingCheckpointer(model).load(str(tmp_path / "trained.pth"), checkpointables=[])
    before = detect(plain, inputs)
    assert_same_detections(detect(model, inputs), before)
    train_the_last_layers(model.semantic_branch)
    assert not torch.equal(detect(model, inputs)[0].scores, before[0].scores)


@pytest.mark.parametrize("name", ["mask_rcnn", "htc"])
def test_every_layer_gets_a_gradient_in_every_step(tiny_config, inputs, storage, name):
    model = instantiate(tiny_config(f"{name}_sfpn_toy")).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    for step in range(2):
        optimizer.zero_grad()
        losses = model(inputs)
        assert torch.isfinite(losses["loss_sem_seg"]) and losses["loss_sem_seg"] > 0
        sum(losses.values()).backward()
        assert without_gradient(model) == []
        reduce, output = zip(*model.semantic_branch.fusion_convs.values(), strict=True)
        assert any(conv.weight.grad.any() for conv in output)
        # What lies before the layer that starts at zero learns from the second step on.
        for convs in (reduce, [model.semantic_branch.embedding]):
            from_fusion = any(conv.weight.grad.any() for conv in convs)
            assert from_fusion == (step > 0 or (name == "htc" and convs is not reduce))
        optimizer.step()


@pytest.mark.parametrize("name", ["faster_rcnn", "htc"])
def test_images_without_instances_and_pixels_without_labels_train(
    tiny_config, inputs, make_ground_truth, storage, name
):
    config = tiny_config(f"{name}_sfpn_toy")
    config.semantic_targets.unlabelled = "ignore"
    model = instantiate(config).train()
    for x in inputs:
        x["instances"] = make_ground_truth(*x["image"].shape[1:], [], [])
    losses = model(inputs)
    assert losses["loss_sem_seg"] == 0
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    assert without_gradient(model) == []


def test_data_of_boxes_alone_trains(tmp_path, storage):
    config = load_config(str(CONFIGS / "quick_start" / "faster_rcnn_sfpn_from_boxes_toy.py"))
    image = {"file_name": str(tmp_path / "image.png"), "height": 96, "width": 128, "image_id": 1}
    Image.new("RGB", (128, 96)).save(image["file_name"])
    box = {"category_id": 3, "bbox": [16, 8, 80, 72], "bbox_mode": BoxMode.XYXY_ABS, "iscrowd": 0}
    image["annotations"] = [{**box, "segmentation": [[16, 8, 80, 8, 80, 72]]}, box]
    mapper, model = instantiate(config.dataloader.train.mapper), instantiate(config.model).train()
    inputs = [mapper(image), mapper({**image, "annotations": []})]
    instances = [x["instances"] for x in inputs]
    assert [len(i) for i in instances] == [2, 0] and not instances[0].has("gt_masks")
    targets = model.semantic_targets(inputs, instances, (96, 128), "cpu")
    assert (targets[0] == 3).sum() == 64 * 64 and (targets[0] == 8).sum() == 96 * 128 - 64 * 64
    assert (targets[1] == 8).all()
    losses = model(inputs)
    assert losses["loss_sem_seg"] > 0
    sum(losses.values()).backward()
    assert without_gradient(model) == []


def test_with_htc_one_segmentation_head_serves_the_pyramid_and_the_fusion(tiny_config, inputs):
    htc, model = (instantiate(tiny_config(f"{name}_toy")) for name in ("htc", "htc_sfpn"))
    missing = model.load_state_dict(htc.state_dict(), strict=False).missing_keys
    # All that is new is the fusion with the pyramid.
    assert missing and all(key.startswith("semantic_branch.fusion_convs.") for key in missing)
    assert model.roi_heads.semantic_fusion == "both"
    assert_same_detections(detect(model, inputs), detect(htc, inputs))
    # And the heads do look at the map of this branch.
    before = detect(model, inputs)[0].scores
    torch.nn.init.zeros_(model.semantic_branch.embedding.weight)
    assert not torch.equal(detect(model, inputs)[0].scores, before)


def test_htc_on_a_pyramid_that_keeps_its_context_map_is_refused_when_built(tiny_config):
    config = tiny_config("htc_sfpn_toy")
    config.semantic_branch.output_context_map = False
    with pytest.raises(ValueError, match="SemanticPyramid with output_context_map=True"):
        instantiate(config)


def test_a_backbone_without_a_level_of_the_branch_is_refused_when_built(tiny_config):
    config = tiny_config("faster_rcnn_sfpn_toy")
    config.backbone.top_block = None  # no p6
    with pytest.raises(ValueError, match=r"asks for \['p6'\]; the backbone has \['p2'"):
        instantiate(config)


# CfgNode


def cfg_node(name, *overrides):
    """The keys that give the models of configs/quick_start, in Detectron2's defaults."""
    cfg = get_cfg()
    add_hybrid_cascade_config(cfg)
    cfg.merge_from_list(
        [
            *("MODEL.DEVICE", "cpu", "MODEL.MASK_ON", name != "faster_rcnn"),
            *("MODEL.META_ARCHITECTURE", "SemanticRCNN"),
            *("MODEL.SEMANTIC_BRANCH.NAME", "SemanticPyramid"),
            *("MODEL.SEMANTIC_BRANCH.NUM_CLASSES", 9, "MODEL.SEMANTIC_BRANCH.CONV_DIM", 64),
            *("MODEL.SEMANTIC_BRANCH.NUM_CONVS", 2),
            *("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone", "MODEL.BACKBONE.FREEZE_AT", 0),
            *("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64),
            *("MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"]),
            *("MODEL.FPN.IN_FEATURES", ["res2", "res3", "res4", "res5"]),
            *("MODEL.FPN.OUT_CHANNELS", 64),
            *("MODEL.PIXEL_MEAN", [123.675, 116.280, 103.530]),
            *("MODEL.PIXEL_STD", [58.395, 57.120, 57.375]),
            *("MODEL.RPN.IN_FEATURES", ["p2", "p3", "p4", "p5", "p6"]),
            *("MODEL.RPN.PRE_NMS_TOPK_TEST", 200, "MODEL.RPN.POST_NMS_TOPK_TEST", 100),
            *("MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16], [32], [64], [128]]),
            *("MODEL.ROI_HEADS.NAME", "HTCROIHeads" if name == "htc" else "StandardROIHeads"),
            *("MODEL.ROI_HEADS.NUM_CLASSES", 5),
            *("MODEL.ROI_HEADS.IN_FEATURES", ["p2", "p3", "p4", "p5"]),
            *("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.NUM_FC", 1),
            *("MODEL.ROI_BOX_HEAD.FC_DIM", 256, "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7),
            *("MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", 1 if name == "faster_rcnn" else 0),
            *("MODEL.ROI_MASK_HEAD.NUM_CONV", 2, "MODEL.ROI_MASK_HEAD.CONV_DIM", 64),
            *overrides,
        ]
    )
    return cfg


def test_cfg_node_and_lazy_config_give_the_same_model(tiny_config, inputs):
    lazy = instantiate(tiny_config("faster_rcnn_sfpn_toy"))
    train_the_last_layers(lazy.semantic_branch)
    node = build_model(cfg_node("faster_rcnn"))
    node.load_state_dict(lazy.state_dict())
    assert_same_detections(detect(node, inputs), detect(lazy, inputs))
    assert node.semantic_branch.loss_weight == lazy.semantic_branch.loss_weight


def test_in_a_cfg_node_htc_fuses_the_context_map_if_the_pyramid_gives_it():
    model = build_model(cfg_node("htc"))
    assert model.roi_heads.semantic_fusion == "none"
    model = build_model(cfg_node("htc", "MODEL.SEMANTIC_BRANCH.OUTPUT_CONTEXT_MAP", True))
    assert model.roi_heads.semantic_fusion == "both"
    with pytest.raises(ValueError, match="OUTPUT_CONTEXT_MAP to True"):
        build_model(cfg_node("htc", "MODEL.ROI_HTC_HEAD.SEMANTIC_FUSION", "both"))
