"""Faults of annotation files in COCO's format: of images, categories, ids, and of the whole."""

import json

from .datasets_faults import ALL, FILE, OTHER_KINDS, TRAIN, Fault, missing, set_to


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


RECORD_FAULTS = [
    _image_fault("image of no id", missing("id"), "image ids"),
    _image_fault("image of no file_name", missing("file_name"), "file_name"),
    _image_fault("image of no width", missing("width"), "`width`"),
    _image_fault("image id of another kind", set_to("id", *OTHER_KINDS[:-1]), "image ids"),
    _image_fault(
        "file_name of another kind", set_to("file_name", None, 3, "", [], {}), "file_name"
    ),
    _image_fault("width of another kind", set_to("width", *OTHER_KINDS, 0), "`width`"),
    _image_fault("height of another kind", set_to("height", *OTHER_KINDS, 0), "`height`"),
    _image_fault(
        "file_name elsewhere", set_to("file_name", "../x.png", "/x.png", "\0"), "file_name|x.png"
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
