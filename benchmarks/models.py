#!/usr/bin/env python
"""Time and memory of this project's models beside MMDetection's HTC and Detectron2's Cascade R-CNN.

    python benchmarks/models.py --images a.jpg b.jpg c.jpg --mmdet-python ENV/bin/python
    python benchmarks/models.py --images ... --growth --repeats 3
    python benchmarks/models.py --images ... --device cuda --amp --batch 1 4   # not run so far

Prints Markdown tables with ratios; writes benchmarks/results/models_<device>.json and .png
(models_growth_<device> with --growth). Without --mmdet-python (the Python of an environment with
MMDetection 3.3.0, mmcv 2.x and mmengine) MMDetection is left out.

Models:

- htc: our HTC, ResNet-50-FPN as all of these.
- mmdet_htc: MMDetection's published HTC. It runs three mask branches and keeps the last one's
  masks; ours are the average of the three. All else is set to be the same.
- cascade: our Cascade Mask R-CNN with one mask branch (mask_stages="last"), as Detectron2's.
- cascade_three_masks: our config of it as it is, a mask branch at every stage.
- detectron2_cascade: Detectron2's own classes and config.
- any other LazyConfig of ours with HTCROIHeads, by its path.

What is the same: the weights (random, such that every layer matters and 100 instances are found in
a photograph), the resized pixels of the photographs, the work: from these pixels to masks of the
photographs' size at inference; forward, backward and SGD (learning rate 0) in training, on the same
instances and label maps. The instances are those of --annotations (COCO's JSON), or drawn; the
label maps are painted from the instances. Each project has its own form of ground-truth masks:
polygons, or bitmaps in MMDetection.

How it is measured: every model has a process of its own (`model_worker.py`), with --threads
threads. In every round each model runs once on each batch, one model at a time, in an order that
rotates; the others wait for a line on stdin, with OMP_WAIT_POLICY=PASSIVE, since OpenMP's threads
would otherwise spin for a while after their work. Figures are medians over the rounds, and means
over the batches. Times of parts come from rounds of their own; "mask RoIs" is the number of boxes
that the mask branches together see there. Memory is the peak of the process (resident on the CPU,
on Linux; allocated by torch on the GPU), in a fresh process for each table. With random weights few
boxes match the ground truth: in a real training the mask branches see more of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import torch
from compare_with_mmdet import OUR_CONFIG, convert, match, settings_but_masks
from detectron2.data import transforms as T
from detectron2.data.detection_utils import (
    annotations_to_instances,
    read_image,
    transform_instance_annotations,
)
from detectron2.structures import BoxMode
from detectron2.structures.masks import polygons_to_bitmask
from model_worker import (
    BACKBONE,
    BACKWARD,
    BOXES,
    MASKS,
    PASTE,
    RPN,
    SEMANTIC,
    UPDATE,
    Detectron2Model,
)
from provenance import provenance
from timing import interleaved, medians

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CASCADE_CONFIG = "configs/cascade_mask_rcnn/cascade_mask_rcnn_r50_fpn_1x.py"
TITLES = {
    "htc": "HTC, ours",
    "mmdet_htc": "HTC, MMDetection",
    "cascade": "Cascade Mask R-CNN, ours",
    "cascade_three_masks": "the same with three mask branches",
    "detectron2_cascade": "Cascade Mask R-CNN, Detectron2",
}
RATIOS = [("htc", "mmdet_htc"), ("htc", "detectron2_cascade"), ("cascade", "detectron2_cascade")]
SAME_RESULTS = [("htc", "mmdet_htc"), ("cascade", "detectron2_cascade")]
PARTS = [BACKBONE, SEMANTIC, RPN, BOXES, MASKS, PASTE, BACKWARD, UPDATE, "other"]
PARTS_ROUNDS = 3
GROWTH = {
    "short edge, px": [400, 600, 800, 1000],
    "proposals": [100, 300, 1000, 2000],
    "detections": [10, 50, 100, 200],
    "stages": [1, 2, 3],
}


class Worker:
    """A process with one model."""

    def __init__(self, name: str, weights: Path | None, args: argparse.Namespace):
        python, env = sys.executable, dict(os.environ)
        env |= {"OMP_NUM_THREADS": str(args.threads), "OMP_WAIT_POLICY": "PASSIVE"}
        spec = {"weights": weights and str(weights), "threads": args.threads}
        spec |= {"device": args.device, "amp": args.amp}
        if name == "mmdet_htc":
            spec["kind"], python = "mmdet", args.mmdet_python
            env.pop("PYTHONPATH", None)  # packages of this environment
        elif name == "detectron2_cascade":
            spec["kind"] = "detectron2"
        else:
            config = OUR_CONFIG if name == "htc" else name
            if name in ("cascade", "cascade_three_masks"):
                config = CASCADE_CONFIG
            settings = settings_but_masks() if name == "htc" else []
            spec |= {"kind": "ours", "config": str(ROOT / config), "settings": settings}
            spec["one_mask_head"] = name == "cascade"
        self.name = name
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [python, str(Path(__file__).with_name("model_worker.py")), json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=env,
        )

    def ask(self, do: str, **arguments) -> dict:
        """Let the worker do something; its answer.

        Raises:
            RuntimeError: if the worker has failed, with what it printed.
        """
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError) as error:
            self.process.wait()
            self.log.seek(0)
            raise RuntimeError(f"{self.name} failed:\n{self.log.read()[-4000:]}") from error

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def make_photographs(
    images: list[str], short_edge: int, annotated: bool = False, annotation_file: str | None = None
) -> list[dict]:
    """The resized photographs, with ground truth if they shall have it, similar shapes together."""
    annotations = {}
    if annotated and annotation_file:
        coco = json.loads(Path(annotation_file).read_text())
        ids = {image["id"]: image["file_name"] for image in coco["images"]}
        classes = {c: i for i, c in enumerate(sorted(c["id"] for c in coco["categories"]))}
        for one in coco["annotations"]:
            if not one["iscrowd"]:
                one["category_id"] = classes[one["category_id"]]
                annotations.setdefault(ids[one["image_id"]], []).append(
                    {**one, "bbox_mode": BoxMode.XYWH_ABS}
                )
    resize = T.ResizeShortestEdge(short_edge, max_size=round(short_edge * 1333 / 800))
    photographs = []
    for path in images:
        pixels = read_image(path, "RGB")
        transform = resize.get_transform(pixels)
        resized = transform.apply_image(pixels)
        photograph = {
            "image": torch.from_numpy(resized.transpose(2, 0, 1).copy()),
            "height": pixels.shape[0],
            "width": pixels.shape[1],
        }
        if annotated:
            if not annotation_file:
                found = draw_annotations(*pixels.shape[:2])
            elif Path(path).name in annotations:
                found = annotations[Path(path).name]
            else:
                raise ValueError(f"{annotation_file} has no instance in {Path(path).name}")
            size = resized.shape[:2]
            found = [transform_instance_annotations(a, [transform], size) for a in found]
            photograph |= ground_truth(annotations_to_instances(found, size))
        photographs.append(photograph)
    return sorted(photographs, key=lambda p: p["width"] / p["height"])


def lively_htc(image: str) -> tuple[Detectron2Model, list[dict]]:
    """Our HTC with lively random weights, and the photograph, at 800 px, as its inputs."""
    photographs = make_photographs([image], 800)
    detector = Detectron2Model.of_config(str(ROOT / OUR_CONFIG), [], False, None, "cpu")
    detector.liven_up(photographs)
    return detector, detector.inputs(photographs)


def ground_truth(instances) -> dict:
    """Boxes, classes, polygons, bitmasks, and a label map in which classes are painted."""
    size = instances.image_size
    polygons = instances.gt_masks.polygons
    bitmasks = np.stack([polygons_to_bitmask(p, *size) for p in polygons])
    sem_seg = torch.full(size, 182)
    for bitmask, label in zip(bitmasks, instances.gt_classes, strict=True):
        sem_seg[torch.from_numpy(bitmask)] = label
    return {
        "boxes": instances.gt_boxes.tensor,
        "classes": instances.gt_classes,
        "polygons": [[torch.from_numpy(p) for p in one] for one in polygons],
        "bitmasks": torch.from_numpy(bitmasks.astype(np.uint8)),
        "sem_seg": sem_seg,
    }


def draw_annotations(height: int, width: int) -> list[dict]:
    """Eight ellipses anywhere in the photograph, as COCO annotates instances."""
    random = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    annotations = []
    for _ in range(8):
        half = random.uniform(0.05, 0.25, 2) * (width, height)
        center = half + random.uniform(0, 1, 2) * ((width, height) - 2 * half)
        outline = center + half * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        annotations.append(
            {
                "bbox": [*(center - half), *(center + half)],
                "bbox_mode": BoxMode.XYXY_ABS,
                "segmentation": [outline.flatten().tolist()],
                "category_id": int(random.integers(80)),
            }
        )
    return annotations


def make_weights(names: list[str], data: Path, folder: Path, args) -> dict[str, Path]:
    """Weights for every model; the ones of HTC, of MMDetection if it is there, for all TITLES."""
    weights = {}
    source = "mmdet_htc" if args.mmdet_python else "htc"
    for name in {source, *names} - (TITLES.keys() - {source}):
        weights[name] = folder / f"weights_{len(weights)}.pth"
        worker = Worker(name, None, args)
        worker.ask("load", data=str(data), batch=1, training=False)
        worker.ask("make_weights", path=str(weights[name]))
        worker.close()
    weights.setdefault("htc", folder / "htc.pth")
    if source == "mmdet_htc":
        convert(weights[source], weights["htc"])
    state = torch.load(weights["htc"], weights_only=True)["model"]
    of_htc = ("semantic_branch.", "roi_heads.mask_information_flow.")
    cascade = {k: v for k, v in state.items() if not k.startswith(of_htc)}
    one_mask_head = {
        name: tensor
        for name, tensor in cascade.items()
        if not name.startswith(("roi_heads.mask_head.1.", "roi_heads.mask_head.2."))
    }
    of_detectron2 = {
        name.replace("mask_head.0.", "mask_head."): tensor for name, tensor in one_mask_head.items()
    }
    for name, tensors in (
        ("cascade", one_mask_head),
        ("cascade_three_masks", cascade),
        ("detectron2_cascade", of_detectron2),
    ):
        weights[name] = folder / f"{name}.pth"
        torch.save({"model": tensors}, weights[name])
    return weights


def measure(names, weights, data: Path, batch: int, training: bool, folder: Path, args) -> dict:
    """What each model takes: seconds of a batch, by parts too, memory, what it finds."""
    workers = {name: Worker(name, weights[name], args) for name in names}
    arguments = {"data": str(data), "batch": batch, "training": training}
    number = {w.ask("load", **arguments)["number"] for w in workers.values()}.pop()
    results = {name: {"detections": []} for name in names}
    found = {name: [] for name in names}
    for name, worker in workers.items():
        for index in range(number):  # for warming up, too
            worker.ask("seconds", index=index)
            if not training:
                path = folder / f"{name.replace('/', '_')}_{index}.pth"
                results[name]["detections"] += worker.ask("detections", path=str(path))["number"]
                found[name] += torch.load(path, weights_only=True)
                path.unlink()

    def ask(worker: Worker, do: str) -> list[dict]:
        return [worker.ask(do, index=index) for index in range(number)]

    rounds = interleaved({n: partial(ask, w, "seconds") for n, w in workers.items()}, args.repeats)
    parts = interleaved({n: partial(ask, w, "parts") for n, w in workers.items()}, PARTS_ROUNDS)
    for name, worker in workers.items():
        # By batch, then by round.
        seconds = zip(*rounds[name], strict=True)
        parts_of_batches = [
            medians([one["seconds"] for one in batch]) for batch in zip(*parts[name], strict=True)
        ]
        results[name] |= {
            "seconds": sum(medians(batch)["seconds"] for batch in seconds) / number,
            "parts": {
                part: sum(batch.get(part, 0.0) for batch in parts_of_batches) / number
                for part in dict.fromkeys(part for batch in parts_of_batches for part in batch)
            },
            "mask_rois": sum(one["mask_rois"] for one in parts[name][-1]) / number,
            "peak_bytes": worker.ask("peak")["bytes"],
            "rounds": [[one["seconds"] for one in batches] for batches in rounds[name]],
        }
        worker.close()
    report = {"models": results, "ratios": ratios(results)}
    if not training:
        report["same_instances"] = {
            f"{a} = {b}": [count_same(x, y) for x, y in zip(found[a], found[b], strict=True)]
            for a, b in SAME_RESULTS
            if a in found and b in found
        }
    return report


def ratios(results: dict) -> dict[str, dict[str, float]]:
    """Time, as the median of the ratios of the rounds, and memory of one model by another's."""
    report = {}
    for a, b in RATIOS:
        if a in results and b in results:
            pairs = zip(results[a]["rounds"], results[b]["rounds"], strict=True)
            report[f"{a} / {b}"] = {
                "seconds": statistics.median(sum(x) / sum(y) for x, y in pairs),
                "peak_bytes": results[a]["peak_bytes"] / results[b]["peak_bytes"],
            }
    return report


