import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks, pairwise_iou
from torch.nn import functional as F

from hybrid_cascade.modeling.mnc.mask_loss import UNKNOWN, mask_areas, mask_loss
from hybrid_cascade.modeling.mnc.sampling import append_ground_truth, draw_rois_of_images

from .small_heads import (
    CLASSES,
    SIDE,
    make_features,
    make_heads,
    make_proposals,
    make_targets,
    train,
)


def test_mask_loss_is_the_cross_entropy_of_positive_boxes(storage, make_ground_truth):
    targets = make_targets(make_ground_truth)
    heads = make_heads(num_stages=3, mask_loss_weight=3.0)
    proposals = make_proposals(targets)
    loss = train(heads, make_features(), proposals, targets)["loss_mask_stage1"]
    maps = [make_features()["p2"]]
    torch.manual_seed(11)
    boxes = draw_rois_of_images(
        [append_ground_truth(p.proposal_boxes, t) for p, t in zip(proposals, targets, strict=True)],
        targets,
        heads.batch_size_per_image,
        heads.sampling_ious,
        heads.sampling_fractions,
    )
    logits = heads.mask_head(heads.pooler(maps, boxes)).split([len(b) for b in boxes])
    terms = []
    for b, t, predicted in zip(boxes, targets, logits, strict=True):
        ious = pairwise_iou(b, t.gt_boxes)
        for i in (ious.amax(dim=1) >= 0.5).nonzero()[:, 0].tolist():
            best = t.gt_masks[ious[i].argmax().item()]
            mask = best.crop_and_resize(b.tensor[i : i + 1].detach(), SIDE).float()
            terms.append(F.binary_cross_entropy_with_logits(predicted[i : i + 1], mask))
    assert len(terms) > 3
    torch.testing.assert_close(loss, 3.0 * torch.stack(terms).mean())


def mask_level_classes(logits, instances, mask_threshold=0.4, iou_thresh=0.5):
    _, classes = mask_loss(
        logits,
        [instances],
        mask_threshold=mask_threshold,
        iou_thresh=iou_thresh,
        num_classes=CLASSES,
    )
    return classes.tolist()


def test_mask_level_positives_need_a_mask_that_fits_in_the_image(storage):
    """A mask right inside of its box may still lack too much of the object outside."""
    mask = torch.zeros(1, 40, 40, dtype=torch.bool)
    mask[0, :20, :40] = True  # 800 pixels
    instances = Instances(
        (40, 40),
        proposal_boxes=Boxes(
            torch.tensor(
                [
                    [0.0, 0.0, 40.0, 40.0],
                    [0.0, 0.0, 40.0, 40.0],
                    [0.0, 0.0, 19.0, 20.0],
                    [0.0, 0.0, 21.0, 20.0],
                    [0.0, 0.0, 40.0, 40.0],
                ]
            )
        ),
        gt_classes=torch.tensor([1, 1, 1, 1, CLASSES]),
        gt_masks=BitMasks(mask.expand(5, -1, -1)),
        gt_areas=torch.full((5,), 800.0),
    )
    sides = torch.full((5, 10, 10), -9.0)
    sides[0, :5] = 9  # exact
    sides[1, :, :5] = 9  # half of it is wrong: 400 / 1200
    sides[2] = sides[3] = 9  # all of the box, 380 and 420 of 800 pixels
    sides[4, :5] = 9
    assert mask_level_classes(sides, instances) == [1, CLASSES, CLASSES, 1, CLASSES]


def test_masks_are_compared_at_their_threshold_with_the_iou_that_is_asked_for(storage):
    mask = torch.zeros(1, 40, 40, dtype=torch.bool)
    mask[0, :20] = True
    instances = Instances(
        (40, 40),
        proposal_boxes=Boxes(torch.tensor([[0.0, 0.0, 40.0, 40.0]] * 2)),
        gt_classes=torch.tensor([1, 1]),
        gt_masks=BitMasks(mask.expand(2, -1, -1)),
        gt_areas=torch.tensor([800.0, 800.0]),
    )
    logits = torch.full((2, 10, 10), -9.0)
    logits[0, :5] = -0.2  # a probability of 0.45
    logits[1, :9] = 9  # an IoU of 800 / 1440
    assert mask_level_classes(logits, instances) == [1, 1]
    assert mask_level_classes(logits, instances, mask_threshold=0.5) == [CLASSES, 1]
    settings = {"mask_threshold": 0.5, "iou_thresh": 0.6}
    assert mask_level_classes(logits, instances, **settings) == [CLASSES, CLASSES]


