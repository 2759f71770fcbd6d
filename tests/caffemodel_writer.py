"""Write .caffemodel files byte by byte, as protobuf does."""

import numpy as np


def varint(number):
    data = bytearray()
    while number >= 0x80:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*data, number])


def field(number, value):
    """Encode an integer (kind 0), or bytes with their length before them (kind 2)."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(array, old):
    data = field(5, np.asarray(array, dtype="<f4").tobytes())
    if not old:
        return data + field(7, field(1, b"".join(varint(side) for side in array.shape)))
    shape = (1,) * (4 - array.ndim) + array.shape
    return b"".join(field(number, side) for number, side in enumerate(shape, start=1)) + data


def caffemodel(tensors, old=False):
    """Return the bytes of a file with these tensors, "fc6.weight" before "fc6.bias".

    With `old`, it has the messages that Caffe wrote until 2014.
    """
    layers = {}
    for name, tensor in tensors.items():
        layers.setdefault(name.rpartition(".")[0], []).append(tensor.numpy())
    message = field(1, b"net")
    for name, arrays in layers.items():
        kind = field(5, 4) if old else field(2, b"Convolution")
        parts = [field(4 if old else 1, name.encode()), kind]
        parts += [field(6 if old else 7, blob(array, old)) for array in arrays]
        message += field(2 if old else 100, b"".join(parts))
    return message + field(2 if old else 100, field(4 if old else 1, b"relu"))
