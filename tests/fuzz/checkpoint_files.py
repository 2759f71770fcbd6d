"""What generated checkpoints are made of: a model, ways to write and to read, faults."""

import json
import logging
import os
import pickle
import random
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from hybrid_cascade.converters import DETECTRON2, convert
from hybrid_cascade.engine import FittingCheckpointer, load_weights

from .case import CANARY

logger = logging.getLogger(__name__)

KEYS = [
    "backbone.0.weight",
    "backbone.1.weight",
    "backbone.1.bias",
    "backbone.1.running_mean",
    "backbone.1.running_var",
]


class Model(nn.Module):
    """A model with what checkpoints are about: a convolution, a norm with statistics, a head."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 6)


class State:
    """What a training saves beside weights."""

    def state_dict(self) -> dict:
        return {"lr": 0.1}

    def load_state_dict(self, state: dict) -> None:
        assert state == self.state_dict()


def make_content() -> dict:
    return {"model": dict(Model().state_dict()), "state": State().state_dict(), "iteration": 3}


# How a file is read. Each returns the weights that the model then has.


def evaluate(path: Path) -> dict[str, torch.Tensor]:
    model = Model()
    load_weights(model, str(path))
    return model.state_dict()


def start(path: Path) -> dict[str, torch.Tensor]:
    model = Model()
    FittingCheckpointer(model).load(str(path), checkpointables=[])
    return model.state_dict()


def resume(path: Path) -> dict[str, torch.Tensor]:
    path.rename(path.parent / "model_0000003.pth")
    (path.parent / "last_checkpoint").write_text("model_0000003.pth")
    model = Model()
    assert resume_in(path.parent, model) == 3
    return model.state_dict()


def resume_in(folder: Path, model: nn.Module) -> int:
    checkpointer = FittingCheckpointer(model, str(folder), state=State())
    return checkpointer.resume_or_load("", resume=True)["iteration"]


def convert_backbone(path: Path) -> dict[str, torch.Tensor]:
    target = {k: v for k, v in Model().state_dict().items() if k.startswith("backbone")}
    result = convert(DETECTRON2, DETECTRON2.read(str(path), False), target)
    for name, reason in result.left.items():
        logger.warning("%s is left: %s", name, reason)
    return result.state_dict


READERS = {"evaluate": evaluate, "start": start, "resume": resume, "convert": convert_backbone}


# How a file is written.


def write_zip(content: dict, path: Path) -> Path:
    torch.save(content, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def write_old(content: dict, path: Path) -> Path:
    torch.save(content, path.with_suffix(".pth"), _use_new_zipfile_serialization=False)
    return path.with_suffix(".pth")


def write_pickle(content: dict, path: Path, protocol: int = 2) -> Path:
    weights = content["model"]
    if isinstance(weights, dict):
        weights = {k: v.numpy() if torch.is_tensor(v) else v for k, v in weights.items()}
    content = {"__author__": "me", **content, "model": weights}
    path.with_suffix(".pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    return path.with_suffix(".pkl")


def write_safetensors(content: dict, path: Path) -> Path:
    weights = {k: v.contiguous() for k, v in content["model"].items()}
    save_file(weights, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


WRITERS = {
    "zip": write_zip,
    "old": write_old,
    "safetensors": write_safetensors,
    **{f"pickle {p}": partial(write_pickle, protocol=p) for p in range(6)},
}


# Faults of one value.


def put(number: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[torch.randint(tensor.numel(), ())] = number
        return tensor

    return change


NUMBERS = {
    "NaN": put(float("nan")),
    "infinite": put(float("inf")),
    "minus infinite": put(float("-inf")),
    "too large for float32": lambda t: t.double() + 1e300,
    "integers": lambda t: t.int(),
    "unsigned bytes": lambda t: t.byte(),
    "booleans": lambda t: t > 0,
    "complex": lambda t: t + 1j,
}
VALUES = {
    **NUMBERS,
    "a list": lambda t: t.tolist(),
    "a string": lambda t: "weights",
    "None": lambda t: None,
    "a number": lambda t: 0.5,
    "a dict": lambda t: {"data": t.tolist()},
    "strings": lambda t: np.array(["a", "b"]),
    "objects": lambda t: np.array([None, "b"], dtype=object),
}
TORCH_VALUES = {
    "sparse": lambda t: t.to_sparse(),
    "quantized": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    "without values": lambda t: t.to("meta"),
}


# Faults of the bytes.


def truncate(data: bytes, place: float) -> bytes:
    return data[: int(len(data) * place)]


def flip(data: bytes, place: float) -> bytes:
    """Change a bit of a weight: those of the first follow the name of their entry."""
    changed = bytearray(data)
    changed[data.index(b"/data/0") + 64 + int(place * 300)] ^= 4
    return bytes(changed)


def flip_last_place(data: bytes, weight: torch.Tensor) -> bytes:
    """Change the bit of least value of a weight's first number."""
    changed = bytearray(data)
    changed[data.index(weight.numpy().tobytes())] ^= 1
    return bytes(changed)