def test_two_empty_masks_are_no_match(storage):
    instances = Instances(
        (40, 40),
        proposal_boxes=Boxes(torch.tensor([[0.0, 0.0, 40.0, 40.0]])),
        gt_classes=torch.tensor([1]),
        gt_masks=BitMasks(torch.zeros(1, 40, 40, dtype=torch.bool)),
        gt_areas=torch.zeros(1),
    )
    assert mask_level_classes(torch.full((1, 10, 10), -9.0), instances) == [CLASSES]
    assert storage.latest()["mask_iou"][0] == 0


def test_instances_without_a_mask_have_no_mask_loss_and_an_unknown_class(storage):
    mask = torch.ones(3, 40, 40, dtype=torch.bool)
    instances = Instances(
        (40, 40),
        proposal_boxes=Boxes(torch.tensor([[0.0, 0, 40, 40]]).repeat(4, 1)),
        gt_classes=torch.tensor([0, 1, 2, CLASSES]),
        gt_masks=BitMasks(mask[[0, 1, 2, 0]]),
        gt_areas=torch.full((4,), 1600.0),
    )
    logits = torch.full((4, SIDE, SIDE), 3.0)
    logits[0] = -1.0
    settings = dict(mask_threshold=0.4, iou_thresh=0.5, num_classes=CLASSES)
    _, classes = mask_loss(logits, [instances], **settings)
    assert classes.tolist() == [CLASSES, 1, 2, CLASSES]
    instances.gt_has_mask = torch.tensor([False, True, False, True])
    loss, classes = mask_loss(logits, [instances], **settings)
    assert classes.tolist() == [UNKNOWN, 1, UNKNOWN, CLASSES]
    expected, _ = mask_loss(logits[1:2], [instances[1:2]], **settings)
    assert torch.equal(loss, expected)
    instances.gt_has_mask[1] = False
    loss, classes = mask_loss(logits.requires_grad_(), [instances], **settings)
    assert classes.tolist() == [UNKNOWN] * 3 + [CLASSES] and loss == 0
    assert not torch.autograd.grad(loss, logits)[0].any()


def test_ground_truth_without_masks_is_refused(storage, make_ground_truth):
    targets = make_targets(make_ground_truth)
    proposals = make_proposals(targets)
    for t in targets:
        t.remove("gt_masks")
    with pytest.raises(ValueError, match="use_instance_mask"):
        train(make_heads(), make_features(), proposals, targets)


def test_areas_of_polygons_and_bitmasks_agree(make_ground_truth):
    boxes = [[8, 8, 40, 48], [0, 0, 64, 64]]
    polygons, bitmasks = (make_ground_truth(64, 64, boxes, [0, 1], b) for b in (False, True))
    assert isinstance(polygons.gt_masks, PolygonMasks) and isinstance(bitmasks.gt_masks, BitMasks)
    assert mask_areas(polygons).tolist() == [0.75 * 32 * 40, 0.75 * 64 * 64]
    assert mask_areas(bitmasks).tolist() == pytest.approx(mask_areas(polygons).tolist(), rel=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("bitmasks", [True, False])
def test_masks_of_both_kinds_train_on_a_gpu(storage, make_ground_truth, bitmasks):
    targets = [t.to("cuda") for t in make_targets(make_ground_truth, bitmasks)]
    features = {"p2": make_features()["p2"].cuda()}
    losses = train(make_heads().cuda(), features, make_proposals(targets), targets)
    assert torch.isfinite(sum(losses.values()))
