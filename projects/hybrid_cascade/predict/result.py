"""What a model found in an image, in the forms that people use.

Shapes: D detections, (H, W) the size of the image.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.data import Metadata
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances

from ..visualization.class_colors import thing_name
from ..visualization.instances import draw_detections
from ..visualization.outlines import trace_outlines

PARTS_OF_A_PIXEL = 4  # along each axis, by which outlines are traced
DRAWING_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass
class Result:
    """The detections of an image.

    Attributes:
        name: of the image, see `InputImage`.
        image: (H, W, 3) uint8 BGR.
        instances: D detections on the CPU, best first, with "pred_boxes" (XYXY, in pixels of the
            image), "scores", "pred_classes" and, if the model has masks, "pred_masks" (D, H, W)
            bool.
        metadata: with the names of the classes, `thing_classes`.
    """

    name: str
    image: np.ndarray
    instances: Instances
    metadata: Metadata

    def __len__(self) -> int:
        return len(self.instances)

    @property
    def boxes(self) -> np.ndarray:
        """The boxes, (D, 4) float32 XYXY in pixels."""
        return self.instances.pred_boxes.tensor.numpy()

    @property
    def scores(self) -> np.ndarray:
        """The scores, (D,) float32 in [0, 1]."""
        return self.instances.scores.numpy()

    @property
    def class_names(self) -> list[str]:
        """The name of the class of each detection; "class 7" where the model knows none."""
        return [thing_name(c, self.metadata) for c in self.instances.pred_classes.tolist()]

    @property
    def masks(self) -> np.ndarray | None:
        """The masks, (D, H, W) bool; None if the model has none."""
        return self.instances.pred_masks.numpy() if self.instances.has("pred_masks") else None

    def rle(self) -> list[dict] | None:
        """Return the masks run-length encoded, as COCO's tools take them; None without masks."""
        if self.masks is None:
            return None
        return [detection["segmentation"] for detection in self.to_coco(0)]

    def polygons(self) -> list[list[list[float]]] | None:
        """Return the outlines of each mask, [x0, y0, x1, y1, ...] each; None without masks.

        An instance in several pieces has several. Holes are left out, as COCO's polygons have none.
        """
        if self.masks is None:
            return None
        return [outlines(mask) for mask in self.masks]

    def to_coco(self, image_id: int | str) -> list[dict]:
        """Return the detections as COCO's results: "bbox" is XYWH, "category_id" the class."""
        return instances_to_coco_json(self.instances, image_id)

    def to_records(self) -> list[dict]:
        """Return the detections as plain values, best first.

        Each has "class", its index, "score", "bbox" (XYWH) and, if there are masks, "segmentation"
        (RLE).
        """
        return [
            {"class": x.pop("category_id"), **{k: v for k, v in x.items() if k != "image_id"}}
            for x in self.to_coco(0)
        ]

    def to_supervision(self) -> Any:
        """Return `supervision.Detections`.

        Raises:
            ImportError: if the package is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError("to_supervision needs a package: pip install supervision") from error
        return supervision.Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.instances.pred_classes.numpy(),
            data={"class_name": np.array(self.class_names)},
        )

    def draw(self) -> np.ndarray:
        """Return the image with boxes, names, scores and masks, (H, W, 3) uint8 BGR."""
        rgb = np.ascontiguousarray(self.image[:, :, ::-1])
        return draw_detections(rgb, self.instances, self.metadata)[:, :, ::-1].copy()

    def save(self, folder: str | Path) -> Path:
        """Write the drawing under the name of the image, and <name>.json in COCO's format.

        Frames of videos, and images that have no name of a picture, become PNGs.

        Args:
            folder: is made if it is not there.

        Returns:
            The path of the drawing.

        Raises:
            ValueError: if the drawing would replace the image itself.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / Path(self.name).name
        if path.suffix.lower() not in DRAWING_SUFFIXES:
            path = Path(f"{path}.png")
        if path.resolve() == Path(self.name).resolve():
            raise ValueError(f"The drawing would replace its image, '{path}': take another folder")
        if not cv2.imwrite(str(path), self.draw()):
            raise OSError(f"'{path}' can't be written")
        detections = self.to_coco(self.name)
        for name, detection in zip(self.class_names, detections, strict=True):
            detection["class_name"] = name
        Path(f"{path}.json").write_text(json.dumps(detections, indent=1))
        return path


def outlines(mask: np.ndarray) -> list[list[float]]:
    """Return the outlines [x0, y0, x1, y1, ...] of the pieces of a mask (H, W), along its pixels'
    edges."""
    return [points.flatten().tolist() for points in trace_outlines(mask, parts=PARTS_OF_A_PIXEL)]