def overwrite(data: bytes, place: float) -> bytes:
    """Put zeros in the place of a block, as a crash of the machine does."""
    first = int(len(data) * place * 0.9)
    return data[:first] + bytes(len(data) // 10) + data[first + len(data) // 10 :]


BYTES = {
    "truncated": truncate,
    "flipped": flip,
    "zeros": lambda data, place: bytes(len(data)),
    "overwritten": overwrite,
    "empty": lambda data, place: b"",
    "a page": lambda data, place: b"<html><body>404 Not Found</body></html>",
    "a pointer of LFS": lambda data, place: b"version https://git-lfs.github.com/spec/v1\n",
    "text": lambda data, place: b"backbone: 1.0\n" * 9,
    "noise": lambda data, place: random.Random(place).randbytes(999),
    "a picture": lambda data, place: b"\x89PNG\r\n\x1a\n" + bytes(99),
}


# Files that run code, or are of another kind.


class Bomb:
    """An object whose creation writes a file."""

    def __init__(self, folder: Path):
        self.command = f"touch {folder / CANARY}"

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


def write_bomb(folder: Path, suffix: str, old: bool) -> Path:
    path = folder / f"x{suffix}"
    content = {**make_content(), "meta": Bomb(folder)}
    if suffix in (".pkl", ".safetensors"):
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=not old)
    return path


def write_plain_bomb(folder: Path) -> Path:
    (folder / "x.pth").write_bytes(pickle.dumps(Bomb(folder)))
    return folder / "x.pth"


_CODEC = b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R."


def write_codec(folder: Path) -> Path:
    (folder / "x.pkl").write_bytes(_CODEC)
    return folder / "x.pkl"


def write_attribute(folder: Path) -> Path:
    (folder / "x.pkl").write_bytes(b"\x80\x04cnumpy\nload\nX\x05\x00\x00\x00x.npy\x85R.")
    return folder / "x.pkl"


def write_shape(folder: Path, shape: tuple[int, ...]) -> Path:
    """Write a pickle that asks for an array of so many numbers, and has none of them."""
    sides = b"".join(b"\x8a\x08" + n.to_bytes(8, "little") for n in shape)
    array = b"cnumpy\nndarray\n(" + sides + b"tX\x02\x00\x00\x00f8\x86R"
    (folder / "x.pkl").write_bytes(b"\x80\x02}X\x05\x00\x00\x00a.b.c" + array + b"s.")
    return folder / "x.pkl"


def write_nested(folder: Path) -> Path:
    (folder / "x.pkl").write_bytes(b"\x80\x02" + b"(" * 10**5 + b"l" * 10**5 + b".")
    return folder / "x.pkl"


def write_header(folder: Path, header: bytes, length: int | None = None) -> Path:
    """Write a file of safetensors with a header, and its length or another one."""
    start = (len(header) if length is None else length).to_bytes(8, "little")
    (folder / "x.safetensors").write_bytes(start + header + bytes(64))
    return folder / "x.safetensors"


def tensor_header(*offsets: int, dtype: str = "F32", name: str = "backbone.1.bias") -> bytes:
    return json.dumps({name: {"dtype": dtype, "shape": [4], "data_offsets": offsets}}).encode()


def write_program(folder: Path) -> Path:
    torch.jit.script(nn.Linear(2, 2)).save(str(folder / "x.pth"))
    return folder / "x.pth"


def write_arrays(folder: Path) -> Path:
    np.savez(folder / "x.npz", weight=np.ones(3))
    return (folder / "x.npz").rename(folder / "x.pth")


def write_tar(folder: Path) -> Path:
    with tarfile.open(folder / "x.pth", "w") as archive:
        archive.add(__file__)
    return folder / "x.pth"


def write_folder(folder: Path) -> Path:
    (folder / "x.pth").mkdir()
    return folder / "x.pth"


def write_object(folder: Path, content: object) -> Path:
    torch.save(content, folder / "x.pth")
    return folder / "x.pth"


FILES = {
    **{
        f"code in {suffix}{' (old)' * old}": partial(write_bomb, suffix=suffix, old=old)
        for suffix in (".pkl", ".pth", ".pyth", ".pt", ".safetensors")
        for old in (False, True)
    },
    "code alone": write_plain_bomb,
    "a codec": write_codec,
    "a function of NumPy": write_attribute,
    "an array of 2^50 numbers": partial(write_shape, shape=(2**25, 2**25)),
    "an array of 2^70 numbers": partial(write_shape, shape=(2**35, 2**35)),
    "lists in lists": write_nested,
    "a header of 2^60 bytes": partial(write_header, header=b"{}", length=2**60),
    "a header that is none": partial(write_header, header=b"[1, 2]"),
    "a header cut short": partial(write_header, header=b'{"a": {"dtype"'),
    "offsets beyond the end": partial(write_header, header=tensor_header(0, 2**40)),
    "offsets backwards": partial(write_header, header=tensor_header(16, 0)),
    "fewer bytes than numbers": partial(write_header, header=tensor_header(0, 4)),
    "a type that is none": partial(write_header, header=tensor_header(0, 16, dtype="P8")),
    "a program": write_program,
    "arrays of NumPy": write_arrays,
    "a tar archive": write_tar,
    "a folder": write_folder,
    "no file": lambda folder: folder / "x.pth",
    "a list": partial(write_object, content=[torch.ones(2)]),
    "a tensor": partial(write_object, content=torch.ones(2)),
    "numbers": partial(write_object, content={"epoch": 3}),
    "a list of weights": partial(write_object, content={"model": [torch.ones(2)]}),
    "a whole model": lambda folder: write_object(folder, {"model": Model()}),
}
