"""Faults of annotation files in COCO's format."""

import json
import math

import numpy as np
from pycocotools import mask as mask_util

from .datasets_faults import HEIGHT, WIDTH, Fault

TRAIN, EVAL, ALL = ("train",), ("val", "eval_only"), ("train", "val", "eval_only")
NAN, INF = math.nan, math.inf
# What stands in place of a number, a list, a dict.
OTHER_KINDS = (None, "3", "", [], {}, [1], True, 1.5, NAN, 10**400, -1)


def _annotation_fault(name, change, names, **options):
    """Return a fault of a random annotation, which `change` gets, or of several of them."""

    def apply(random, content, folder):
        chosen = random.sample(content["annotations"], random.choice([1, 1, 3, 9]))
        for annotation in chosen:
            change(random, annotation)

    return Fault(name, apply, names, **options)


def _missing(key):
    return lambda random, record: record.pop(key)


def _set(key, *values):
    def change(random, record):
        record[key] = random.choice(values)

    return change


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


def _image_fault(name, change, names, **options):
    def apply(random, content, folder):
        change(random, random.choice(content["images"]))

    return Fault(name, apply, names, **options)


def _same_image_id(random, content, folder):
    first, second = random.sample(content["images"], 2)
    second["id"] = first["id"]


def _same_annotation_id(random, content, folder):
    first, second = random.sample(content["annotations"], 2)
    second["id"] = first["id"]


def _ids_from_zero(random, content, folder):
    for annotation in content["annotations"]:
        annotation["id"] -= 1


def _string_ids(random, content, folder):
    for annotation in content["annotations"]:
        annotation["id"] = str(annotation["id"])


def _string_image_ids(random, content, folder):
    for image in content["images"]:
        image["id"] = f"image {image['id']}"
    for annotation in content["annotations"]:
        annotation["image_id"] = f"image {annotation['image_id']}"


def _other_order(random, content, folder):
    categories = content["categories"]
    categories[0]["name"], categories[1]["name"] = categories[1]["name"], categories[0]["name"]


def _number_of_categories(random, content, folder):
    if random.random() < 0.5:
        content["categories"].append({"id": 9, "name": "stone"})
    else:
        gone = content["categories"].pop()["id"]
        for annotation in content["annotations"]:
            if annotation["category_id"] == gone:
                annotation["category_id"] = 1


def _same_category(random, content, folder):
    content["categories"][1]["id"] = content["categories"][0]["id"]


def _category(random, content, folder):
    key = random.choice(["id", "name"])
    category = random.choice(content["categories"])
    if random.random() < 0.5:
        del category[key]
    else:
        category[key] = random.choice([None, [], {}, 1.5])


def _section(random, content, folder):
    key = random.choice(["images", "categories", "annotations"])
    content[key] = random.choice([None, "", 3, {}, {"1": {}}])


def _entry(random, content, folder):
    key = random.choice(["images", "categories", "annotations"])
    content[key].insert(random.randrange(3), random.choice([None, 3, "a", [], [[]]]))


def _no_section(random, content, folder):
    del content[random.choice(["images", "categories"])]


def _no_annotations(random, content, folder):
    if random.random() < 0.5:
        del content["annotations"]
    else:
        content["annotations"] = []


def _only_crowds(random, content, folder):
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1


def _of_no_image(random, content, folder):
    for annotation in content["annotations"]:
        annotation["image_id"] += 100


def _extra_annotation(random, content, folder):
    extra = {**content["annotations"][0], "id": 100, "image_id": 77}
    content["annotations"].append(extra)


def _shuffled(random, content, folder):
    for key in ("images", "categories", "annotations"):
        random.shuffle(content[key])


def _empty_image(random, content, folder):
    image_id = random.choice(content["images"])["id"]
    content["annotations"] = [x for x in content["annotations"] if x["image_id"] != image_id]


def _bytes(*texts):
    def apply(random, content, folder):
        return random.choice(texts)

    return apply


def _truncated(random, content, folder):
    text = json.dumps(content).encode()
    return text[: random.randrange(len(text))]


