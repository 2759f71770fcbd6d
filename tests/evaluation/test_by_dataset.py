import sys
from types import ModuleType, SimpleNamespace

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
)

from hybrid_cascade.data import register_toy_scenes
from hybrid_cascade.evaluation import (
    FastCOCOEvaluator,
    LabelMapEvaluator,
    VOCRegionEvaluator,
    by_dataset,
)
from hybrid_cascade.evaluation.by_dataset import build_evaluators_of, check_evaluator_type

TOYS = "toys_by_type_val"


@pytest.fixture
def toys(tmp_path):
    register_toy_scenes(str(tmp_path / "toys"), "toys_by_type", num_train=1, num_val=1)
    DatasetCatalog.get(TOYS)  # draws them
    yield MetadataCatalog.get(TOYS)
    for name in ("toys_by_type_train", TOYS):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def set_type(metadata, kind):
    vars(metadata)["evaluator_type"] = kind  # the object itself refuses another value


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("coco", [FastCOCOEvaluator]),
        ("coco_panoptic_seg", [FastCOCOEvaluator]),
        ("voc_region", [FastCOCOEvaluator, VOCRegionEvaluator]),
        ("sem_seg", [LabelMapEvaluator]),
    ],
)
def test_the_type_of_a_dataset_names_its_evaluators(kind, expected, toys, tmp_path):
    set_type(toys, kind)
    evaluators = build_evaluators_of(TOYS, str(tmp_path / "inference"))
    assert [type(e) for e in evaluators] == expected
    assert evaluators[0]._output_dir == str(tmp_path / "inference")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("voc_2007_test", PascalVOCDetectionEvaluator),
        ("cityscapes_fine_instance_seg_val", CityscapesInstanceEvaluator),
        ("cityscapes_fine_sem_seg_val", CityscapesSemSegEvaluator),
        ("lvis_v1_val", LVISEvaluator),
    ],
)
def test_datasets_of_detectron2_are_measured_as_there(name, expected, monkeypatch):
    lvis = ModuleType("lvis")
    lvis.LVIS = lambda json_file: SimpleNamespace(get_ann_ids=list)
    monkeypatch.setitem(sys.modules, "lvis", lvis)
    monkeypatch.setattr(by_dataset, "find_spec", lambda package: package)
    [evaluator] = build_evaluators_of(name, "inference")
    assert type(evaluator) is expected


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("lvis_v1_val", "lvis"),
        ("cityscapes_fine_instance_seg_val", "cityscapesscripts"),
        ("cityscapes_fine_sem_seg_val", "cityscapesscripts"),
    ],
)
def test_a_package_that_is_missing_is_named(name, package, monkeypatch):
    monkeypatch.setattr(by_dataset, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"'{name}'.*pip install {package}"):
        check_evaluator_type(name)


def test_a_dataset_of_no_or_of_an_unknown_type_is_an_error_that_says_what_to_do(toys):
    set_type(toys, "counting")
    with pytest.raises(ValueError, match=f"'{TOYS}'.*`evaluator_type` 'counting'.*pascal_voc"):
        check_evaluator_type(TOYS)
    del toys.evaluator_type
    with pytest.raises(ValueError, match=rf"no `evaluator_type`.*MetadataCatalog.get\('{TOYS}'\)"):
        check_evaluator_type(TOYS)
