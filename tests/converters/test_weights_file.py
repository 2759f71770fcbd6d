import pickle
import zipfile

import numpy as np
import pytest
import torch

from hybrid_cascade.converters import read_weights


class Opaque:
    """An object that is no tensor, as training checkpoints may have them."""


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"model": w}, lambda w: {"state_dict": w}])
def test_weights_are_found_at_the_top_or_under_their_usual_keys(tmp_path, wrap):
    torch.save(wrap({"a.weight": torch.arange(3.0)}), tmp_path / "x.pth")
    assert torch.equal(read_weights(str(tmp_path / "x.pth"))["a.weight"], torch.arange(3.0))


def test_arrays_of_a_detectron2_pickle_become_tensors(tmp_path):
    with open(tmp_path / "model.pkl", "wb") as file:
        pickle.dump({"model": {"w": np.arange(3, dtype=np.float32)}, "__author__": "x"}, file)
    assert torch.equal(read_weights(str(tmp_path / "model.pkl"))["w"], torch.arange(3.0))


@pytest.mark.parametrize("name", ["x.pth", "x.pkl"])
def test_objects_are_refused_unless_the_user_allows_them(tmp_path, name):
    path = tmp_path / name
    content = {"state_dict": {"w": torch.ones(2)}, "meta": Opaque()}
    if name.endswith(".pkl"):
        content["state_dict"]["w"] = np.ones(2)
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match="(?s)Opaque.*--unsafe-load"):
        read_weights(str(path))
    assert read_weights(str(path), unsafe=True)["w"].sum() == 2


def test_a_pickle_cannot_call_functions(tmp_path):
    (tmp_path / "evil.pkl").write_bytes(b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(ValueError, match="os.system"):
        read_weights(str(tmp_path / "evil.pkl"))


def test_an_object_of_a_missing_package_is_reported_as_such(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"state_dict": {"w": torch.ones(2)}, "meta": Opaque()}, path)
    absent = tmp_path / "absent.pth"  # the same file, with a class of a package that does not exist
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(absent, "w") as target:
        for item in source.namelist():
            data = source.read(item)
            target.writestr(
                item, data.replace(Opaque.__module__.encode(), b"x" * len(Opaque.__module__))
            )
    with pytest.raises(ValueError, match="not installed here"):
        read_weights(str(absent), unsafe=True)


@pytest.mark.parametrize("keep", [0.5, 0.98])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_is_reported_as_truncated(tmp_path, keep, zipped):
    path = tmp_path / "x.pth"
    torch.save({"w": torch.ones(1000)}, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match="x.pth is truncated or damaged"):
        read_weights(str(path))


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"version https://git-lfs"])
def test_a_file_that_is_no_checkpoint_is_reported_as_such(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ValueError, match="is not a checkpoint"):
        read_weights(str(tmp_path / "x.pth"))


def test_the_error_for_a_file_without_weights_lists_its_keys(tmp_path):
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="holds no weights.*epoch"):
        read_weights(str(tmp_path / "x.pth"))


def test_a_missing_file_is_an_error():
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        read_weights("nowhere.pth")


@pytest.mark.parametrize("kind", ["x.pth", "x.npz"])
def test_other_zip_archives_are_named(tmp_path, kind):
    if kind == "x.npz":
        np.savez(tmp_path / kind, w=np.ones(3))
    else:
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / kind))
    expected = "another zip archive" if kind == "x.npz" else "a TorchScript program"
    with pytest.raises(ValueError, match=f"{kind} is not a checkpoint, but {expected}"):
        read_weights(str(tmp_path / kind))


def test_values_that_are_no_tensors_are_an_error_among_weights_only(tmp_path):
    torch.save({"a.weight": torch.ones(2), "epoch": 3}, tmp_path / "x.pth")
    assert list(read_weights(str(tmp_path / "x.pth"))) == ["a.weight"]
    torch.save({"a.weight": torch.ones(2), "a.bias": [0.0]}, tmp_path / "y.pth")
    with pytest.raises(ValueError, match=r"y.pth: 'a.bias' is a list, not a tensor"):
        read_weights(str(tmp_path / "y.pth"))


def test_arrays_of_the_other_byte_order_are_read(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": {"w": np.arange(3, dtype=">f4")}}))
    assert torch.equal(read_weights(str(tmp_path / "x.pkl"))["w"], torch.arange(3.0))
