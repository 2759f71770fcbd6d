"""Images to map, with their annotations."""

import pytest
from detectron2.structures import BoxMode
from PIL import Image
from pycocotools import mask as coco_mask


@pytest.fixture
def scene(tmp_path):
    """Draw an image of one color with rectangles (x1, y1, x2, y2) as its instances."""

    def draw(name, color, boxes, size=(40, 60), label=None, masks="polygon", **fields):
        Image.new("RGB", size[::-1], (color,) * 3).save(tmp_path / f"{name}.png")
        annotations = []
        for category, (x1, y1, x2, y2) in enumerate(boxes):
            segmentation = [[x1, y1, x2, y1, x2, y2, x1, y2]]
            if masks == "bitmask":
                segmentation = coco_mask.frPyObjects(segmentation, *size)[0]
            annotations.append(
                {
                    "bbox": [x1, y1, x2, y2],
                    "bbox_mode": BoxMode.XYXY_ABS,
                    "category_id": category,
                    "segmentation": segmentation,
                    **fields,
                }
            )
        record = {
            "file_name": str(tmp_path / f"{name}.png"),
            "height": size[0],
            "width": size[1],
            "annotations": annotations,
        }
        if label is not None:
            Image.new("L", size[::-1], label).save(tmp_path / f"{name}_labels.png")
            record["sem_seg_file_name"] = str(tmp_path / f"{name}_labels.png")
        return record

    return draw
