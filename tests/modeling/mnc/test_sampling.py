import torch
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, pairwise_iou

from hybrid_cascade.modeling.mnc.mask_loss import mask_areas
from hybrid_cascade.modeling.mnc.sampling import append_ground_truth, draw_rois, match_rois

from .small_heads import (
    CLASSES,
    SIZES,
    make_features,
    make_heads,
    make_proposals,
    make_targets,
    train,
)


def test_boxes_are_matched_to_the_ground_truth_that_they_overlap_most(make_ground_truth):
    [target] = [make_ground_truth(100, 100, [[0, 0, 40, 40], [50, 50, 100, 80]], [2, 1], True)]
    boxes = torch.tensor(
        [[50.0, 50.0, 100.0, 78.0], [0, 0, 40, 38], [0, 50, 40, 90], [0, 0, 40, 19]]
    )
    matcher = Matcher([0.5], [0, 1], allow_low_quality_matches=False)
    found = match_rois(Boxes(boxes), target, mask_areas(target), matcher, CLASSES)
    assert found.gt_classes.tolist() == [1, 2, CLASSES, CLASSES]  # the last has an IoU of 0.475
    assert torch.equal(found.gt_boxes.tensor[:2], target.gt_boxes.tensor[[1, 0]])
    assert found.gt_areas[:2].tolist() == [0.75 * 50 * 30, 0.75 * 40 * 40]
    assert torch.equal(found.gt_masks.tensor[:2], target.gt_masks.tensor[[1, 0]])


def test_boxes_are_sampled_in_the_fractions_of_the_paper(make_ground_truth):
    target = make_ground_truth(100, 100, [[10, 10, 50, 50]], [0], True)

    def sample(boxes, target=target, number=20, append=True):
        boxes = Boxes(boxes)
        if append:
            boxes = append_ground_truth(boxes, target)
        index, positives = draw_rois(boxes, target, number, (0.5, 0.1), (0.3, 0.5, 0.2))
        sampled = boxes[index]
        if len(target):
            assert positives == (pairwise_iou(target.gt_boxes, sampled) >= 0.5).sum()
        return sampled

    ones = torch.ones(30)

    def boxes(x2):  # IoU with the target: 40 / (x2 - 10)
        return torch.stack([10 * ones, 10 * ones, x2 * ones, 50 * ones], dim=1)

    far = torch.tensor([[60.0, 60.0, 90.0, 90.0]]).expand(30, 4)
    good, poor = boxes(60.0), boxes(98.0)  # 0.8, 0.45
    sampled = sample(torch.cat([good, poor, far]))
    ious = pairwise_iou(target.gt_boxes, sampled)[0]
    assert len(sampled) == 20
    assert [(ious >= 0.5).sum(), ((ious >= 0.1) & (ious < 0.5)).sum()] == [6, 10]
    # 30 % of 64 are 19.2, and 20 % 12.8.
    many = torch.cat([good, poor, poor, far])
    ious = pairwise_iou(target.gt_boxes, sample(many, number=64))[0]
    assert [(ious >= 0.5).sum(), (ious < 0.1).sum()] == [19, 13]
    # Which ones is random.
    many = torch.cat([boxes(x2 * ones) for x2 in (55.0, 60.0)])
    draws = [sample(many).tensor for _ in range(5)]
    assert not all(torch.equal(draws[0], draw) for draw in draws)
    # Without positives but the ground truth the others fill up; positives are never more.
    ious = pairwise_iou(target.gt_boxes, sample(torch.cat([poor, far])))[0]
    assert len(ious) == 20 and (ious >= 0.5).sum() == 1
    ious = pairwise_iou(target.gt_boxes, sample(good))[0]
    assert len(ious) == 6
    # An image without objects has far boxes only.
    nothing = make_ground_truth(100, 100, [], [], True)
    assert len(sample(good, nothing)) == 20
    ious = pairwise_iou(target.gt_boxes, sample(far, append=False))[0]
    assert len(ious) == 20 and ious.max() == 0


def test_numbers_of_samples_are_means_over_the_images(storage, make_ground_truth):
    heads = make_heads(num_stages=3)
    targets = make_targets(make_ground_truth)
    targets[1] = make_ground_truth(*SIZES[1], [], [], True)
    proposals = make_proposals(make_targets(make_ground_truth))
    train(heads, make_features(), proposals, targets)
    # Of 16 RoIs 30 % are positive. The first image has 8 boxes and 2 of the ground truth, half of
    # which may be drawn; the second has 5, all negative.
    found = {k.rpartition("/")[2]: v for k, (v, _) in storage.latest().items()}
    torch.manual_seed(11)
    drawn = [
        draw_rois(
            append_ground_truth(p.proposal_boxes, t),
            t,
            heads.batch_size_per_image,
            heads.sampling_ious,
            heads.sampling_fractions,
        )
        for p, t in zip(proposals, targets, strict=True)
    ]
    positives = [n for _, n in drawn]
    assert positives[0] > 0 == positives[1]
    assert found["num_fg_samples"] == sum(positives) / 2
    assert found["num_bg_samples"] == (sum(len(b) for b, _ in drawn) - sum(positives)) / 2