def count_same(ours: dict, theirs: dict) -> int:
    """How many of the instances of a photograph two models have in common, masks aside."""
    from detectron2.structures import Boxes, Instances

    if ours["masks"].shape != theirs["masks"].shape or ours["masks"].dtype != theirs["masks"].dtype:
        raise ValueError(
            f"Masks of {ours['masks'].shape}, {ours['masks'].dtype} and of "
            f"{theirs['masks'].shape}, {theirs['masks'].dtype} are not the same work"
        )
    instances = Instances(
        tuple(ours["masks"].shape[-2:]),
        pred_boxes=Boxes(ours["boxes"]),
        scores=ours["scores"],
        pred_classes=ours["labels"],
    )
    return len(match(theirs, instances)[0])


def print_table(title: str, report: dict, unit: str) -> None:
    parts = [p for p in PARTS if any(p in r["parts"] for r in report["models"].values())]
    print(
        f"\n{title}\n\n| model | s / {unit} | {' | '.join(parts)} | mask RoIs | peak memory, GB |"
    )
    print("|---" * (len(parts) + 4) + "|")
    for name, r in report["models"].items():
        cells = [f"{r['parts'][p]:.2f}" if p in r["parts"] else "" for p in parts]
        print(
            f"| {TITLES.get(name, name)} | {r['seconds']:.2f} | {' | '.join(cells)} "
            f"| {r['mask_rois']:.0f} | {r['peak_bytes'] / 1e9:.2f} |"
        )
    if report["ratios"]:
        print("\n| ratio | time | peak memory |\n|---|---|---|")
    for name, ratio in report["ratios"].items():
        a, b = name.split(" / ")
        print(f"| {TITLES[a]} / {TITLES[b]} | {ratio['seconds']:.2f} | {ratio['peak_bytes']:.2f} |")
    print()
    for name, r in report["models"].items():
        if r["detections"]:
            print(f"{TITLES.get(name, name)}: {r['detections']} detections")
    for name, same in report.get("same_instances", {}).items():
        print(f"{name}: {same} of them the same (class, box in 0.01 px, score in 1e-4)")


