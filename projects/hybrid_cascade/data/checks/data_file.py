"""Examine an annotation file in COCO's format and its images: faults, oddities, counts by class."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

from .class_names import compare_classes
from .coco_file import examine_coco_file, read_coco_file
from .image_files import READ_ERRORS, check_image_files, in_threads
from .numbers import is_id, is_number
from .report import Kind, Level, Report
from .training import has_mask

TINY_SIDE = 4  # pixels
FEW_EXAMPLES = 3
UNBALANCED = 100
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

TINY = Kind(
    "tiny boxes",
    f"A side is under {TINY_SIDE} pixels: are they objects, or clicks by mistake? Remove those "
    "that can't be seen.",
    Level.ODD,
)
SOME_MASKS = Kind(
    "instances without a mask in a file with masks",
    "HTC and MNC train boxes and classes on them; other models with masks refuse them.",
    Level.ODD,
)
FEW = Kind(
    f"classes of {FEW_EXAMPLES} or fewer objects",
    "They will hardly be found. Add examples, join the class with another, or remove it.",
    Level.ODD,
)
SOME_CLASSES_ARE_RARE = Kind(
    "very unbalanced classes",
    "Rare classes will hardly be found. Add examples, or show their images more often "
    "(Detectron2's RepeatFactorTrainingSampler).",
    Level.ODD,
)
NO_OBJECTS = Kind(
    "images without objects",
    "A training leaves them out unless dataloader.train.dataset.filter_empty=False.",
    Level.ODD,
)
SAME_CONTENT = Kind(
    "image files of the same content",
    "Put their annotations under one of them, and remove the others.",
    Level.ODD,
)
NOT_LISTED = Kind(
    "images in the folder that no file lists",
    "They are not used. Images without objects are listed, too, if they are to count.",
    Level.ODD,
)
OVERLAP = Kind(
    "images to evaluate on that are trained on",
    "The figures will be too good. Remove them from one of the files.",
    Level.ODD,
)
SAME_NAME = Kind(
    "different image files of the same name to train and to evaluate on",
    "If they are versions of one image, remove them from one of the files.",
    Level.ODD,
)
NEVER_TRAINED = Kind(
    "classes to evaluate on that no object to train on has",
    "They won't be found. Share the images among both files in another way.",
    Level.ODD,
)
OTHER_CLASSES = Kind("other classes than those to train on", "Both files list the same classes.")
OTHER_NAMES = Kind("other names of classes than those to train on", "Compare them.", Level.ODD)


@dataclass
class DataFile:
    """An annotation file in COCO's format and the folder of its images.

    Attributes:
        json_file, image_root: their paths.
        content: the lists of the file.
        report: the faults found so far.
        classes: id -> name, in the order of the ids, by which a model numbers the classes.
        objects: id of a class -> number of its objects; crowd regions are not counted.
        images_of: id of a class -> number of images that have such objects.
    """

    json_file: str
    image_root: str
    content: dict[str, list]
    report: Report
    classes: dict[int, str] = field(default_factory=dict)
    objects: Counter[int] = field(default_factory=Counter)
    images_of: Counter[int] = field(default_factory=Counter)

    @classmethod
    def read(cls, json_file: str, image_root: str) -> "DataFile":
        """Read the file and count its objects.

        Raises:
            DatasetError: if it is no annotation file.
        """
        where = f"'{json_file}'"
        found = cls(json_file, image_root, read_coco_file(json_file, where), Report(where))
        names = {x["id"]: str(x.get("name")) for x in found.records("categories", "id")}
        found.classes = dict(sorted(names.items()))
        pairs = set()
        for x in found.instances:
            found.objects[x["category_id"]] += 1
            pairs.add((x["category_id"], x["image_id"]))
        found.images_of = Counter(category for category, _ in pairs)
        return found

    def records(self, key: str, *ids: str) -> Iterator[dict]:
        """Yield the dicts of a list whose ids, such as "image_id", can be used."""
        for record in self.content.get(key, ()):
            if isinstance(record, dict) and all(is_id(record.get(name)) for name in ids):
                yield record

    @property
    def instances(self) -> Iterator[dict]:
        """The annotations that are no crowd regions and have an image and a class."""
        records = self.records("annotations", "image_id", "category_id")
        return (x for x in records if not x.get("iscrowd", 0))

    @property
    def has_masks(self) -> bool:
        """Whether any instance has a mask."""
        return any(_has_mask(x) for x in self.instances)

    def images(self) -> list[dict]:
        """Return the images with the paths of their files, as Detectron2 has them."""
        images = []
        for record in self.records("images"):
            name = record.get("file_name")
            if isinstance(name, str) and name:
                sides = {k: record[k] for k in ("width", "height") if is_number(record.get(k))}
                images.append({"file_name": os.path.join(self.image_root, name), **sides})
        return images


def examine(file: DataFile, *, evaluation: bool, masks: bool, decode: bool) -> None:
    """Report the faults and oddities of a file and its images.

    Args:
        file: its `report` gets them.
        evaluation: it is evaluated on, and not only trained on.
        masks: masks are evaluated, too.
        decode: read all pixels of the images, and not the headers alone.
    """
    report = file.report
    options = {"evaluation": evaluation, "masks": masks}
    examine_coco_file(file.content, file.json_file, report, **options)
    check_image_files(file.images(), report, decode=decode)
    _find_odd_annotations(file)
    if not evaluation:
        _find_odd_classes(file)


def _find_odd_annotations(file: DataFile) -> None:
    with_objects, has_masks = set(), file.has_masks
    for x in file.instances:
        with_objects.add(x["image_id"])
        place = f"annotation {x.get('id')} of image {x['image_id']}"
        box = x.get("bbox")
        is_box = isinstance(box, list) and len(box) == 4 and all(map(is_number, box))
        if is_box and 0 < min(box[2:]) < TINY_SIDE:
            file.report.add(TINY, f"{place} has `bbox` {box}")
        if has_masks and not _has_mask(x):
            file.report.add(SOME_MASKS, place)
    for image in file.records("images", "id"):
        if image["id"] not in with_objects:
            file.report.add(NO_OBJECTS, f"'{image.get('file_name')}'")


def _find_odd_classes(file: DataFile) -> None:
    counts = {f"'{name}'": file.objects[i] for i, name in file.classes.items()}
    for name, number in counts.items():
        if number <= FEW_EXAMPLES:
            file.report.add(FEW, f"{name} has {number}")
    if counts:
        rare, frequent = min(counts, key=counts.get), max(counts, key=counts.get)
        if counts[frequent] > UNBALANCED * max(1, counts[rare]):
            numbers = f"{frequent} has {counts[frequent]} objects, {rare} has {counts[rare]}"
            file.report.add(SOME_CLASSES_ARE_RARE, numbers)


def find_unlisted_images(files: list[DataFile]) -> None:
    """Report images in the folders of some files that none of the files lists.

    Of files that have a folder in common, the report of the first gets them.
    """
    seen = {path for file in files for path in paths_of(file)}
    for file in files:
        for folder, _, names in os.walk(file.image_root):
            for name in sorted(names):
                path = os.path.join(folder, name)
                if name.lower().endswith(IMAGE_SUFFIXES) and os.path.realpath(path) not in seen:
                    seen.add(os.path.realpath(path))
                    file.report.add(NOT_LISTED, f"'{path}'")


def paths_of(file: DataFile) -> dict[str, list[str]]:
    """Return what `find_copies` does, with the real path of each image in place of its content."""
    paths = defaultdict(list)
    for image in file.images():
        try:
            paths[os.path.realpath(image["file_name"])].append(image["file_name"])
        except ValueError:  # no system has such a path
            continue
    return dict(paths)


def find_copies(files: list[DataFile]) -> list[dict[str, list[str]]]:
    """Report image files of the same content within each annotation file.

    Returns:
        For each annotation file: content -> paths. Files that can't be read are left out.
    """

    def read(image: dict) -> tuple[str, str | None]:
        path = image["file_name"]
        try:
            with open(path, "rb") as file:
                digest = blake2b(digest_size=16)
                while part := file.read(1 << 20):
                    digest.update(part)
        except (*READ_ERRORS, ValueError):
            return path, None
        return path, digest.hexdigest()

    contents = []
    for file in files:
        paths = defaultdict(list)
        # An image that is listed twice is a fault of its own.
        images = list({x["file_name"]: x for x in file.images()}.values())
        for path, content in in_threads(read, images, "for copies"):
            if content is not None:
                paths[content].append(path)
        for same in paths.values():
            if len(same) > 1:
                file.report.add(SAME_CONTENT, ", ".join(f"'{p}'" for p in same[:3]), len(same) - 1)
        contents.append(dict(paths))
    return contents


def compare(
    train: DataFile,
    val: DataFile,
    train_contents: dict[str, list[str]],
    val_contents: dict[str, list[str]],
) -> None:
    """Report images and classes of two files that should not, or should, be in both.

    Args:
        train, val: to train on, and to evaluate on. The report of `val` gets the faults.
        train_contents, val_contents: what `find_copies` or `paths_of` returned for them.
    """
    names = {os.path.basename(p): p for paths in train_contents.values() for p in paths}
    for content, paths in val_contents.items():
        for path in paths:
            if content in train_contents:
                val.report.add(OVERLAP, f"'{path}' is '{train_contents[content][0]}'")
            elif os.path.basename(path) in names:
                val.report.add(SAME_NAME, f"'{path}' and '{names[os.path.basename(path)]}'")
    expected, found = list(train.classes.values()), list(val.classes.values())
    if len(expected) != len(found):
        val.report.add(OTHER_CLASSES, f"there are {len(expected)}, and {len(found)} here")
    else:
        message, is_error = compare_classes(
            f"'{train.json_file}', which is trained on",
            expected,
            val.json_file,
            found,
            "categories",
        )
        if message:
            val.report.add(OTHER_CLASSES if is_error else OTHER_NAMES, message.rstrip(". "))
    trained = {train.classes[i] for i, number in train.objects.items() if i in train.classes}
    for i, name in val.classes.items():
        if val.objects[i] and name not in trained:
            val.report.add(NEVER_TRAINED, f"'{name}' has {val.objects[i]} objects")


def _has_mask(annotation: dict) -> bool:
    mask = annotation.get("segmentation")
    return isinstance(mask, list | dict) and has_mask(annotation)
