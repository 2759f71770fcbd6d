import pytest

from hybrid_cascade.data import DatasetError, check_training_labels

MASK = [[0, 0, 5, 0, 5, 5]]


def labelled(*segmentations, **fields):
    annotations = [
        {"category_id": 0, **({} if s is None else {"segmentation": s})} for s in segmentations
    ]
    return {"file_name": "a.jpg", "annotations": annotations, **fields}


@pytest.mark.parametrize(
    ("images", "options"),
    [
        ([labelled(MASK, None)], {"masks": "some"}),
        ([labelled(None), labelled(MASK)], {"masks": "some"}),
        ([labelled(MASK), labelled()], {"masks": "all"}),
        ([labelled(None)], {"masks": "none"}),
        ([labelled(), labelled()], {"masks": "some"}),  # the loader says that nothing is left
        ([{"file_name": "a.jpg", "sem_seg_file_name": "b.png"}], {"reads_label_maps": True}),
    ],
)
def test_labels_that_a_model_can_do_with_pass(images, options):
    check_training_labels(images, "mine", **options)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ([labelled(None), labelled([])], {"masks": "some"}, "none of the 2 instances"),
        ([labelled(MASK, None)], {"masks": "all"}, "annotation 1 of image 'a.jpg'.*HTCROIHeads"),
        ([labelled(), {"file_name": "b.jpg"}], {}, "'b.jpg' has no `annotations`"),
        ([{"file_name": "b.jpg"}], {"reads_label_maps": True}, "'b.jpg' has no `annotations`"),
        (
            [{"file_name": "b.jpg", "sem_seg_file_name": "b.png"}],
            {},
            "'b.jpg' has no `annotations`",
        ),
    ],
)
def test_labels_that_a_model_cannot_do_without_are_asked_for(images, options, message):
    with pytest.raises(DatasetError, match=message):
        check_training_labels(images, "mine", **options)


def test_a_crowd_needs_no_mask():
    image = labelled(MASK, None)
    image["annotations"][1]["iscrowd"] = 1
    check_training_labels([image], "mine", masks="all")


def test_run_lengths_need_a_mapper_that_reads_bitmasks():
    images = [labelled(MASK, {"size": [6, 8], "counts": "d03"})]
    check_training_labels(images, "mine", masks="all")
    with pytest.raises(DatasetError, match="annotation 1.*instance_mask_format.*INPUT.MASK_FORMAT"):
        check_training_labels(images, "mine", masks="all", mask_format="polygon")
