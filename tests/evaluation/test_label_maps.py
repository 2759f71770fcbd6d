import json

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from PIL import Image

from hybrid_cascade.engine import as_run_config, load_config
from hybrid_cascade.evaluation import LabelMapEvaluator

NAME = "small_label_maps"
LABELS = [[[0, 0, 1, 1], [0, 0, 1, 255]], [[0, 0, 0, 0], [1, 1, 255, 255]]]
# The second image is right. In the first, one of three pixels of label 1 is taken for 0; what is
# found at ignored pixels does not count.
FOUND = [[[0, 0, 1, 0], [0, 0, 1, 2]], [[0, 0, 0, 0], [1, 1, 2, 1]]]


@pytest.fixture
def dataset(tmp_path):
    """Two images of 2 x 4 pixels, with three labels, one of which is in no label map."""
    images = []
    for i, labels in enumerate(LABELS):
        path = tmp_path / f"{i}.png"
        Image.fromarray(np.array(labels, np.uint8)).save(path)
        images.append({"file_name": f"{i}.jpg", "image_id": i, "sem_seg_file_name": str(path)})
    DatasetCatalog.register(NAME, lambda: images)
    MetadataCatalog.get(NAME).set(stuff_classes=["sky", "sea", "fog"], ignore_label=255)
    yield images
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def scores(labels, num_classes=3):
    one_hot = torch.nn.functional.one_hot(torch.tensor(labels), num_classes)
    return {"sem_seg": one_hot.permute(2, 0, 1).float()}


def measure(dataset, found, output_dir=None):
    evaluator = LabelMapEvaluator(NAME, output_dir=output_dir)
    evaluator.reset()
    for image, labels in zip(dataset, found, strict=True):
        evaluator.process([image], [scores(labels)])
    return evaluator.evaluate()["sem_seg"]


def test_the_label_maps_themselves_have_miou_100(dataset):
    found = np.array(LABELS)
    found[found == 255] = 2
    result = measure(dataset, found.tolist())
    for metric in ("mIoU", "fwIoU", "mACC", "pACC", "IoU-sky", "IoU-sea"):
        assert result[metric] == pytest.approx(100)


def test_iou_is_that_of_all_pixels_with_a_label_and_its_mean_is_over_labels_that_occur(dataset):
    result = measure(dataset, FOUND)
    assert result["IoU-sky"] == pytest.approx(100 * 8 / 9)
    assert result["IoU-sea"] == pytest.approx(100 * 4 / 5)
    assert np.isnan(result["IoU-fog"])
    assert result["mIoU"] == pytest.approx(50 * (8 / 9 + 4 / 5))
    assert result["pACC"] == pytest.approx(100 * 12 / 13)


@pytest.mark.parametrize(
    ("ids", "expected"),
    # By category ids; by labels, where not every label has a category id.
    [({10: 0, 11: 1, 12: 2}, {10, 11, 12}), ({11: 1}, {0, 1, 2}), (None, {0, 1, 2})],
)
def test_predictions_are_written(dataset, ids, expected, tmp_path):
    if ids is not None:
        MetadataCatalog.get(NAME).stuff_dataset_id_to_contiguous_id = ids
    measure(dataset, FOUND, str(tmp_path / "inference"))
    written = json.loads((tmp_path / "inference" / "sem_seg_predictions.json").read_text())
    assert {x["category_id"] for x in written} == expected


def test_what_the_dataset_lacks_is_an_error_that_names_it(dataset):
    del MetadataCatalog.get(NAME).ignore_label
    with pytest.raises(ValueError, match=f"'{NAME}'.*no `ignore_label`.*register_coco_json"):
        LabelMapEvaluator(NAME)
    del dataset[1]["sem_seg_file_name"]
    with pytest.raises(ValueError, match=f"'{NAME}'.*no label map.*for '1.jpg'.*evaluate_sem_seg"):
        LabelMapEvaluator(NAME)


def test_labels_that_do_not_exist_are_an_error_that_names_the_file(dataset):
    Image.fromarray(np.full((2, 4), 7, np.uint8)).save(dataset[1]["sem_seg_file_name"])
    with pytest.raises(ValueError, match=r"1.png.*value 7.*\[0, 3\)"):
        measure(dataset, FOUND)


def test_outputs_of_another_model_are_an_error(dataset):
    evaluator = LabelMapEvaluator(NAME)
    evaluator.reset()
    with pytest.raises(ValueError, match="has 4 classes.*'small_label_maps' have 3 labels"):
        evaluator.process(dataset[:1], [scores(FOUND[0], 4)])
    with pytest.raises(ValueError, match='no "sem_seg".*TEST.EVALUATE_SEM_SEG'):
        evaluator.process(dataset[:1], [{}])


def test_the_evaluator_of_detectron2_in_a_lazy_config_can_read_label_maps_too(dataset):
    """Its own reader raises a ValueError with NumPy 2."""
    cfg = load_config("quick_start/mask_rcnn_toy.py")
    cfg.dataloader.evaluator = LazyCall(SemSegEvaluator)(dataset_name=NAME)
    [evaluator] = as_run_config(cfg).build_evaluators(NAME, "")
    assert type(evaluator) is SemSegEvaluator
    evaluator.reset()
    for image, labels in zip(dataset, FOUND, strict=True):
        evaluator.process([image], [scores(labels)])
    assert evaluator.evaluate()["sem_seg"]["pACC"] == pytest.approx(100 * 12 / 13)