def draw(reports: dict[str, dict], path: Path) -> None:
    """Bars of the parts of every report, one panel each."""
    figure, panels = plt.subplots(
        1, len(reports), figsize=(7 * len(reports), 4), squeeze=False, constrained_layout=True
    )
    for panel, (title, report) in zip(panels[0], reports.items(), strict=True):
        models = report["models"]
        labels = [TITLES.get(name, Path(name).stem) for name in models]
        left = np.zeros(len(models))
        for index, part in enumerate(PARTS):
            widths = np.array([r["parts"].get(part, 0.0) for r in models.values()])
            if widths.any():
                panel.barh(labels, widths, left=left, label=part, color=f"C{index}")
            left += widths
        for y, r in enumerate(models.values()):
            panel.text(left[y], y, f" {r['peak_bytes'] / 1e9:.1f} GB", va="center")
        panel.set_xlim(0, left.max() * 1.15)
        panel.invert_yaxis()
        panel.set_xlabel("seconds")
        panel.set_title(title)
        panel.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def measure_growth(names, weights, folder: Path, args) -> dict:
    """Seconds of an image of each model by each of the quantities of `GROWTH`."""
    curves = {}
    for quantity, values in GROWTH.items():
        # MMDetection's HTC has no setting for fewer stages at inference.
        chosen = [n for n in names if (quantity, n) != ("stages", "mmdet_htc")]
        workers = {name: Worker(name, weights[name], args) for name in chosen}
        curves[quantity] = {name: {} for name in chosen}
        for value in values:
            short_edge = value if quantity == "short edge, px" else args.short_edge
            data = folder / f"growth_{short_edge}.pth"
            if not data.exists():
                torch.save(make_photographs(args.images, short_edge), data)
            for worker in workers.values():
                number = worker.ask("load", data=str(data), batch=1, training=False)["number"]
                if quantity != "short edge, px":
                    worker.ask("set", knob=quantity, value=value)

            def ask(worker: Worker, number: int) -> float:
                asked = (worker.ask("seconds", index=index) for index in range(number))
                return sum(a["seconds"] for a in asked) / number

            runs = {n: partial(ask, w, number) for n, w in workers.items()}
            interleaved(runs, 1)  # for warming up
            for name, seconds in interleaved(runs, args.repeats).items():
                curves[quantity][name][value] = statistics.median(seconds)
            row = {name: round(curve[value], 3) for name, curve in curves[quantity].items()}
            print(f"{quantity} {value}: {row}", flush=True)
        for worker in workers.values():
            worker.close()
    return curves


