"""A training step here and in MMDetection 3.3.0, from the same weights, images and proposals.

The samplers of the recorded steps keep every candidate, so that nothing is random. Every loss and
the gradient of every parameter are compared, none excepted. `htc_tiny_mmdet_training.pth` holds a
step of HTC; tests/data/record_cascade_mask_rcnn_training.py recorded that of Cascade Mask R-CNN,
and of one whose boxes are regressed for each class.
"""

from pathlib import Path

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from hybrid_cascade.converters import MMDET, convert
from hybrid_cascade.engine import build_model, load_config

DATA = Path(__file__).resolve().parents[1] / "data"
AS_MMDETECTION = {
    "htc": [],  # as the config is
    "cascade_mask_rcnn": ["model.roi_heads.resample_stages=True"],
    "cascade_mask_rcnn_class_wise": [
        "model.roi_heads.resample_stages=True",
        "model.roi_heads.box_predictors.0.cls_agnostic_bbox_reg=False",
    ],
}
KEEP_ALL_SAMPLES = [
    "train.device=cpu",
    "model.proposal_generator=null",
    "model.roi_heads.batch_size_per_image=1000000",
    "model.roi_heads.positive_fraction=1.0",
]


def as_input(image):
    """The input of our model for a recorded image. Its pixels are RGB."""
    size = image["image_bgr"].shape[-2:]
    instances = Instances(tuple(size))
    instances.gt_boxes = Boxes(image["gt_boxes"])
    instances.gt_classes = image["gt_classes"]
    instances.gt_masks = BitMasks(image["gt_masks"])
    proposals = Instances(tuple(size), proposal_boxes=Boxes(image["proposals"]))
    proposals.objectness_logits = torch.zeros(len(proposals))
    inputs = {"image": image["image_bgr"].flip(0), "instances": instances, "proposals": proposals}
    return {**inputs, "sem_seg": image["sem_seg"]} if "sem_seg" in image else inputs


def load_step(name):
    recorded = torch.load(DATA / f"{name}_tiny_mmdet_training.pth", weights_only=True)
    if not name.endswith("_class_wise"):
        return recorded
    agnostic = load_step(name.removesuffix("_class_wise"))  # has what both have in common
    weights = {**agnostic["state_dict"], **recorded["state_dict"]}
    return {**recorded, "state_dict": weights, "images": agnostic["images"]}


def train_step(name, overrides, dtype=torch.float32):
    """Losses and gradients by MMDetection's names, and what was recorded."""
    recorded = load_step(name)
    config = DATA / f"{name.removesuffix('_class_wise')}_tiny_mmdet.py"
    model = build_model(load_config(str(config), [*KEEP_ALL_SAMPLES, *overrides])).train().to(dtype)
    # The RPN is no part of the step; without it, its weights have no place.
    weights = {k: v for k, v in recorded["state_dict"].items() if not k.startswith("rpn_head.")}
    converted = convert(MMDET, weights, model.state_dict())
    model.load_state_dict(converted.state_dict)
    with EventStorage():
        losses = model([as_input(image) for image in recorded["images"]])
    sum(losses.values()).backward()
    found = {}
    for loss, value in losses.items():
        loss, _, stage = loss.partition("_stage")
        loss = {"loss_box_reg": "loss_bbox", "loss_sem_seg": "loss_semantic_seg"}.get(loss, loss)
        found[f"s{stage}.{loss}" if stage else loss] = value.detach()
    parameters = dict(model.named_parameters())
    gradients = {
        theirs: parameters[ours].grad for theirs, ours in converted.mapped if ours in parameters
    }
    return found, gradients, recorded


@pytest.mark.parametrize("name", AS_MMDETECTION)
def test_every_loss_is_that_of_mmdetection(name):
    losses, _, recorded = train_step(name, AS_MMDETECTION[name])
    expected = {name: x for name, x in recorded["losses"].items() if "loss" in name}
    assert losses.keys() == expected.keys()
    for loss, value in losses.items():
        assert value.item() == pytest.approx(expected[loss].item(), abs=1e-5), loss


@pytest.mark.parametrize("name", AS_MMDETECTION)
def test_every_gradient_is_that_of_mmdetection(name):
    # In float32, processors round sums differently, and an activation near zero may then pass its
    # ReLU on some of them only, which shows in all layers below.
    _, gradients, recorded = train_step(name, AS_MMDETECTION[name], torch.float64)
    # Batch norms have parameters there that our frozen ones keep as buffers.
    expected = {name: x for name, x in recorded["gradients"].items() if name in gradients}
    trained = {name for name, gradient in gradients.items() if gradient is not None}
    if all(name.startswith("roi_head.") for name in expected):  # the others were not recorded
        trained = {name for name in trained if name.startswith("roi_head.")}
    assert trained == expected.keys() and len(trained) > 50
    for parameter, gradient in expected.items():
        difference = (gradients[parameter] - gradient).norm()
        assert difference <= 1e-4 * gradient.norm(), parameter


@pytest.mark.parametrize(
    "override",
    [
        "model.roi_heads.resample_stages=False",
        "model.semantic_branch.loss_mean=labelled",
        "model.semantic_branch.label_sampling=center",
    ],
)
def test_each_switch_is_needed_for_the_losses_of_htc(override):
    losses, _, recorded = train_step("htc", [override])
    wrong = {
        name
        for name, loss in losses.items()
        if loss.item() != pytest.approx(recorded["losses"][name].item(), abs=1e-5)
    }
    if "semantic_branch" in override:
        assert wrong == {"loss_semantic_seg"}
    else:
        later = {f"s{stage}.{loss}" for stage in (1, 2) for loss in ("loss_cls", "loss_bbox")}
        # The masks of the first stage see the ground truth's refined boxes too.
        assert later < wrong and "loss_semantic_seg" not in wrong and "s0.loss_cls" not in wrong
