import io
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from hybrid_cascade.converters.safe_pickle import RefusedObjectError, load_arrays

CONTENT = OrderedDict(
    w=np.arange(6, dtype=np.float32).reshape(2, 3),
    columns=np.arange(6.0).reshape(2, 3).T,
    n=np.int64(3),
    names=["a", ("b", {1, 2}), None, True, 1.5],
)


def load(data):
    return load_arrays(io.BytesIO(data))


def assert_same(loaded):
    for key in ("w", "columns", "n"):
        np.testing.assert_array_equal(loaded[key], CONTENT[key])
    assert loaded["names"] == CONTENT["names"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_plain_containers_are_read(protocol):
    assert_same(load(pickle.dumps(CONTENT, protocol)))


def test_arrays_of_the_other_numpy_are_read():
    data = pickle.dumps(CONTENT, 2)
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    assert (old in data) != (new in data)
    assert_same(load(data.replace(new, old) if new in data else data.replace(old, new)))


def test_strings_of_python_2_are_read_as_latin_1():
    assert load(b"\x80\x02U\x02\xe9a.") == "\xe9a"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\x80\x02cos\nsystem\nU\x04true\x85R.", "os.system"),
        (b"\x80\x02c__builtin__\neval\nU\x011\x85R.", "__builtin__.eval"),
        (b"\x80\x02cnumpy\nload\nU\x01x\x85R.", "numpy.load"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0ccore.getattr\x93.", "numpy.core.getattr"),
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.", "hex"),
        (b"\x80\x02U\x01xQ.", "persistent object 'x'"),
    ],
)
def test_all_else_is_refused_by_name(data, name):
    with pytest.raises(RefusedObjectError, match=name):
        load(data)
