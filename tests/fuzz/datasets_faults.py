"""What a fault of a dataset is."""

import math
from collections.abc import Callable
from dataclasses import dataclass

WIDTH, HEIGHT = 64, 48  # of the images
TRAIN, EVAL, ALL = ("train",), ("val", "eval_only"), ("train", "val", "eval_only")
NAN, INF = math.nan, math.inf
# What stands in place of a number, a list, a dict.
OTHER_KINDS = (None, "3", "", [], {}, [1], True, 1.5, NAN, 10**400, -1)
FILE = r"(train|val)\.json"


@dataclass(frozen=True)
class Fault:
    """A fault of a dataset.

    Attributes:
        name: what is wrong.
        apply: takes a random generator, the content of the annotation file, which it may change,
            and the folder with `images` and `maps`. It may return bytes to be the annotation file.
        names: a regular expression that the message has to contain.
        uses: what can be done with a dataset that has it: "train", "val" (train on another one),
            "eval_only".
        fine: those of them for which it is no fault.
        why: why it is none, by decision; "" if that goes without saying.
        decode: whether the config asks for all pixels of the images to be read.
    """

    name: str
    apply: Callable
    names: str
    uses: tuple[str, ...] = ("train", "val", "eval_only")
    fine: tuple[str, ...] = ()
    why: str = ""
    decode: bool = False

    def fine_for(self, use: str) -> bool:
        """Tell whether the dataset has to work for this use."""
        return use in self.fine


def missing(key: str) -> Callable:
    """Return a change that removes a key of a record."""
    return lambda random, record: record.pop(key)


def set_to(key: str, *values: object) -> Callable:
    """Return a change that gives a key of a record one of several values."""

    def change(random, record):
        record[key] = random.choice(values)

    return change
