"""Random ground truth in COCO's format, and detections that make every kind of error in it."""

import numpy as np
from pycocotools import mask as coco_mask

SIZE = 80, 100  # height and width
NAMES = ("ball", "tent", "kite")


def box_at(generator, low=8, high=40):
    width, height = generator.uniform(low, high, 2)
    x, y = generator.uniform(0, SIZE[1] - width), generator.uniform(0, SIZE[0] - height)
    return [float(v) for v in (x, y, width, height)]


def polygon_of(box):
    """A box without its lower right quarter."""
    x, y, w, h = box
    points = [(x, y), (x + w, y), (x + w, y + h / 2), (x + w / 2, y + h / 2)]
    return [float(v) for p in [*points, (x + w / 2, y + h), (x, y + h)] for v in p]


def rle_of(polygon):
    rle = coco_mask.merge(coco_mask.frPyObjects([polygon], *SIZE))
    return {**rle, "counts": rle["counts"].decode()}


def random_results(seed=0, num_images=14, masks=True, names=NAMES, crowds=True):
    """Return a dataset and its detections, both as COCO's JSON has them."""
    generator = np.random.default_rng(seed)
    categories = [{"id": 10 * (k + 1), "name": name} for k, name in enumerate(names)]
    ids = [category["id"] for category in categories]
    images, annotations, detections = [], [], []
    for i in range(num_images):
        size = {"height": SIZE[0], "width": SIZE[1]}
        images.append({"id": 100 + 3 * i, "file_name": f"{i}.jpg", **size})
        # The first image is empty.
        for _ in range(0 if i == 0 else generator.integers(1, 5)):
            box, category = box_at(generator), int(generator.choice(ids))
            area = coco_mask.area(rle_of(polygon_of(box))) if masks else box[2] * box[3]
            crowd = int(crowds and generator.random() < 0.15)
            shape = {}
            if masks:
                shape["segmentation"] = rle_of(polygon_of(box)) if crowd else [polygon_of(box)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": images[-1]["id"],
                    "category_id": category,
                    "bbox": box,
                    "area": float(area),
                    "iscrowd": crowd,
                    **shape,
                }
            )
            for scale in generator.choice([0.03, 0.1, 0.3], generator.integers(0, 4)):
                shift = generator.normal(0, scale, 4) * box[2]
                moved = [float(max(0.5, v)) for v in np.add(box, shift)]
                found = category if generator.random() < 0.7 else int(generator.choice(ids))
                detections.append((images[-1]["id"], found, moved))
        for _ in range(generator.integers(0, 3)):
            detections.append((images[-1]["id"], int(generator.choice(ids)), box_at(generator)))
    found = []
    for image_id, category, box in detections:
        shape = {"segmentation": rle_of(polygon_of(box))} if masks else {}
        score = round(float(generator.uniform(0.01, 1)), 4)
        keys = {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
        found.append({**keys, **shape})
    dataset = {"images": images, "annotations": annotations, "categories": categories}
    return dataset, found
