import json
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances
from detectron2.structures.masks import polygons_to_bitmask

from hybrid_cascade.data import register_coco_json, register_toy_scenes
from hybrid_cascade.engine import build_model, evaluate, load_config
from hybrid_cascade.evaluation import VOCRegionEvaluator

CONFIGS = Path(__file__).parent.parent.parent / "configs"


class Oracle(torch.nn.Module):
    """Finds every instance of a data set of polygons exactly."""

    def __init__(self, dataset_name):
        super().__init__()
        self.dataset = {image["image_id"]: image for image in DatasetCatalog.get(dataset_name)}

    def forward(self, batched_inputs):
        return [{"instances": self.find(x["image_id"])} for x in batched_inputs]

    def find(self, image_id):
        image = self.dataset[image_id]
        size = image["height"], image["width"]
        annotations = [a for a in image["annotations"] if not a["iscrowd"]]
        masks = [polygons_to_bitmask(a["segmentation"], *size) for a in annotations]
        boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
        return Instances(
            size,
            pred_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)),
            pred_masks=BitMasks(torch.tensor(masks).reshape(-1, *size)).tensor,
            pred_classes=torch.tensor([a["category_id"] for a in annotations], dtype=torch.long),
            scores=torch.ones(len(annotations)),
        )


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Three toy scenes as two data sets: of COCO's metrics, and of VOC's too."""
    root = tmp_path_factory.mktemp("data") / "toy_scenes"
    register_toy_scenes(str(root), "measured_toys", num_train=1, num_val=3)
    DatasetCatalog.get("measured_toys_val")  # draws them
    register_coco_json(
        "measured_toys_voc",
        str(root / "annotations" / "instances_val.json"),
        str(root / "val"),
        evaluator_type="voc_region",
    )
    yield "measured_toys_val", "measured_toys_voc"
    for name in ("measured_toys_train", "measured_toys_val", "measured_toys_voc"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def check(results, folder, tasks):
    assert set(results) == tasks
    for task in tasks:
        assert results[task]["AP50"] == pytest.approx(100)
    saved = json.loads((folder / "results.json").read_text())
    assert set(saved) == tasks
    assert (folder / "inference" / "coco_instances_results.json").is_file()


def test_a_list_of_evaluators_in_a_lazy_config_gives_the_metrics_of_all(names, tmp_path):
    name = names[0]
    opts = [f"dataloader.test.dataset.names={name}", f"train.output_dir={tmp_path}"]
    cfg = load_config(str(CONFIGS / "quick_start" / "htc_toy.py"), opts)
    check(evaluate(cfg, Oracle(name)), tmp_path, {"bbox", "segm"})
    cfg.dataloader.evaluator = [
        L(COCOEvaluator)(dataset_name="${dataloader.test.dataset.names}"),
        L(VOCRegionEvaluator)(dataset_name="${dataloader.test.dataset.names}"),
    ]
    expected = {"bbox", "segm", "voc_region", "voc_box", "voc_mask_box"}
    check(evaluate(cfg, Oracle(name)), tmp_path, expected)


def test_a_yaml_config_measures_what_the_data_set_asks_for(names, tmp_path):
    coco, voc = names
    yaml = str(CONFIGS / "yaml" / "htc" / "htc_r50_fpn_1x.yaml")
    for name, expected in (
        (coco, {"bbox", "segm"}),
        (voc, {"bbox", "segm", "voc_region", "voc_box", "voc_mask_box"}),
    ):
        opts = ["DATASETS.TEST", f"('{name}',)", "OUTPUT_DIR", str(tmp_path / name)]
        cfg = load_config(yaml, [*opts, "DATALOADER.NUM_WORKERS", "0"])
        (tmp_path / name).mkdir()
        check(evaluate(cfg, Oracle(name)), tmp_path / name, expected)


def test_the_data_of_sbd_is_read_as_bit_masks_and_measured_by_both():
    dataloader = LazyConfig.load(str(CONFIGS / "common" / "data" / "sbd.py")).dataloader
    assert dataloader.train.mapper.instance_mask_format == "bitmask"
    assert [e._target_ for e in dataloader.evaluator] == [COCOEvaluator, VOCRegionEvaluator]
    assert dataloader.evaluator[1].dataset_name == dataloader.test.dataset.names == "sbd_val"


def channels_last_convolutions(model):
    # Of a 1x1 convolution, both formats are the same.
    weights = [p for p in model.parameters() if p.dim() == 4 and p.shape[-1] > 1]
    return {w.is_contiguous(memory_format=torch.channels_last) for w in weights}


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("quick_start/htc_toy.py", "train.channels_last={}"),
        ("yaml/htc/htc_r50_fpn_1x.yaml", "MODEL.CHANNELS_LAST {}"),
    ],
)
@pytest.mark.parametrize(("value", "expected"), [(None, True), (True, True), (False, False)])
def test_convolutions_are_channels_last_on_a_cpu_unless_the_config_says_otherwise(
    path, key, value, expected
):
    opts = [] if value is None else key.format(value).split()
    model = build_model(load_config(str(CONFIGS / path), opts))
    assert channels_last_convolutions(model) == {expected}


def test_the_memory_format_changes_rounding_only(inputs):
    models = []
    for value in (True, False):
        cfg = load_config(str(CONFIGS / "quick_start" / "htc_toy.py"))
        cfg.train.channels_last = value
        torch.manual_seed(0)
        models.append(build_model(cfg))
    with torch.no_grad():
        images = models[0].preprocess_image(inputs).tensor
        one, other = (m.semantic_branch(m.backbone(images), None)[0] for m in models)
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
