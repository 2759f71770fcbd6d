import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.evaluation import COCOPanopticEvaluator, DatasetEvaluator
from detectron2.structures import BitMasks, Instances
from detectron2.utils.visualizer import Visualizer

from hybrid_cascade.data import register_toy_scenes, stuff_labels_of
from hybrid_cascade.engine import evaluate, evaluation, load_config
from hybrid_cascade.modeling import merge_instances_and_stuff

CONFIGS = Path(__file__).parent.parent.parent / "configs"
NAME = "panoptic_toys_val"


class Oracle(torch.nn.Module):
    """Knows the panoptic ground truth of the toy scenes."""

    def __init__(self):
        super().__init__()
        self.metadata = MetadataCatalog.get(NAME)
        content = json.loads(Path(self.metadata.panoptic_json).read_text())
        self.annotations = {x["image_id"]: x for x in content["annotations"]}

    def forward(self, batched_inputs):
        return [self.find(self.annotations[x["image_id"]]) for x in batched_inputs]

    def find(self, annotation):
        colors = read_image(f"{self.metadata.panoptic_root}/{annotation['file_name']}", "RGB")
        ids = torch.from_numpy(colors.astype(np.int64) @ [1, 256, 256**2])
        labels = torch.zeros_like(ids)  # a thing's label also where there is a crowd
        masks, classes = torch.zeros(0, *ids.shape, dtype=torch.bool), []
        for segment in annotation["segments_info"]:
            mask, category_id = ids == segment["id"], segment["category_id"]
            if category_id not in self.metadata.thing_dataset_id_to_contiguous_id:
                labels[mask] = self.metadata.stuff_dataset_id_to_contiguous_id[category_id]
            elif not segment["iscrowd"]:
                masks = torch.cat([masks, mask[None]])
                classes.append(self.metadata.thing_dataset_id_to_contiguous_id[category_id])
        instances = Instances(
            tuple(ids.shape),
            pred_boxes=BitMasks(masks).get_bounding_boxes(),
            pred_masks=masks,
            pred_classes=torch.tensor(classes, dtype=torch.long),
            scores=torch.ones(len(classes)),
        )
        panoptic_seg = merge_instances_and_stuff(
            instances,
            labels,
            stuff_labels_of(NAME),
            overlap_thresh=0.5,
            stuff_area_thresh=1,
            instances_score_thresh=0.5,
        )
        return {"instances": instances, "panoptic_seg": panoptic_seg}


@pytest.fixture(autouse=True)
def toys(tmp_path):
    """Three scenes: without things, with a crowd, and an ordinary one."""
    register_toy_scenes(str(tmp_path / "toys"), "panoptic_toys", num_train=1, num_val=3)
    DatasetCatalog.get(NAME)  # draws them
    yield
    for name in ("panoptic_toys_train", NAME):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def lazy_config(folder, *opts):
    opts = [f"dataloader.test.dataset.names={NAME}", f"train.output_dir={folder}", *opts]
    return load_config(str(CONFIGS / "quick_start" / "htc_toy.py"), opts)


def yaml_config(folder, *opts):
    opts = ["DATASETS.TEST", f"('{NAME}',)", "OUTPUT_DIR", str(folder), *opts]
    opts += ["DATALOADER.NUM_WORKERS", "0"]
    return load_config(str(CONFIGS / "yaml" / "htc" / "htc_r50_fpn_1x.yaml"), opts)


def panoptic_configs(folder):
    yield lazy_config(folder, "model.output_panoptic_seg=True")
    yield yaml_config(folder, "MODEL.SEMANTIC_BRANCH.OUTPUT_PANOPTIC_SEG", "True")


class Recorder(DatasetEvaluator):
    """In the place of Detectron2's evaluator, which needs panopticapi."""

    def __init__(self, dataset_name, output_dir):
        assert dataset_name == NAME
        self.folder = output_dir

    def reset(self):
        self.seen = 0

    def process(self, inputs, outputs):
        self.seen += sum("panoptic_seg" in output for output in outputs)

    def evaluate(self):
        Path(self.folder, "seen").write_text(str(self.seen))
        return {"panoptic_seg": {"PQ": 50.0}}