def draw_growth(curves: dict, path: Path) -> None:
    figure, panels = plt.subplots(1, len(curves), figsize=(16, 4.4), constrained_layout=True)
    names = list(dict.fromkeys(name for models in curves.values() for name in models))
    for panel, (quantity, models) in zip(panels, curves.items(), strict=True):
        for index, name in enumerate(names):
            if curve := models.get(name):
                x = [float(value) for value in curve]
                label = TITLES.get(name, Path(name).stem)
                panel.plot(x, list(curve.values()), marker="o", color=f"C{index}", label=label)
        panel.set_xlabel(quantity)
        panel.set_ylabel("seconds an image")
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.savefig(path, dpi=110)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--images", nargs="+", required=True, help="photographs")
    add("--annotations", help="their instances, COCO's JSON; drawn if not given")
    add("--models", nargs="+", default=list(TITLES), metavar="MODEL", help="see above")
    add("--tasks", nargs="+", default=["inference", "training"], choices=["inference", "training"])
    add("--growth", action="store_true", help="inference by image size, proposals, …, instead")
    add("--mmdet-python", metavar="PATH", help="Python of MMDetection's environment")
    add("--device", default="cpu", choices=["cpu", "cuda"])
    add("--amp", action="store_true", help="mixed precision, on a GPU")
    add("--threads", type=int, default=2)
    add("--repeats", type=int, default=7)
    add("--short-edge", type=int, default=800, help="of the images at inference, in pixels")
    add("--batch", type=int, nargs="+", default=[1], help="images at a time at inference")
    add("--train-short-edge", type=int, default=512)
    add("--train-batch", type=int, default=2)
    add("--output", type=Path, default=RESULTS, help="folder for the JSON and PNG")
    args = parser.parse_args()
    if args.amp and args.device != "cuda":
        parser.error("--amp needs --device cuda")
    for name in args.models:
        if name not in TITLES and not (ROOT / name).is_file():
            parser.error(f"--models {name}: neither one of {', '.join(TITLES)} nor a config file")
    if "mmdet_htc" in args.models and not args.mmdet_python:
        print("Without MMDetection, which needs --mmdet-python")
        args.models.remove("mmdet_htc")
    return args


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    # Without paths, which are of one machine.
    options = {k: v for k, v in vars(args).items() if k not in ("mmdet_python", "output")}
    options |= {
        "images": [Path(i).name for i in args.images],
        "annotations": bool(args.annotations),
    }
    record = {"options": options, **provenance(args.device)}
    suffix = args.device + ("_amp" if args.amp else "")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        data = folder / "inference.pth"
        torch.save(make_photographs(args.images, args.short_edge), data)
        weights = make_weights(args.models, data, folder, args)
        if args.growth:
            stem = f"models_growth_{suffix}"
            record["seconds"] = measure_growth(args.models, weights, folder, args)
            draw_growth(record["seconds"], args.output / f"{stem}.png")
        else:
            stem = f"models_{suffix}"
            reports = record["tasks"] = {}
            for batch in args.batch if "inference" in args.tasks else []:
                title = f"Inference, {args.short_edge} px, batch {batch}"
                reports[title] = measure(args.models, weights, data, batch, False, folder, args)
                print_table(title, reports[title], "batch")
            if "training" in args.tasks:
                data = folder / "training.pth"
                photographs = make_photographs(
                    args.images, args.train_short_edge, True, args.annotations
                )
                torch.save(photographs, data)
                batch = args.train_batch
                title = f"A step of training, {args.train_short_edge} px, batch {batch}"
                reports[title] = measure(args.models, weights, data, batch, True, folder, args)
                print_table(title, reports[title], "step")
            draw(reports, args.output / f"{stem}.png")
    path = args.output / f"{stem}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"\nwrote {path} and .png")


if __name__ == "__main__":
    main()