NOT_TRAINED = "`area` and `iscrowd` are needed for an evaluation only"
FILE = r"(train|val)\.json"
ANNOTATION = r"annotation .* of image '[^']*\d\.png'"
ANNOTATION_FAULTS = [
    _annotation_fault(f"{name} missing", _missing(key), f"{ANNOTATION}.*`{key}`|{FILE}", **options)
    for name, key, options in (
        ("bbox", "bbox", {}),
        ("category_id", "category_id", {}),
        ("area", "area", {"fine": TRAIN, "why": NOT_TRAINED}),
        ("iscrowd", "iscrowd", {"fine": TRAIN, "why": NOT_TRAINED}),
        ("segmentation", "segmentation", {}),
    )
]
ANNOTATION_FAULTS += [
    _annotation_fault("annotation id missing", _missing("id"), "annotation ids"),
    _annotation_fault("image_id missing", _missing("image_id"), "`image_id` None"),
    *(
        _annotation_fault(f"{key} of another kind", _set(key, *values), f"{key}|{FILE}", **options)
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
        "box of negative size", _set("bbox", [20, 20, -5, 9], [20, 20, 5, -9]), ANNOTATION
    ),
    _annotation_fault(
        "box of no area", _set("bbox", [5, 5, 0, 9], [5, 5, 9, 0], [0] * 4), ANNOTATION
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
    _annotation_fault("annotation ignored", _set("ignore", 1, True), "`ignore`"),
    _annotation_fault("keypoints", _set("keypoints", [1, 2], ["a"] * 3, "abc", 3), "`keypoints`"),
    _annotation_fault("box as corners beside run lengths", _corners_beside_runs, ANNOTATION),
    Fault("run lengths", _good_runs(1), "instance_mask_format.*INPUT.MASK_FORMAT", fine=EVAL),
    Fault(
        "run lengths among polygons",
        _good_runs(2),
        "instance_mask_format.*INPUT.MASK_FORMAT",
        fine=EVAL,
    ),
    Fault("no masks", _no_masks, "(train|val).*`segmentation`"),
    _image_fault("image of no id", _missing("id"), "image ids"),
    _image_fault("image of no file_name", _missing("file_name"), "file_name"),
    _image_fault("image of no width", _missing("width"), "`width`"),
    _image_fault("image id of another kind", _set("id", *OTHER_KINDS[:-1]), "image ids"),
    _image_fault("file_name of another kind", _set("file_name", None, 3, "", [], {}), "file_name"),
    _image_fault("width of another kind", _set("width", *OTHER_KINDS, 0), "`width`"),
    _image_fault("height of another kind", _set("height", *OTHER_KINDS, 0), "`height`"),
    _image_fault(
        "file_name elsewhere", _set("file_name", "../x.png", "/x.png", "\0"), "file_name|x.png"
    ),
    Fault("two images of an id", _same_image_id, "same id.*png"),
    Fault("two annotations of an id", _same_annotation_id, "same id"),
    Fault(
        "annotation ids from 0",
        _ids_from_zero,
        "ids of 0",
        fine=TRAIN,
        why="a training does not use the ids of annotations",
    ),
    Fault("annotation ids are text", _string_ids, "annotation ids"),
    Fault("image ids are text", _string_image_ids, "image ids"),
    Fault("categories in another order", _other_order, "thing_classes", uses=("train", "val")),
    Fault("another number of categories", _number_of_categories, "num_classes"),
    Fault("two categories of an id", _same_category, "categor"),
    Fault("category without id or name", _category, "categor"),
    Fault("section of another kind", _section, FILE),
    Fault("section missing", _no_section, FILE),
    Fault("entry of another kind", _entry, "entry"),
    Fault("no annotations", _no_annotations, "train", uses=TRAIN),
    Fault("only crowds", _only_crowds, "train", uses=TRAIN),
    Fault("annotations of no image", _of_no_image, "image_id"),
    Fault(
        "an annotation of no image",
        _extra_annotation,
        "",
        fine=ALL,
        why="annotations of images that are not in the file are left out, with a warning",
    ),
    Fault("records in another order", _shuffled, "", fine=ALL),
    Fault(
        "an image without objects",
        _empty_image,
        "",
        uses=TRAIN,
        fine=TRAIN,
        why="images without objects are left out, or trained on: `filter_empty`",
    ),
    Fault("file that is no JSON", _bytes(b"", b"\xff\xfe\x00", b"{", b"[" * 10**5), FILE),
    Fault("file that is no dict", _bytes(b"[]", b"3", b"null", b'"a"', b"{}"), FILE),
    Fault("file that is truncated", _truncated, FILE),
]
