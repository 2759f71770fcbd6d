"""One picture per image of what every stage of a cascade finds.

Shapes: H, W are the panel's height and width, h, w a tile's, all in pixels. The first row holds the
ground truth and the detections after each stage, the second the semantic maps and their legend.
"""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.data import Metadata, transforms
from detectron2.data.detection_utils import (
    convert_image_to_rgb,
    read_image,
    transform_instance_annotations,
)
from detectron2.structures import Instances, polygons_to_bitmask
from detectron2.utils.visualizer import VisImage, Visualizer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import nn

MAX_PANEL_WIDTH = 2400
TILE_SIDE = (400, 560)  # least, most, of the longer side
MIN_CELL_WIDTH = 240  # the longest title has to fit over a tile that is narrower than it
TITLE_HEIGHT = 30
GAP = 12
LEGEND_ENTRY = (180, 24)  # width, height
DPI = 100
MASK_ALPHA = 0.4
CROWDED_FROM = 12  # objects in an image; their labels are smaller

Color = tuple[float, float, float]
Tile = tuple[str, np.ndarray]  # title, (h, w, 3) RGB


def draw_cascade_panel(
    model: nn.Module,
    batched_input: dict,
    metadata: Metadata,
    *,
    ground_truth: dict | None = None,
    score_threshold: float = 0.5,
) -> np.ndarray:
    """Draw the detections after every stage, the semantic prediction and the ground truth.

    The model runs once per stage, and is left as it was found, training flags included.

    Args:
        model: a `GeneralizedRCNN`. ROI heads without `test_stage_choices` get a single tile
            "detections"; the second row exists if the model or the ground truth has a semantic map.
        batched_input: one input of the model: "image" (C, h', w') in `model.input_format`, and
            "height", "width" if the original size differs.
        metadata: class names `thing_classes`, their `thing_colors`, names of semantic labels
            `stuff_classes`, their `stuff_colors`, and `ignore_label` (default 255); whatever is
            missing gets a generic name or colour. Painted semantic targets bring their own names.
        ground_truth: a dataset dict of the same image in its original size.
        score_threshold: detections with lower scores are left out.

    Returns:
        (H, W, 3) uint8 RGB; small images are enlarged, large ones reduced.
    """
    image = convert_image_to_rgb(batched_input["image"].permute(1, 2, 0), model.input_format)
    full_size = [batched_input.get(k, image.shape[i]) for i, k in enumerate(("height", "width"))]
    heads = getattr(model, "roi_heads", None)
    stages = getattr(heads, "test_stage_choices", [None])

    # The semantic row has up to three cells: prediction, ground truth and legend.
    columns = max(len(stages) + (ground_truth is not None), 3)
    side = min(int(np.clip(max(full_size), *TILE_SIDE)), MAX_PANEL_WIDTH // columns - 2 * GAP)
    h, w = (max(1, round(n * side / max(full_size))) for n in full_size)
    shrinks = h < image.shape[0]
    image = cv2.resize(
        np.clip(image, 0, 255).astype(np.uint8),
        (w, h),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )
    # Asked for results of the tile's size, the model itself resizes boxes, masks and logits.
    outputs = _run_stages(model, {**batched_input, "height": h, "width": w}, stages)

    instance_tiles, label_maps = [], []
    if ground_truth is not None:
        resize = transforms.ResizeTransform(*full_size, h, w)
        instance_tiles.append(
            ("ground truth", _draw_annotations(image, ground_truth, resize, metadata))
        )
    for stage, output in zip(stages, outputs, strict=True):
        found = output["instances"].to("cpu")
        found = found[found.scores >= score_threshold]
        instance_tiles.append((_stage_title(heads, stage), _draw_found(image, found, metadata)))
    if outputs[-1].get("sem_seg") is not None:
        label_maps.append(
            ("semantic prediction", outputs[-1]["sem_seg"].argmax(dim=0).cpu().numpy())
        )
    if ground_truth is not None and "sem_seg_file_name" in ground_truth:
        label_map = read_image(ground_truth["sem_seg_file_name"])
        label_map = cv2.resize(label_map, (w, h), interpolation=cv2.INTER_NEAREST)
        label_maps.append(("semantic ground truth", label_map))

    names = _semantic_names(model, metadata)
    legend = _semantic_legend([label_map for _, label_map in label_maps], names, metadata)
    semantic_tiles = [(title, _blend_labels(image, m, legend)) for title, m in label_maps]
    return _compose([instance_tiles, semantic_tiles], list(legend.values()))


@contextmanager
def _attribute(obj: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute that exists for the duration of a `with` block."""
    before = getattr(obj, name)
    setattr(obj, name, value)
    try:
        yield
    finally:
        setattr(obj, name, before)


def _run_stages(model: nn.Module, batched_input: dict, stages: list) -> list[dict]:
    """Run inference with the first t stages, for every t; None stands for the model as it is."""
    outputs = []
    with ExitStack() as restored, torch.no_grad():
        # Not `model.eval()`: going back by `model.train()` would wake modules that were asleep.
        for module in model.modules():
            restored.enter_context(_attribute(module, "training", False))
        if hasattr(model, "output_sem_seg"):
            restored.enter_context(_attribute(model, "output_sem_seg", True))
        for stage in stages:
            with ExitStack() as stack:
                if stage is not None:
                    stack.enter_context(_attribute(model.roi_heads, "test_stages", stage))
                outputs.extend(model([batched_input]))
    return outputs


def _stage_title(heads: nn.Module, stage: int | None) -> str:
    if stage is None:
        return "detections"
    title = f"after stage {stage}"
    matchers = getattr(heads, "proposal_matchers", [])
    if stage <= len(matchers):
        # A matcher pads its thresholds with -inf and inf.
        ious = [f"{t:g}" for t in matchers[stage - 1].thresholds if np.isfinite(t)]
        title += f" (IoU {'/'.join(ious)})"
    return title


def _palette(index: int) -> Color:
    """A bright colour; indices that are near each other get hues that are not."""
    golden = 0.618034
    return tuple(hsv_to_rgb((index * golden % 1, (0.85, 0.6)[index % 2], (1, 0.8)[index // 2 % 2])))


def _thing_name(index: int, metadata: Metadata) -> str:
    names = metadata.get("thing_classes") or []
    return names[index] if index < len(names) else f"class {index}"


def _thing_color(index: int, metadata: Metadata) -> Color:
    colors = metadata.get("thing_colors") or []
    return tuple(np.divide(colors[index], 255)) if index < len(colors) else _palette(index)


def _draw_found(image: np.ndarray, found: Instances, metadata: Metadata) -> np.ndarray:
    """Draw detections of the tile's size with boxes, scores and, if there are any, masks."""
    canvas = Visualizer(image, metadata)
    classes, scores = found.pred_classes.tolist(), found.scores.tolist()
    canvas.overlay_instances(
        boxes=found.pred_boxes,
        masks=found.pred_masks if found.has("pred_masks") else None,
        labels=[
            f"{_thing_name(c, metadata)} {s:.2f}" for c, s in zip(classes, scores, strict=True)
        ],
        assigned_colors=[_thing_color(c, metadata) for c in classes],
        alpha=MASK_ALPHA,
    )
    return _render(canvas.output)


def _draw_annotations(
    image: np.ndarray, dataset_dict: dict, resize: transforms.Transform, metadata: Metadata
) -> np.ndarray:
    """Draw the annotations of a dataset dict; crowd regions are striped instead of outlined."""
    canvas = Visualizer(image, metadata)
    h, w = image.shape[:2]
    boxes, masks, classes = [], [], []
    for annotation in dataset_dict.get("annotations", []):
        annotation = transform_instance_annotations(copy.deepcopy(annotation), resize, (h, w))
        category = annotation["category_id"]
        mask = annotation.get("segmentation", [])
        if not annotation.get("iscrowd", 0):
            boxes.append(annotation["bbox"])
            masks.append(mask)
            classes.append(category)
            continue
        if isinstance(mask, list):
            x0, y0, x1, y1 = annotation["bbox"]
            mask = polygons_to_bitmask(mask or [np.array([x0, y0, x1, y0, x1, y1, x0, y1])], h, w)
        stripes = np.add.outer(np.arange(h), np.arange(w)) // 6 % 2
        canvas.draw_soft_mask(
            mask * (0.2 + 0.6 * stripes),
            color=_thing_color(category, metadata),
            text=f"{_thing_name(category, metadata)} (crowd)",
            alpha=1,
        )
    if boxes:
        canvas.overlay_instances(
            boxes=np.stack(boxes),
            masks=masks,
            labels=[_thing_name(c, metadata) for c in classes],
            assigned_colors=[_thing_color(c, metadata) for c in classes],
            alpha=MASK_ALPHA,
        )
    return _render(canvas.output)


def _render(output: VisImage) -> np.ndarray:
    """Rasterize a tile after moving its texts inside and off one another.

    Texts come in the order of their objects' sizes; those that find no place are left out.
    """
    renderer = output.canvas.get_renderer()
    texts, taken = list(output.ax.texts), []
    for text in texts:
        text.set_fontsize(9 if len(texts) <= CROWDED_FROM else 7)
        extent = text.get_window_extent(renderer)  # pixels, y upwards; positions have y downwards
        inside = extent.translated(max(min(0, output.width - extent.x1), -extent.x0), 0)
        lines = (inside.translated(0, n * (inside.height + 3)) for n in (0, -1, 1, -2, 2))
        for line in lines:
            if line.y0 >= 0 and line.y1 <= output.height and not line.count_overlaps(taken):
                taken.append(line)
                x, y = text.get_position()
                text.set_position((x + line.x0 - extent.x0, y - (line.y0 - extent.y0)))
                break
        else:
            text.remove()
    return output.get_image()


def _semantic_names(model: nn.Module, metadata: Metadata) -> dict[int, str]:
    """Names of the semantic labels: of the label maps, or of the maps painted from instances."""
    names = dict(enumerate(metadata.get("stuff_classes") or []))
    targets = getattr(model, "semantic_targets", None)
    if targets is not None and (targets.source == "instances" or not names):
        labels = enumerate(targets.thing_labels.tolist())
        names = {label: _thing_name(index, metadata) for index, label in labels}
        names[targets.unlabelled_value] = "background"
    return names


def _semantic_legend(
    label_maps: list[np.ndarray], names: dict[int, str], metadata: Metadata
) -> dict[int, tuple[str, Color]]:
    """Name and colour of each label in the maps, those that cover most first."""
    colors = metadata.get("stuff_colors") or []
    things = list(metadata.get("thing_classes") or [])
    ignored = metadata.get("ignore_label", 255)
    legend = {}
    if not label_maps:
        return legend
    labels, counts = np.unique(np.stack(label_maps), return_counts=True)
    for label in labels[np.argsort(-counts, kind="stable")].tolist():
        name = names.get(label, f"label {label}")
        if label == ignored:
            legend[label] = ("ignored", (0.0, 0.0, 0.0))
        elif name in things:
            legend[label] = (name, _thing_color(things.index(name), metadata))
        elif label < len(colors):
            legend[label] = (name, tuple(np.divide(colors[label], 255)))
        else:
            legend[label] = (name, _palette(len(things) + label))
    return legend


def _blend_labels(
    image: np.ndarray, label_map: np.ndarray, legend: dict[int, tuple[str, Color]]
) -> np.ndarray:
    """Colour an (h, w, 3) image by its (h, w) labels."""
    colors = np.zeros_like(image)
    for label, (_, color) in legend.items():
        colors[label_map == label] = np.multiply(color, 255)
    return cv2.addWeighted(image, 0.35, colors, 0.65, 0)


def _compose(rows: list[list[Tile]], legend: list[tuple[str, Color]]) -> np.ndarray:
    """Lay out rows of equally large tiles under their titles, the legend after the last tile."""
    rows = [row for row in rows if row]
    h, w = rows[0][0][1].shape[:2]
    cell_w, cell_h = max(w, MIN_CELL_WIDTH) + GAP, h + TITLE_HEIGHT + GAP
    columns = max(len(rows[0]), len(rows[-1]) + bool(legend))
    width, height = columns * cell_w + GAP, len(rows) * cell_h
    # 0.01 px keeps Agg from truncating to one pixel less.
    figure = Figure(figsize=((width + 0.01) / DPI, (height + 0.01) / DPI), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    pixels = np.full((height, width, 3), 255, dtype=np.uint8)
    for r, row in enumerate(rows):
        for c, (title, tile) in enumerate(row):
            x, y = GAP + c * cell_w, TITLE_HEIGHT + r * cell_h
            pixels[y : y + h, x : x + w] = tile
            figure.text(x / width, 1 - (y - 8) / height, title, fontsize=12)
    figure.figimage(pixels, origin="upper")
    if legend:
        x, y = GAP + len(rows[-1]) * cell_w, TITLE_HEIGHT + (len(rows) - 1) * cell_h
        per_column = max(1, h // LEGEND_ENTRY[1])
        fits = per_column * max(1, (width - x) // LEGEND_ENTRY[0])
        handles = [Patch(color=color, label=name) for name, color in legend[:fits]]
        if len(legend) > fits:
            handles[-1] = Patch(color="none", label=f"and {len(legend) - fits + 1} more")
        figure.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(x / width, 1 - y / height),
            ncols=-(-len(handles) // per_column),
            fontsize=11,
            frameon=False,
            borderpad=0,
            borderaxespad=0,
        )
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
