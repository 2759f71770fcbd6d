"""Faults of annotations in COCO's format."""

import numpy as np
from pycocotools import mask as mask_util

from .datasets_faults import (
    EVAL,
    FILE,
    HEIGHT,
    INF,
    NAN,
    OTHER_KINDS,
    TRAIN,
    WIDTH,
    Fault,
    missing,
    set_to,
)


def _annotation_fault(name, change, names, **options):
    """Return a fault of a random annotation, which `change` gets, or of several of them."""

    def apply(random, content, folder):
        chosen = random.sample(content["annotations"], random.choice([1, 1, 3, 9]))
        for annotation in chosen:
            change(random, annotation)

    return Fault(name, apply, names, **options)


def _in_box(random, annotation, *values):
    annotation["bbox"][random.randrange(4)] = random.choice(values)


def _in_polygon(random, annotation, *values):
    [polygon] = annotation["segmentation"]
    polygon[random.randrange(len(polygon))] = random.choice(values)


def _corners(random, annotation):
    x, y, w, h = annotation["bbox"]
    annotation["bbox"] = [x + 5, y + 5, x + w + 5, y + h + 5]
    annotation["segmentation"] = [
        [x + 5, y + 5, x + w + 5, y + 5, x + w + 5, y + h + 5, x + 5, y + h + 5]
    ]


def _normalised_box(random, annotation):
    x, y, w, h = annotation["bbox"]
    annotation["bbox"] = [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]


def _normalised_polygon(random, annotation):
    [polygon] = annotation["segmentation"]
    annotation["segmentation"] = [[v / (HEIGHT if i % 2 else WIDTH) for i, v in enumerate(polygon)]]


def _moved_box(random, annotation):
    axis, sign = random.randrange(2), random.choice([-1, 1])
    annotation["bbox"][axis] += sign * random.choice([WIDTH, 2 * WIDTH, 10**6])


def _moved_polygon(random, annotation):
    shift = random.choice([-WIDTH, WIDTH, 10**9, -(10**9), 1e30, 1e300])
    annotation["segmentation"] = [[v + shift for v in annotation["segmentation"][0]]]


def _flat_polygon(random, annotation):
    annotation["segmentation"] = annotation["segmentation"][0]


def _cut_polygon(random, annotation):
    annotation["segmentation"] = [
        annotation["segmentation"][0][: random.choice([0, 1, 2, 4, 5, 7])]
    ]


def _point_polygon(random, annotation):
    annotation["segmentation"] = [[5, 5] * random.choice([3, 4])]


def _runs(annotation):
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    x, y, w, h = annotation["bbox"]
    pixels[y : y + h, x : x + w] = 1
    return mask_util.encode(pixels)


def _wrong_sum(random, annotation):
    total = HEIGHT * WIDTH + random.choice([-1000, -1, 1, 1000, 10**9])
    annotation["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": [10, total - 10]}


def _wrong_runs(random, annotation):
    total = HEIGHT * WIDTH
    counts = random.choice(
        [[-5, total + 5], [10, NAN], ["10", total - 10], [total / 2] * 2, [], [None], 7, None]
        + [[2**40, -(2**40) + total]]
    )
    annotation["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": counts}


def _corrupt_runs(random, annotation):
    counts = _runs(annotation)["counts"].decode()
    index = random.randrange(len(counts))
    other = random.choice(["~", "\x00", " ", "é", "", "oooooooooo", chr(ord(counts[index]) ^ 1)])
    counts = counts[:index] + other + counts[index + 1 :]
    annotation["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": counts}


def _runs_of_other_size(random, annotation):
    size = random.choice(
        [[WIDTH, HEIGHT], [0, 0], [-1, 5], [HEIGHT], "48", None, [1e3, 2], [2**33, 2]]
    )
    annotation["segmentation"] = {**_runs(annotation), "size": size}
    annotation["segmentation"]["counts"] = annotation["segmentation"]["counts"].decode()


def _make_runs(random, annotation):
    runs = _runs(annotation)
    annotation["segmentation"] = {"size": runs["size"], "counts": runs["counts"].decode()}


def _plain_runs(annotation):
    """Turn compressed run lengths into a list."""
    pixels = mask_util.decode(annotation["segmentation"]).ravel(order="F")
    ends = np.flatnonzero(np.diff(np.r_[0, pixels])) if pixels.any() else []
    annotation["segmentation"]["counts"] = np.diff(np.r_[0, ends, len(pixels)]).tolist()


def _good_runs(step):
    def apply(random, content, folder):
        for annotation in content["annotations"][::step]:
            _make_runs(random, annotation)
            if random.random() < 0.5:
                _plain_runs(annotation)

    return apply


def _corners_beside_runs(random, annotation):
    """Make a box of corners that stays within the image."""
    annotation["bbox"] = [8, 6, 14, 12]
    _make_runs(random, annotation)
    annotation["bbox"] = [8, 6, 8 + 14, 6 + 12]


def _no_masks(random, content, folder):
    for annotation in content["annotations"]:
        if random.random() < 0.5:
            annotation["segmentation"] = []
        else:
            del annotation["segmentation"]


