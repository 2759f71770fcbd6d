"""Checkpoints with one fault each: in what they hold, in the file, in the folder they lie in."""

import logging
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from hybrid_cascade.engine import FittingCheckpointer

from .case import Case
from .checkpoint_files import (
    BYTES,
    FILES,
    KEYS,
    NUMBERS,
    READERS,
    TORCH_VALUES,
    VALUES,
    WRITERS,
    Model,
    State,
    flip_last_place,
    make_content,
    resume_in,
    write_zip,
)


@contextmanager
def warnings_logged() -> Iterator[list[str]]:
    """Yield a list that warnings are added to."""
    messages = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    try:
        yield messages
    finally:
        logging.getLogger().removeHandler(handler)


def read_and_compare(reader: str, path: Path, weights: dict[str, torch.Tensor]) -> list[str]:
    """Read a file that fits. The model has to have all of its weights; return the warnings."""
    with warnings_logged() as warnings:
        used = READERS[reader](path)
    for key, value in weights.items():
        if key in used and used[key].shape == value.shape:
            assert torch.equal(used[key].to(value.dtype), value), key
    return warnings


def choose(random: random.Random) -> tuple[str, str]:
    """Choose a way to read and one to write; training writes no pickles of NumPy arrays."""
    reader = random.choice(list(READERS))
    return reader, random.choice(["zip", "old"] if reader == "resume" else list(WRITERS))


def value_case(random: random.Random) -> Case:
    reader, writer = choose(random)
    values = VALUES if writer.startswith("pickle") else {**VALUES, **TORCH_VALUES}
    if writer == "safetensors":  # it has nothing but tensors of numbers
        values = NUMBERS
    fault, key = random.choice(list(values)), random.choice(KEYS)
    if fault in ("strings", "objects"):
        reader, writer = "evaluate", "pickle 2"

    def check(folder: Path) -> None:
        content = make_content()
        content["model"][key] = values[fault](content["model"][key])
        READERS[reader](WRITERS[writer](content, folder / "x"))

    return Case(f"{reader}, {writer}: {key} is {fault}", check, names=key)


# Faults of the keys, with the readers that refuse them, and what their message names.

STRICT = {"evaluate", "resume", "convert"}
KEY_FAULTS = {
    "a weight is missing": (lambda w: w.pop(KEYS[0]), STRICT, KEYS[0]),
    "statistics are missing": (
        lambda w: w.pop(KEYS[3]),
        STRICT,
        KEYS[3],
    ),
    "a weight is surplus": (
        lambda w: w.update({"tail.weight": torch.ones(2)}),
        {"evaluate", "resume"},
        "tail.weight",
    ),
    "a weight is transposed": (
        lambda w: w.update({KEYS[0]: w[KEYS[0]].transpose(0, 1).contiguous()}),
        set(READERS),
        KEYS[0],
    ),
    "a weight is wider": (
        lambda w: w.update({KEYS[1]: torch.ones(5)}),
        STRICT,
        KEYS[1],
    ),
    "a weight is a scalar": (
        lambda w: w.update({KEYS[1]: torch.tensor(1.0)}),
        STRICT,
        KEYS[1],
    ),
    "variances are negative": (
        lambda w: w.update({KEYS[4]: torch.full((4,), -1.0)}),
        set(READERS),
        KEYS[4],
    ),
    "all names are others": (
        lambda w: [w.update({f"net.{k}": w.pop(k)}) for k in list(w)],
        set(READERS),
        r"net\.backbone",
    ),
    "only a counter fits": (
        lambda w: [w.pop(k) for k in list(w) if "num_batches" not in k],
        set(READERS),
        r"x\.|model_0000003|num_batches_tracked",
    ),
    "names are MMDetection's": (
        lambda w: [w.pop(k) for k in list(w)] and w.update({"neck.convs.0.weight": torch.ones(2)}),
        set(READERS),
        r"convert_checkpoint.py --from mmdet|neck\.convs",
    ),
    "there are no weights": (lambda w: w.clear(), set(READERS), r"x\.|model_0000003"),
}


def key_case(random: random.Random) -> Case:
    reader, writer = choose(random)
    fault = random.choice(list(KEY_FAULTS))
    change, refusing, names = KEY_FAULTS[fault]

    def check(folder: Path) -> None:
        content = make_content()
        change(content["model"])
        path = WRITERS[writer](content, folder / "x")
        warnings = read_and_compare(reader, path, content["model"])
        assert re.search(names, "\n".join(warnings)), warnings

    why = "what fits is used by a training that starts, and converted; a warning names the others"
    if reader in refusing:
        return Case(f"{reader}, {writer}: {fault}", check, names=names)
    return Case(f"{reader}, {writer}: {fault}", check, names=None, why=why)


