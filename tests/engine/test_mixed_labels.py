"""Images with masks, with boxes only, and with label maps only, in one training."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from hybrid_cascade.data import DatasetError, register_toy_scenes
from hybrid_cascade.engine import Trainer, load_config

ROOT = Path(__file__).parent.parent.parent
CONFIGS = ROOT / "configs"

# Run by torchrun: each process has images of one kind, which both of its iterations take.
STEPS_OF_TWO_PROCESSES = """
import gc
import sys
import torch
from torch.distributed import all_gather_object, destroy_process_group, get_rank, init_process_group
from torch.nn.parallel import DistributedDataParallel
from detectron2.config import instantiate
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from tests.small_configs import load_toy

name, kinds = sys.argv[1], sys.argv[2].split(",")

def image(kind, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = {"image": torch.randint(0, 256, (3, 64, 96), generator=generator, dtype=torch.uint8)}
    if kind == "labels":
        return {**inputs, "sem_seg": torch.randint(0, 9, (64, 96), generator=generator)}
    instances = Instances((64, 96))
    instances.gt_boxes = Boxes(torch.tensor([[8.0, 8, 50, 50], [40, 10, 90, 60]]))
    instances.gt_classes = torch.tensor([1, 3])
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, 8:50, 8:50] = masks[1, 10:60, 40:90] = True
    instances.gt_masks = BitMasks(masks)
    if kind == "boxes":
        instances.gt_has_mask = torch.tensor([False, False])
    return {**inputs, "instances": instances}

torch.set_num_threads(1)
init_process_group("gloo")
torch.manual_seed(0)
model = DistributedDataParallel(instantiate(load_toy(name)).train())
for step in range(2):
    torch.manual_seed(step)
    with EventStorage():
        losses = model([image(kinds[get_rank()], 2 * step + get_rank())])
    model.zero_grad()
    sum(losses.values()).backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert [n for n, g in gradients.items() if g is None or not g.isfinite().all()] == []
    sums = [None, None]
    all_gather_object(sums, {n: g.double().sum().item() for n, g in gradients.items()})
    assert sums[0] == sums[1]
    print("STEP", step, sorted(losses))
# Threads of gloo must not outlive the interpreter. They live as long as the model that uses them.
del model, losses, gradients
gc.collect()
destroy_process_group()
"""


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("htc_toy", "masks,labels"), ("htc_toy", "boxes,labels"), ("mnc_toy", "masks,boxes")],
)
def test_two_processes_with_images_of_different_kinds_have_all_gradients(name, kinds, tmp_path):
    script = tmp_path / "steps.py"
    script.write_text(STEPS_OF_TWO_PROCESSES)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(script), name, kinds],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("STEP") == 4


def draw_mixed(root):
    """Register scenes with masks, without masks, and without instance labels; return the names."""
    register_toy_scenes(root, "mixed", num_train=12, num_val=2)
    images = [x for x in DatasetCatalog.get("mixed_train") if x["annotations"]][:6]
    boxes_only = [
        {**x, "annotations": [{**a, "segmentation": []} for a in x["annotations"]]}
        for x in images[2:4]
    ]
    labels_only = [{k: v for k, v in x.items() if k != "annotations"} for x in images[4:]]
    things = MetadataCatalog.get("mixed_train").thing_classes
    for kind, dicts in (("masks", images[:2]), ("boxes", boxes_only), ("labels", labels_only)):
        DatasetCatalog.register(f"mixed_{kind}", lambda dicts=dicts: dicts)
        if kind != "labels":
            MetadataCatalog.get(f"mixed_{kind}").thing_classes = things


@pytest.fixture
def mixed(tmp_path, monkeypatch):
    monkeypatch.setattr(DatasetCatalog, "data", dict(DatasetCatalog.data))
    monkeypatch.setattr(MetadataCatalog, "data", dict(MetadataCatalog.data))
    draw_mixed(tmp_path / "scenes")
    return tmp_path


def config(name, folder, kinds):
    names = ",".join(f"mixed_{kind}" for kind in kinds)
    return load_config(
        str(CONFIGS / "quick_start" / f"{name}.py"),
        [
            f"dataloader.train.dataset.names=[{names}]",
            "dataloader.test.dataset.names=mixed_val",
            "dataloader.train.total_batch_size=2",
            "train.device=cpu",
            "train.max_iter=4",
            "train.num_panels=0",
            "train.report.enabled=False",
            f"train.output_dir={folder / 'output'}",
        ],
    )


@pytest.mark.parametrize("name", ["htc_toy", "htc_sfpn_toy", "cascade_mask_rcnn_toy", "mnc_toy"])
def test_a_union_of_all_kinds_trains(mixed, name):
    kinds = ["masks", "boxes"]
    if name.startswith("htc"):
        kinds = ["labels", *kinds]
    trainer = Trainer(config(name, mixed, kinds))
    assert len(trainer.train_dataset) == 2 * len(kinds)
    before = {n: p.clone() for n, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    lines = map(json.loads, (mixed / "output" / "metrics.json").read_text().splitlines())
    totals = [line["total_loss"] for line in lines if "total_loss" in line]
    assert totals and torch.tensor(totals).isfinite().all()
    parameters = dict(trainer.model.named_parameters())
    assert [n for n, p in before.items() if torch.equal(p, parameters[n])] == []


@pytest.mark.parametrize(
    ("name", "kinds", "message"),
    [
        ("htc_toy", ["boxes"], "none of the .* instances has a `segmentation`"),
        ("mask_rcnn_toy", ["masks", "boxes"], "HTCROIHeads"),
        ("cascade_mask_rcnn_toy", ["masks", "labels"], "has no `annotations`"),
    ],
)
def test_labels_that_a_model_cannot_do_without_are_asked_for_before_training(
    mixed, name, kinds, message
):
    with pytest.raises(DatasetError, match=message):
        Trainer(config(name, mixed, kinds))
