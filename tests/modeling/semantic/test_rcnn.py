import pytest
import torch
from detectron2.config import get_cfg, instantiate
from detectron2.modeling import build_model

from hybrid_cascade import add_hybrid_cascade_config
from hybrid_cascade.modeling import SemanticRCNN


@pytest.fixture
def model(tiny_config):
    return instantiate(tiny_config("htc_toy"))


def without_ground_truth(inputs):
    return [{k: v for k, v in x.items() if k != "instances"} for x in inputs]


def test_it_trains_on_label_maps_and_on_painted_ones(model, inputs, storage):
    model.train()
    painted = model(inputs)
    for x in inputs:
        x["sem_seg"] = torch.full(x["image"].shape[1:], 7)
    read = model(inputs)
    assert painted.keys() == read.keys() and "loss_sem_seg" in read
    assert not torch.isclose(painted["loss_sem_seg"], read["loss_sem_seg"])
    sum(read.values()).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_the_semantic_loss_reaches_the_backbone_and_not_the_roi_heads(model, inputs, storage):
    model.train()(inputs)["loss_sem_seg"].backward()
    assert model.backbone.fpn_output3.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.roi_heads.parameters())


def test_inference_returns_instances_at_output_size(model, inputs):
    with torch.no_grad():
        outputs = model.eval()(without_ground_truth(inputs))
    assert [o["instances"].image_size for o in outputs] == [(97, 131), (64, 48)]
    assert all("sem_seg" not in o for o in outputs)


def test_output_sem_seg_adds_logits_at_output_size(model, inputs):
    model.output_sem_seg = True
    with torch.no_grad():
        outputs = model.eval()(without_ground_truth(inputs))
    assert [tuple(o["sem_seg"].shape) for o in outputs] == [(9, 97, 131), (9, 64, 48)]
    assert all(o.keys() == {"instances", "sem_seg"} for o in outputs)


def test_output_panoptic_seg_adds_segments_at_output_size_and_changes_nothing_else(model, inputs):
    images = without_ground_truth(inputs)
    with torch.no_grad():
        without = model.eval()(images)
        model.output_panoptic_seg = model.output_sem_seg = True
        model.combine_instances_score_thresh = 0.0  # the model is fresh
        model.combine_stuff_area_thresh = 1
        outputs = model(images)
    for before, output in zip(without, outputs, strict=True):
        assert before.keys() == {"instances"}
        instances = output["instances"]
        assert torch.equal(instances.scores, before["instances"].scores)
        assert torch.equal(instances.pred_masks, before["instances"].pred_masks)
        panoptic, segments = output["panoptic_seg"]
        assert panoptic.shape == instances.image_size
        assert [s["id"] for s in segments] == panoptic[panoptic > 0].unique().tolist()
        assert any(s["isthing"] for s in segments)
        # Where no instance is, the segment is that of the pixel's label, if it is stuff.
        category = torch.full((len(segments) + 1,), -1)
        for s in segments:
            category[s["id"]] = -2 if s["isthing"] else s["category_id"]
        found = category[panoptic.long()]
        labels = output["sem_seg"].argmax(dim=0)
        expected = torch.where(labels >= 5, labels, -1)
        assert torch.equal(found[found != -2], expected[found != -2])


def test_panoptic_output_without_detections_is_the_stuff_of_each_image_without_padding(
    model, inputs
):
    def sky_and_grass(branch, args, outputs):
        features, logits, losses = outputs
        logits = torch.zeros_like(logits)
        # Cells are of pixels 0, 8, ..., 40 and 48, ..., as `label_sampling="corner"` has it.
        logits[:, 5, :, :6] = logits[:, 6, :, 6:] = 1
        return features, logits, losses

    model.semantic_branch.register_forward_hook(sky_and_grass)
    model.output_panoptic_seg = True
    model.combine_stuff_area_thresh = 1
    for predictor in model.roi_heads.box_predictor:
        predictor.test_score_thresh = 2.0
    with torch.no_grad():
        outputs = model.eval()(without_ground_truth(inputs))
    # The second image is returned at half its size.
    for output, border, size in zip(outputs, (44, 22), ((97, 131), (64, 48)), strict=True):
        assert output.keys() == {"instances", "panoptic_seg"} and len(output["instances"]) == 0
        panoptic, segments = output["panoptic_seg"]
        assert [(s["id"], s["category_id"]) for s in segments] == [(1, 5), (2, 6)]
        assert panoptic.shape == size
        assert (panoptic[:, : border - 1] == 1).all() and (panoptic[:, border + 1 :] == 2).all()


