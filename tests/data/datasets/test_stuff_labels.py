import pytest
from detectron2.data import MetadataCatalog

from hybrid_cascade.data import stuff_labels_of


def test_built_in_datasets_know_which_labels_are_stuff():
    assert stuff_labels_of("toy_scenes_val") == [5, 6, 7, 8]
    # From banner to wood. "unlabeled", the last of the 183, is not stuff.
    assert stuff_labels_of("coco_2017_train_stuffthings") == list(range(91, 182))


def test_detectron2s_panoptic_datasets_have_one_label_for_all_things():
    assert stuff_labels_of("coco_2017_val_panoptic_separated") == list(range(1, 54))


def test_a_category_id_of_zero_can_be_stuff_and_ids_of_things_are_not():
    metadata = MetadataCatalog.get("numbered from 0")
    metadata.set(
        stuff_classes=["moss", "soil", "fern"],
        stuff_dataset_id_to_contiguous_id={0: 0, 1: 1, 2: 2},
        thing_dataset_id_to_contiguous_id={2: 0},
    )
    assert stuff_labels_of("numbered from 0") == [0, 1]
    MetadataCatalog.remove("numbered from 0")


@pytest.mark.parametrize("name", ["coco_2017_val", "nobody registered this"])
def test_a_dataset_that_does_not_say_which_labels_are_stuff_is_named_in_the_error(name):
    with pytest.raises(ValueError, match=f"'{name}' does not say .*MODEL.SEMANTIC_BRANCH.STUFF"):
        stuff_labels_of(name)
