"""Reading Caffe's files. The conversion of their layers is in test_caffe.py."""

import struct
import sys

import pytest
import torch

from hybrid_cascade.converters import read_caffemodel
from tests.caffemodel_writer import blob, caffemodel, field, varint

TENSORS = {
    "conv1_1.weight": torch.randn(4, 3, 3, 3),
    "conv1_1.bias": torch.randn(4),
    # Longer than 127 bytes, the longest length of one byte.
    "fc6.weight": torch.randn(5, 300),
    "fc6.bias": torch.randn(5),
    "scale.weight": torch.randn(7),
    "scale.bias": torch.randn(7),
    "scale.2": torch.randn(1),
}


def write(path, content):
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize("old", [False, True], ids=["layer", "layers"])
def test_old_and_new_layers_and_shapes_are_read_to_the_last_bit(tmp_path, old):
    tensors = read_caffemodel(write(tmp_path / "a.caffemodel", caffemodel(TENSORS, old)))
    assert list(tensors) == list(TENSORS)
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_fields_of_other_kinds_are_skipped_and_numbers_need_not_be_packed(tmp_path):
    unpacked = b"".join(varint(5 << 3 | 5) + struct.pack("<f", x) for x in (1.5, -2.0))
    layer = (
        field(1, b"fc")
        + varint(50 << 3 | 1)
        + bytes(8)
        + field(7, unpacked + field(7, b"\x08\x02"))
    )
    (tensor,) = read_caffemodel(write(tmp_path / "a", field(100, layer))).values()
    assert tensor.tolist() == [1.5, -2.0]


@pytest.mark.parametrize("end", [-1, -40, 60, 7, 100])
def test_truncated_files_are_refused(tmp_path, end):
    # The last layer, a ReLU, is the last nine bytes.
    content = caffemodel(TENSORS)[:end]
    with pytest.raises(ValueError, match="a.caffemodel (is truncated|has no layer)"):
        read_caffemodel(write(tmp_path / "a.caffemodel", content))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04" + bytes(60),
        b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>",
        field(1, b"a message without layers"),
        field(100, 7),
        field(100, field(1, b"\xff\xfe") + field(7, blob(torch.zeros(2).numpy(), old=False))),
    ],
    ids=["empty", "zip", "page", "no layers", "layer is a number", "name"],
)
def test_files_of_other_formats_are_refused(tmp_path, content):
    with pytest.raises(ValueError, match="b.caffemodel (is truncated|has no layer).*caffemodel"):
        read_caffemodel(write(tmp_path / "b.caffemodel", content))


def test_a_number_of_more_than_64_bits_is_refused(tmp_path):
    with pytest.raises(ValueError, match="truncated, or no .caffemodel: .* more than ten bytes"):
        read_caffemodel(write(tmp_path / "a.caffemodel", b"\xff" * 20))


def test_a_shape_that_does_not_fit_the_numbers_is_refused(tmp_path):
    data = field(5, bytes(4 * 6)) + field(7, field(1, varint(2) + varint(4)))
    layer = field(1, b"fc6") + field(7, data)
    with pytest.raises(ValueError, match=r"fc6.weight has 6 numbers for the shape \(2, 4\)"):
        read_caffemodel(write(tmp_path / "a.caffemodel", field(100, layer)))


def test_a_missing_file_is_reported():
    with pytest.raises(FileNotFoundError, match="none.caffemodel"):
        read_caffemodel("none.caffemodel")


class TestHDF5:
    @pytest.fixture
    def path(self, tmp_path):
        h5py = pytest.importorskip("h5py")
        path = str(tmp_path / "a.caffemodel.h5")
        with h5py.File(path, "w") as file:
            for name, tensor in TENSORS.items():
                layer, _, what = name.rpartition(".")
                index = {"weight": "0", "bias": "1"}.get(what, what)
                file[f"data/{layer}/{index}"] = tensor.numpy()
            # A layer whose parameters another one owns, and one with a slash in its name.
            file.create_group("data/fc6_ext")
            file["data/rpn_conv/3x3/0"] = TENSORS["fc6.weight"].numpy()
        return path

    def test_parameters_are_read_to_the_last_bit(self, path):
        tensors = read_caffemodel(path)
        assert torch.equal(tensors.pop("rpn_conv/3x3.weight"), TENSORS["fc6.weight"])
        assert set(tensors) == set(TENSORS)
        assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)

    def test_truncated_files_are_refused(self, path):
        with open(path, "r+b") as file:
            file.truncate(3000)
        with pytest.raises(ValueError, match="truncated, or HDF5 but not of Caffe"):
            read_caffemodel(path)

    def test_files_of_other_programs_are_refused(self, path):
        import h5py

        with h5py.File(path, "a") as file:
            file.move("data", "model_weights")
        with pytest.raises(ValueError, match="truncated, or HDF5 but not of Caffe"):
            read_caffemodel(path)


def test_without_h5py_an_hdf5_file_is_refused_with_advice(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    path = write(tmp_path / "a.caffemodel.h5", b"\x89HDF\r\n\x1a\n" + bytes(90))
    with pytest.raises(ValueError, match="HDF5.*pip install h5py"):
        read_caffemodel(path)