def test_stuff_labels_and_thresholds_are_those_of_the_config(tiny_config, inputs, monkeypatch):
    config = tiny_config("htc_toy")
    assert config.stuff_labels == [5, 6, 7, 8]  # the dataset's
    config.output_panoptic_seg = True
    config.stuff_labels = [7]
    config.combine_overlap_thresh = 0.25
    config.combine_stuff_area_thresh = 9
    config.combine_instances_score_thresh = 0.75
    merges = []
    monkeypatch.setattr(
        "hybrid_cascade.modeling.semantic.rcnn.merge_instances_and_stuff",
        lambda instances, labels, stuff_labels, **thresholds: merges.append(
            {"stuff_labels": stuff_labels, **thresholds}
        ),
    )
    with torch.no_grad():
        instantiate(config).eval()(without_ground_truth(inputs[:1]))
    assert merges == [
        {
            "stuff_labels": [7],
            "overlap_thresh": 0.25,
            "stuff_area_thresh": 9,
            "instances_score_thresh": 0.75,
        }
    ]


def test_inference_with_given_boxes_predicts_their_masks(model, inputs):
    # What Detectron2's test-time augmentation calls.
    with torch.no_grad():
        found = model.eval().inference(without_ground_truth(inputs), do_postprocess=False)
        boxes = [i.pred_boxes.tensor.clone() for i in found]
        masks = [i.pred_masks for i in found]
        for i in found:
            i.remove("pred_masks")
        again = model.inference(
            without_ground_truth(inputs), detected_instances=found, do_postprocess=False
        )
    for i, box, mask in zip(again, boxes, masks, strict=True):
        assert torch.equal(i.pred_boxes.tensor, box)
        torch.testing.assert_close(i.pred_masks, mask)


def test_images_without_instances_train(model, inputs, make_ground_truth, storage):
    for x in inputs:
        x["instances"] = make_ground_truth(*x["image"].shape[1:], [], [])
    losses = model.train()(inputs)
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def without_labels(image):
    """The image with a label map, and without instance labels."""
    height, width = image["image"].shape[1:]
    image = {k: v for k, v in image.items() if k != "instances"}
    return {**image, "sem_seg": torch.full((height, width), 7)}


def test_images_without_instance_labels_train_the_semantic_branch_only(model, inputs, storage):
    model.train()
    for part in model.modules():  # the statistics of a batch would join its images
        if isinstance(part, torch.nn.BatchNorm2d):
            part.eval()
    torch.manual_seed(0)
    alone = model(inputs[:1])
    torch.manual_seed(0)
    unlabelled = {**without_labels(inputs[0]), "image": inputs[0]["image"].flip(2)}
    both = model([unlabelled, inputs[0]])
    assert both.keys() == alone.keys()
    for name, loss in both.items():
        is_same = torch.isclose(loss, alone[name], rtol=1e-4)
        assert is_same == (name != "loss_sem_seg"), name
    both["loss_sem_seg"].backward()
    assert model.semantic_branch.predictor.weight.grad.abs().sum() > 0


def test_a_batch_without_instance_labels_has_gradients_for_all_and_0_for_the_detector(
    model, inputs, storage
):
    losses = model.train()([without_labels(x) for x in inputs])
    assert losses["loss_sem_seg"] > 0
    assert {name for name, loss in losses.items() if loss != 0} == {"loss_sem_seg"}
    sum(losses.values()).backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert [n for n, g in gradients.items() if g is None or not g.isfinite().all()] == []
    changed = {n.partition(".")[0] for n, g in gradients.items() if g.any()}
    assert changed == {"backbone", "semantic_branch"}


