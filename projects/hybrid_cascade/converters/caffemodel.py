"""Read the parameters of a network that Caffe has saved: a .caffemodel or a .caffemodel.h5 file.

A .caffemodel is a protobuf message. These messages and fields, with their numbers in caffe.proto,
contain the parameters:

    NetParameter       2: layers (V1LayerParameter), older files; 100: layer (LayerParameter)
    V1LayerParameter   4: name, 6: blobs (BlobProto)
    LayerParameter     1: name, 7: blobs (BlobProto)
    BlobProto          1, 2, 3, 4: num, channels, height, width, older files; 5: data; 7: shape

A message is a sequence of fields. Each starts with a variable-length integer, which is eight times
the number of the field plus the kind of its value.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

_HDF5 = b"\x89HDF\r\n\x1a\n"
# Number of the layers in NetParameter -> numbers of a layer's name and blobs.
_LAYERS = {2: (4, 6), 100: (1, 7)}


def read_caffemodel(path: str) -> dict[str, torch.Tensor]:
    """Return the parameters of all layers by name, float32 tensors on the CPU.

    The first blob of the layer "fc6" is "fc6.weight", the second "fc6.bias", others "fc6.2" and so
    on. In older files every blob has four dimensions; leading dimensions of size 1 are dropped:
    (1, 1, outputs, inputs) is a fully connected layer, and (1, 1, 1, outputs) a bias.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or not of Caffe, or if it is HDF5 and h5py is missing.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no file {path!r}")
    with open(path, "rb") as file:
        is_hdf5 = file.read(len(_HDF5)) == _HDF5
    tensors = _read_hdf5(path) if is_hdf5 else _read_protobuf(path)
    if not tensors:
        raise ValueError(f"{path} has no layer with parameters: no .caffemodel, or truncated")
    return tensors


def _parameter_name(layer: str, index: int) -> str:
    return f"{layer}.{('weight', 'bias')[index] if index < 2 else index}"


def _read_hdf5(path: str) -> dict[str, torch.Tensor]:
    try:
        import h5py
    except ImportError as error:
        raise ValueError(
            f"{path} is an HDF5 file, as MNC's published weights are. To read it: pip install h5py"
        ) from error
    tensors = {}

    def add(name: str, item: "h5py.Group | h5py.Dataset") -> None:
        # Blob 0 of layer "fc6" is data/fc6/0. A layer without parameters is an empty group.
        if isinstance(item, h5py.Dataset):
            layer, _, index = name.rpartition("/")
            values = np.asarray(item, dtype=np.float32)
            tensors[_parameter_name(layer, int(index))] = torch.from_numpy(values)

    try:
        with h5py.File(path, "r") as file:
            file["data"].visititems(add)
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f"{path} is truncated, or HDF5 but not of Caffe: {error}") from error
    return tensors


def _read_protobuf(path: str) -> dict[str, torch.Tensor]:
    tensors = {}
    try:
        for number, layer in _read_fields(memoryview(Path(path).read_bytes())):
            if number not in _LAYERS:
                continue
            name_number, blobs_number = _LAYERS[number]
            name, blobs = "", []
            for number_in_layer, value in _read_fields(layer):
                if number_in_layer == name_number:
                    name = bytes(value).decode()
                elif number_in_layer == blobs_number:
                    blobs.append(value)
            for index, blob in enumerate(blobs):
                parameter = _parameter_name(name, index)
                tensors[parameter] = _read_blob(blob, parameter)
    # TypeError: in another message, fields of these numbers have other types.
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is truncated, or no .caffemodel: {error}") from error
    return tensors


def _read_blob(blob: memoryview, name: str) -> torch.Tensor:
    shape, old_shape, chunks = None, [1, 1, 1, 1], []
    for number, value in _read_fields(blob):
        if number in (1, 2, 3, 4):
            old_shape[number - 1] = value
        elif number == 5:
            chunks.append(value)
        elif number == 7:
            shape = [
                dim
                for field, dims in _read_fields(value)
                if field == 1
                for dim in _read_integers(dims)
            ]
    if shape is None:
        shape = old_shape
        shape = shape[3:] if shape[:3] == [1, 1, 1] else shape[2:] if shape[:2] == [1, 1] else shape
    values = np.frombuffer(chunks[0] if len(chunks) == 1 else b"".join(chunks), dtype="<f4")
    if len(values) != math.prod(shape):
        raise ValueError(f"{name} has {len(values)} numbers for the shape {tuple(shape)}")
    return torch.from_numpy(values.reshape(shape).astype(np.float32))


def _read_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and the value, an integer or bytes, of each field of a message."""
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, position = _read_varint(message, position)
            yield number, value
            continue
        if kind == 2:
            size, position = _read_varint(message, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        if position + size > len(message):
            raise ValueError(f"a field of {size} bytes where {len(message) - position} are left")
        yield number, message[position : position + size]
        position += size


def _read_integers(value: int | memoryview) -> Iterator[int]:
    """Yield the numbers of a repeated integer field, which come one by one or packed as bytes."""
    if isinstance(value, int):
        yield value
        return
    position = 0
    while position < len(value):
        number, position = _read_varint(value, position)
        yield number


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return the variable-length integer at a position, and the position where it ends.

    Each byte has seven bits of the number, the lowest first, and a bit that says whether another
    byte follows.
    """
    number = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("it ends within a number")
        byte = message[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise ValueError("a number of more than ten bytes")