def test_the_ground_truth_as_prediction_has_panoptic_quality_100(tmp_path):
    pytest.importorskip("panopticapi")
    for cfg in panoptic_configs(tmp_path):
        results = evaluate(cfg, Oracle())
        assert set(results) == {"bbox", "segm", "panoptic_seg"}
        for metric in ("PQ", "PQ_th", "PQ_st", "RQ", "SQ"):
            assert results["panoptic_seg"][metric] == pytest.approx(100)


def test_panoptic_output_is_evaluated_beside_the_instances(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "COCOPanopticEvaluator", Recorder)
    monkeypatch.setattr(evaluation, "find_spec", lambda name: name)
    for cfg in panoptic_configs(tmp_path):
        results = evaluate(cfg, Oracle())
        assert set(results) == {"bbox", "segm", "panoptic_seg"}
        assert results["panoptic_seg"] == {"PQ": 50}
        seen = tmp_path / "inference" / "seen"
        assert seen.read_text() == "3"
        seen.unlink()
    # An evaluator that a config names itself runs once, with its own arguments.
    cfg = lazy_config(tmp_path, "model.output_panoptic_seg=True")
    cfg.dataloader.evaluator = [L(Recorder)(dataset_name=NAME, output_dir=str(tmp_path))]
    assert evaluate(cfg, Oracle()) == {"panoptic_seg": {"PQ": 50}}
    assert (tmp_path / "seen").read_text() == "3" and not seen.exists()


def without_metadata(key):
    metadata = MetadataCatalog.get(NAME).as_dict()
    MetadataCatalog.remove(NAME)
    MetadataCatalog.get(NAME).set(**{k: v for k, v in metadata.items() if k != key})


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda: without_metadata("panoptic_json"), "no panoptic ground truth"),
        (
            lambda: without_metadata("stuff_dataset_id_to_contiguous_id"),
            "no stuff_dataset_id_to_contiguous_id",
        ),
        # Toy scenes that were drawn before they had panoptic files.
        (lambda: Path(MetadataCatalog.get(NAME).panoptic_json).unlink(), "does not exist"),
        (lambda: None, "pip install git"),
    ],
)
def test_the_log_says_why_panoptic_quality_is_not_measured(
    spoil, reason, tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.WARNING, logger="hybrid_cascade")
    monkeypatch.setattr(evaluation, "find_spec", lambda name: None)
    oracle = Oracle()
    spoil()
    for cfg in panoptic_configs(tmp_path):
        caplog.clear()
        assert set(evaluate(cfg, oracle)) == {"bbox", "segm"}
        (message,) = [m for m in caplog.messages if "Panoptic quality" in m]
        assert NAME in message and reason in message


def test_without_the_option_nothing_panoptic_is_measured_or_logged(tmp_path, caplog):
    caplog.set_level(logging.WARNING, logger="hybrid_cascade")
    for cfg in (lazy_config(tmp_path), yaml_config(tmp_path)):
        assert set(evaluate(cfg, Oracle())) == {"bbox", "segm"}
    assert not any("Panoptic" in message for message in caplog.messages)


def test_segments_convert_to_the_ground_truths_categories_and_can_be_drawn():
    oracle = Oracle()
    to_id = {
        isthing: {label: category_id for category_id, label in ids.items()}
        for isthing, ids in (
            (True, oracle.metadata.thing_dataset_id_to_contiguous_id),
            (False, oracle.metadata.stuff_dataset_id_to_contiguous_id),
        )
    }
    COCOPanopticEvaluator(NAME)  # reads the same metadata
    for annotation in oracle.annotations.values():
        panoptic_seg, segments = oracle.find(annotation)["panoptic_seg"]
        assert json.loads(json.dumps(segments)) == segments
        found = sorted(to_id[s["isthing"]][s["category_id"]] for s in segments)
        truth = [s["category_id"] for s in annotation["segments_info"] if not s["iscrowd"]]
        assert found == sorted(truth)
        blank = np.zeros((*panoptic_seg.shape, 3), np.uint8)
        drawn = Visualizer(blank, oracle.metadata).draw_panoptic_seg(panoptic_seg, segments)
        assert drawn.get_image().any()