def test_one_class_trains_and_detects(tiny_config, inputs, storage):
    config = tiny_config("htc_toy")
    config.roi_heads.num_classes = 1
    config.semantic_branch.num_classes = 2
    for x in inputs:
        x["instances"].gt_classes.zero_()
    model = instantiate(config)
    assert torch.isfinite(sum(model.train()(inputs).values()))
    with torch.no_grad():
        model.eval()(without_ground_truth(inputs))


def small_cfg(**keys):
    cfg = get_cfg()
    add_hybrid_cascade_config(cfg)
    cfg.merge_from_list(
        ["MODEL.DEVICE", "cpu", "MODEL.MASK_ON", True, "MODEL.ROI_MASK_HEAD.NUM_CONV", 2]
        + ["MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"]
        + ["MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64]
    )
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
    cfg.MODEL.ROI_HEADS.NAME = "HTCROIHeads"
    for key, value in keys.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    return cfg


def test_in_a_cfg_node_fusion_follows_the_meta_architecture():
    assert build_model(small_cfg()).roi_heads.semantic_fusion == "none"
    model = build_model(small_cfg(MODEL__META_ARCHITECTURE="SemanticRCNN"))
    assert isinstance(model, SemanticRCNN)
    assert model.roi_heads.semantic_fusion == "both"
    assert model.semantic_branch.num_classes == 81  # 80 things and the background


def test_in_a_cfg_node_fusion_without_a_branch_fails_when_built():
    with pytest.raises(ValueError, match="MODEL.META_ARCHITECTURE to SemanticRCNN"):
        build_model(small_cfg(MODEL__ROI_HTC_HEAD__SEMANTIC_FUSION="box"))


def test_a_cfg_node_chooses_soft_nms():
    assert build_model(small_cfg()).roi_heads.soft_nms == "none"
    keys = {"SOFT_NMS": "gaussian", "SOFT_NMS_SIGMA": 0.3, "SOFT_NMS_SCORE_THRESH": 0.01}
    keys = {f"MODEL__ROI_HTC_HEAD__{key}": value for key, value in keys.items()}
    heads = build_model(small_cfg(**keys)).roi_heads
    assert heads.soft_nms == "gaussian"
    assert (heads.soft_nms_sigma, heads.soft_nms_score_thresh) == (0.3, 0.01)


def test_a_cfg_node_chooses_panoptic_output():
    def build(**keys):
        with torch.device("meta"):
            return SemanticRCNN(small_cfg(**keys))

    branch = "MODEL__SEMANTIC_BRANCH__"
    keys = {branch + "NUM_CLASSES": 183}
    model = build(**keys)
    assert not model.output_panoptic_seg and model.stuff_labels == []
    keys |= {branch + "OUTPUT_PANOPTIC_SEG": True}
    with pytest.raises(ValueError, match="STUFF_LABELS"):
        build(**keys)
    thresholds = {"OVERLAP_THRESH": 0.4, "STUFF_AREA_LIMIT": 9, "INSTANCES_CONFIDENCE_THRESH": 0.3}
    thresholds = {f"MODEL__PANOPTIC_FPN__COMBINE__{k}": v for k, v in thresholds.items()}
    names = ("coco_2017_train_stuffthings",)
    model = build(**keys, **thresholds, DATASETS__TRAIN=names)
    assert model.output_panoptic_seg and model.stuff_labels == list(range(91, 182))
    assert model.combine_overlap_thresh == 0.4
    assert model.combine_stuff_area_thresh == 9
    assert model.combine_instances_score_thresh == 0.3
    keys |= {branch + "STUFF_LABELS": [100, 101]}
    assert build(**keys).stuff_labels == [100, 101]
