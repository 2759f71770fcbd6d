from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog

from hybrid_cascade.data import DatasetError, check_dataset, prepare_sbd, register_sbd


def test_the_registered_datasets_can_be_mapped_with_bit_masks(sbd, monkeypatch):
    root, truth = sbd
    prepare_sbd(root)
    for name in ("sbd_train", "sbd_val"):  # monkeypatch restores those of the real folder
        monkeypatch.delitem(DatasetCatalog.data, name)
        monkeypatch.delitem(MetadataCatalog.data, name)
    register_sbd(root)
    assert MetadataCatalog.get("sbd_val").evaluator_type == "voc_region"
    dataset = DatasetCatalog.get("sbd_train")
    check_dataset(dataset, "sbd_train", num_classes=20)
    mapper = DatasetMapper(
        is_train=True,
        augmentations=[],
        image_format="BGR",
        use_instance_mask=True,
        instance_mask_format="bitmask",
    )
    for image in dataset:
        labels, categories = truth[Path(image["file_name"]).stem]
        instances = mapper(image)["instances"]
        assert (instances.gt_classes + 1).tolist() == list(categories)
        for number, mask in enumerate(getattr(instances, "gt_masks", ()), start=1):
            assert np.array_equal(mask.numpy(), labels == number)


def test_using_the_datasets_before_they_are_prepared_says_what_to_run(tmp_path, monkeypatch):
    for name in ("sbd_train", "sbd_val"):
        monkeypatch.delitem(DatasetCatalog.data, name)
        monkeypatch.delitem(MetadataCatalog.data, name)
    register_sbd(tmp_path)
    with pytest.raises(DatasetError, match="sbd_val.json' does not exist. tools/prepare_sbd.py"):
        DatasetCatalog.get("sbd_val")


def test_the_built_in_datasets_have_vocs_classes():
    for name in ("sbd_train", "sbd_val"):
        assert name in DatasetCatalog.list()
        classes = MetadataCatalog.get(name).thing_classes
        assert len(classes) == 20 and classes[0] == "aeroplane" and classes[19] == "tvmonitor"