def bytes_case(random: random.Random) -> Case:
    (reader, writer), fault = choose(random), random.choice(list(BYTES))
    place = random.random()
    if fault == "overwritten" or (fault == "flipped" and writer != "zip" and reader == "resume"):
        writer = "zip"  # the others have no checksums
    if fault == "flipped" and writer != "zip":
        return flipped_case(reader, random.choice(["old", "safetensors", "pickle 5"]))

    def check(folder: Path) -> None:
        path = WRITERS[writer](make_content(), folder / "x")
        path.write_bytes(BYTES[fault](path.read_bytes(), place))
        READERS[reader](path)

    return Case(f"{reader}, {writer}: {fault} at {place:.2f}", check, r"x\.(p|s)|model_0000003")


def flipped_case(reader: str, writer: str) -> Case:
    def check(folder: Path) -> None:
        content = make_content()
        path = WRITERS[writer](content, folder / "x")
        path.write_bytes(flip_last_place(path.read_bytes(), content["model"][KEYS[0]]))
        READERS[reader](path)

    why = (
        "files without checksums (.pkl, .safetensors, .pth from before PyTorch 1.6): a flipped bit "
        "that leaves a plausible number is not seen (docs/checkpoints.md)"
    )
    return Case(f"{reader}, {writer}: flipped", check, names=None, why=why)


def file_case(random: random.Random) -> Case:
    reader, fault = random.choice(["evaluate", "start", "convert"]), random.choice(list(FILES))
    return Case(
        f"{reader}: {fault}",
        lambda folder: READERS[reader](FILES[fault](folder)),
        names=r"x\.(pkl|pth|pyth|pt|safetensors)",
    )


# Odd files that are fine.

FINE = {
    "half precision": lambda c: c["model"].update({KEYS[0]: c["model"][KEYS[0]].half()}),
    "double precision": lambda c: c["model"].update({KEYS[0]: c["model"][KEYS[0]].double()}),
    "not contiguous": lambda c: c["model"].update(
        {KEYS[0]: torch.ones(3, 4, 3, 3).mT.transpose(0, 1)}
    ),
    "no counter": lambda c: c["model"].pop("backbone.1.num_batches_tracked"),
    "a comment": lambda c: c.update(comment="of my best run"),
}


def fine_case(random: random.Random) -> Case:
    reader, writer = choose(random)
    kind = random.choice(list(FINE))

    def check(folder: Path) -> None:
        content = make_content()
        FINE[kind](content)
        path = WRITERS[writer](content, folder / "x")
        read_and_compare(reader, path, content["model"])

    return Case(f"{reader}, {writer}: {kind}", check, names=None)


# Folders in which a training is resumed. Two checkpoints are there, of iterations 1 and 3.


def tag(text: str, folder: Path) -> None:
    (folder / "last_checkpoint").write_text(text, encoding="latin1")


def damage(name: str, fault: str, folder: Path) -> None:
    path = folder / name
    path.write_bytes(BYTES[fault](path.read_bytes(), 0.7))


def remove_state(folder: Path) -> None:
    write_zip({"model": dict(Model().state_dict())}, folder / "model_0000003.pth")


# What is changed -> the iteration that is resumed from, or what the error names.
FOLDERS = {
    **{
        f"last_checkpoint has {text[:20]!r}": (partial(tag, text), 3)
        for text in ("", "\n", "x.pth", "../x.pth", "/etc/passwd", "\1\xff", ".", "a" * 999)
    },
    "no last_checkpoint": (lambda folder: (folder / "last_checkpoint").unlink(), 3),
    "an older last_checkpoint": (partial(tag, "model_0000001.pth"), 1),
    **{f"the last is {fault}": (partial(damage, "model_0000003.pth", fault), 1) for fault in BYTES},
    "the last has no state": (remove_state, 1),
    "all are truncated": (
        lambda folder: [damage(f"model_000000{i}.pth", "truncated", folder) for i in (1, 3)],
        "model_0000001.pth.*delete",
    ),
    "a rest of a write": (lambda folder: (folder / "model_0000005.pth.part").write_bytes(b"PK"), 3),
}


def folder_case(random: random.Random) -> Case:
    fault = random.choice(list(FOLDERS))
    change, expected = FOLDERS[fault]

    def check(folder: Path) -> None:
        for iteration in (1, 3):
            content = {**make_content(), "iteration": iteration}
            write_zip(content, folder / f"model_{iteration:07d}.pth")
        tag("model_0000003.pth", folder)
        change(folder)
        assert resume_in(folder, Model()) == expected

    names = None if isinstance(expected, int) else expected
    return Case(f"resume: {fault}", check, names=names)


def start_case(random: random.Random) -> Case:
    name = random.choice(["model_final.pth", "model_0000001.pth"])

    def check(folder: Path) -> None:
        write_zip(make_content(), folder / name)
        FittingCheckpointer(Model(), str(folder), state=State()).resume_or_load("", resume=False)

    return Case(f"start beside {name}", check, names=f"{name}.*--resume")


MAKERS = {
    value_case: 30,
    key_case: 20,
    bytes_case: 20,
    file_case: 15,
    fine_case: 5,
    folder_case: 15,
    start_case: 2,
}


def make_case(random: random.Random) -> Case:
    """Return a case."""
    [make] = random.choices(list(MAKERS), list(MAKERS.values()))
    return make(random)
