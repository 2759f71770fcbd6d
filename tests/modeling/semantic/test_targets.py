import pytest
import torch
from detectron2.structures import Boxes, Instances

from hybrid_cascade.modeling import SemanticTargets

IGNORE = 255


def make(source="auto", num_classes=6, num_things=5, **kwargs):
    return SemanticTargets(num_classes=num_classes, num_things=num_things, source=source, **kwargs)


@pytest.mark.parametrize("bitmasks", [True, False])
def test_painting_puts_small_instances_over_large_ones(make_ground_truth, bitmasks):
    # The small instance comes first in the list and lies inside the large one.
    instances = make_ground_truth(40, 50, [[4, 4, 12, 12], [0, 0, 40, 32]], [3, 1], bitmasks)
    target = make().paint(instances)
    assert target.shape == (40, 50) and target.dtype == torch.long
    assert target[6, 6] == 3  # the small one
    assert target[11, 11] == 1  # in its box, outside its mask: the large one shows
    assert target[2, 20] == 1
    assert target[30, 35] == 5  # in no mask: background, the last class


def test_unlabelled_pixels_are_background_or_ignored(make_ground_truth):
    instances = make_ground_truth(20, 20, [[0, 0, 10, 10]], [2])
    assert make(unlabelled="background").paint(instances)[15, 15] == 5
    assert make(unlabelled="ignore").paint(instances)[15, 15] == IGNORE


def test_painting_takes_boxes_where_there_are_no_masks():
    instances = Instances((10, 12), gt_boxes=Boxes([[2.0, 3, 6, 8]]), gt_classes=torch.tensor([4]))
    target = make().paint(instances)
    assert (target == 4).sum() == 20
    assert (target[3:8, 2:6] == 4).all()


def test_of_boxes_too_small_ones_are_painted_over_large_ones():
    boxes = Boxes([[4.0, 4, 8, 8], [0, 0, 20, 20], [-5, 10, 40, 30]])  # the last leaves the image
    instances = Instances((24, 24), gt_boxes=boxes, gt_classes=torch.tensor([2, 1, 3]))
    target = make().paint(instances)
    assert (target[4:8, 4:8] == 2).all() and (target == 2).sum() == 16
    # Within the image, the large box and the one that leaves it are of 400 and 336 pixels.
    assert target[2, 2] == 1 and target[15, 15] == 3 and target[22, 23] == 3
    assert target[2, 22] == 5


def test_painting_can_number_the_things_as_the_label_maps_do(make_ground_truth):
    instances = make_ground_truth(20, 20, [[0, 0, 10, 10]], [1])
    target = make(num_classes=91, num_things=2, thing_labels=[0, 44]).paint(instances)
    assert target[2, 2] == 44


def test_an_image_without_instances_is_all_unlabelled(make_ground_truth):
    assert (make().paint(make_ground_truth(8, 9, [], [])) == 5).all()


def test_a_mask_of_one_pixel_is_painted(make_ground_truth):
    instances = make_ground_truth(8, 8, [[2, 3, 3, 4]], [0], bitmasks=True)
    instances.gt_masks.tensor[0].zero_()
    instances.gt_masks.tensor[0, 3, 2] = True
    target = make().paint(instances)
    assert (target == 0).sum() == 1 and target[3, 2] == 0


def batch(make_ground_truth):
    sem_seg = torch.full((20, 30), 2)
    instances = [make_ground_truth(20, 30, [[0, 0, 10, 10]], [1])] * 2
    image = torch.zeros(3, 20, 30)
    inputs = [{"sem_seg": sem_seg, "file_name": "a.jpg"}, {"file_name": "b.jpg"}]
    return [{"image": image, **x} for x in inputs], instances


def test_auto_reads_the_map_of_an_image_that_has_one_and_paints_the_others(make_ground_truth):
    targets = make("auto")(*batch(make_ground_truth), (32, 32), "cpu")
    assert (targets[0, :20, :30] == 2).all()
    assert targets[1, 2, 2] == 1 and targets[1, 15, 15] == 5


def test_instances_paints_also_where_there_is_a_map(make_ground_truth):
    targets = make("instances")(*batch(make_ground_truth), (32, 32), "cpu")
    assert targets[0, 2, 2] == 1


def test_padding_is_ignored(make_ground_truth):
    targets = make("auto")(*batch(make_ground_truth), (32, 64), "cpu")
    assert targets.shape == (2, 32, 64)
    assert (targets[:, 20:] == IGNORE).all() and (targets[:, :, 30:] == IGNORE).all()


def test_where_an_instance_has_a_box_and_no_mask_pixels_are_ignored(make_ground_truth):
    # A large instance without a mask over two with masks: one in its box, one that it overlaps.
    boxes = [[0, 0, 20, 20], [4, 4, 12, 12], [16, 0, 32, 8]]
    for bitmasks in (True, False):
        instances = make_ground_truth(24, 40, boxes, [3, 1, 2], bitmasks)
        instances.gt_has_mask = torch.tensor([False, True, True])
        target = make().paint(instances)
        masked = [make_ground_truth(24, 40, [b], [0], True).gt_masks.tensor[0] for b in boxes]
        assert (target[masked[1]] == 1).all() and (target[masked[2]] == 2).all()
        ignored = masked[0] & ~masked[1] & ~masked[2]
        assert ((target == IGNORE) == ignored).all()
        assert (target[~(masked[0] | masked[1] | masked[2])] == 5).all()


@pytest.mark.parametrize("source", ["auto", "instances"])
def test_an_image_without_instance_labels_is_read_or_ignored(make_ground_truth, source):
    inputs, _ = batch(make_ground_truth)
    targets = make(source)(inputs, [None, None], (32, 32), "cpu")
    assert (targets[1] == IGNORE).all()
    assert (targets[0, :20, :30] == (2 if source == "auto" else IGNORE)).all()


def test_a_missing_map_is_an_error_that_names_the_image(make_ground_truth):
    with pytest.raises(ValueError, match="b.jpg has no label map"):
        make("sem_seg")(*batch(make_ground_truth), (32, 32), "cpu")


@pytest.mark.parametrize("value", [6, -1])
def test_a_value_out_of_range_is_an_error_that_names_file_and_value(make_ground_truth, value):
    inputs, instances = batch(make_ground_truth)
    inputs[0]["sem_seg"][3, 4] = value
    inputs[0]["sem_seg"][5, 5] = IGNORE
    with pytest.raises(ValueError, match=f"a.jpg has the value {value}"):
        make()(inputs, instances, (32, 32), "cpu")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"source": "stuff"}, "source='stuff'"),
        ({"unlabelled": "void"}, "unlabelled='void'"),
        ({"num_classes": 5}, "one more for the background"),
        ({"thing_labels": [1, 2]}, "2 labels for 5 classes"),
    ],
)
def test_wrong_options_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_reading_maps_needs_no_labels_for_painting():
    make("sem_seg", num_classes=2)
    make(num_classes=5, unlabelled="ignore")