NOT_TRAINED = "`area` and `iscrowd` are needed for an evaluation only"
ANNOTATION = r"annotation .* of image '[^']*\d\.png'"
ANNOTATION_FAULTS = [
    _annotation_fault(f"{name} missing", missing(key), f"{ANNOTATION}.*`{key}`|{FILE}", **options)
    for name, key, options in (
        ("bbox", "bbox", {}),
        ("category_id", "category_id", {}),
        ("area", "area", {"fine": TRAIN, "why": NOT_TRAINED}),
        ("iscrowd", "iscrowd", {"fine": TRAIN, "why": NOT_TRAINED}),
        ("segmentation", "segmentation", {}),
    )
]
ANNOTATION_FAULTS += [
    _annotation_fault("annotation id missing", missing("id"), "annotation ids"),
    _annotation_fault("image_id missing", missing("image_id"), "`image_id` None"),
    *(
        _annotation_fault(
            f"{key} of another kind", set_to(key, *values), f"{key}|{FILE}", **options
        )
        for key, values, options in (
            ("bbox", (*OTHER_KINDS, [1, 2, 3], ["1", "2", "3", "4"], [[1, 2], [3, 4]], "1234"), {}),
            ("area", [x for x in OTHER_KINDS if x != 1.5], {"fine": TRAIN, "uses": EVAL}),
            ("iscrowd", [x for x in OTHER_KINDS if x is not True], {}),
            ("category_id", [x for x in OTHER_KINDS if x is not True], {}),
            ("image_id", [x for x in OTHER_KINDS if x not in (True, -1)], {}),
            ("id", [x for x in OTHER_KINDS if x != -1], {}),
            ("segmentation", [*OTHER_KINDS, [[]], [{}], [None], ["1"]], {}),
        )
    ),
    _annotation_fault("box with NaN", lambda r, a: _in_box(r, a, NAN), f"{ANNOTATION}.*nan"),
    _annotation_fault("box with infinity", lambda r, a: _in_box(r, a, INF, -INF), ANNOTATION),
    _annotation_fault("box with text", lambda r, a: _in_box(r, a, "3", None, []), ANNOTATION),
    _annotation_fault(
        "box of negative size", set_to("bbox", [20, 20, -5, 9], [20, 20, 5, -9]), ANNOTATION
    ),
    _annotation_fault(
        "box of no area", set_to("bbox", [5, 5, 0, 9], [5, 5, 9, 0], [0] * 4), ANNOTATION
    ),
    _annotation_fault("box outside", _moved_box, f"{ANNOTATION}.*64x48"),
    _annotation_fault("box normalised", _normalised_box, ANNOTATION),
    _annotation_fault("box as corners", _corners, ANNOTATION),
    _annotation_fault(
        "polygon with NaN", lambda r, a: _in_polygon(r, a, NAN), f"{ANNOTATION}.*nan"
    ),
    _annotation_fault(
        "polygon with infinity", lambda r, a: _in_polygon(r, a, INF, -INF), ANNOTATION
    ),
    _annotation_fault(
        "polygon with text", lambda r, a: _in_polygon(r, a, "3", None, []), ANNOTATION
    ),
    _annotation_fault(
        "polygon with a huge value",
        lambda r, a: _in_polygon(r, a, 1e9, -1e9, 1e18, 10**400),
        ANNOTATION,
    ),
    _annotation_fault("polygon outside", _moved_polygon, ANNOTATION),
    _annotation_fault("polygon normalised", _normalised_polygon, ANNOTATION),
    _annotation_fault("polygon not in a list", _flat_polygon, ANNOTATION),
    _annotation_fault("polygon of few or odd values", _cut_polygon, f"{ANNOTATION}.*numbers"),
    _annotation_fault("polygon of one point", _point_polygon, ANNOTATION),
    _annotation_fault("run lengths of another sum", _wrong_sum, f"{ANNOTATION}.*sum to"),
    _annotation_fault("run lengths that are none", _wrong_runs, f"{ANNOTATION}.*counts"),
    _annotation_fault("run lengths corrupt", _corrupt_runs, f"{ANNOTATION}.*counts"),
    _annotation_fault("run lengths of another size", _runs_of_other_size, f"{ANNOTATION}.*size"),
    _annotation_fault("annotation ignored", set_to("ignore", 1, True), "`ignore`"),
    _annotation_fault("keypoints", set_to("keypoints", [1, 2], ["a"] * 3, "abc", 3), "`keypoints`"),
    _annotation_fault("box as corners beside run lengths", _corners_beside_runs, ANNOTATION),
    Fault("run lengths", _good_runs(1), "instance_mask_format.*INPUT.MASK_FORMAT", fine=EVAL),
    Fault(
        "run lengths among polygons",
        _good_runs(2),
        "instance_mask_format.*INPUT.MASK_FORMAT",
        fine=EVAL,
    ),
    Fault("no masks", _no_masks, "(train|val).*`segmentation`"),
]
