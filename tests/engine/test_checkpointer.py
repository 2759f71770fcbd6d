import pickle
import re
import sys

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from hybrid_cascade.engine import FittingCheckpointer, load_weights


def model(width=4):
    return nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2))


def save(path, state):
    torch.save({"model": state}, path)
    return str(path)


def test_weights_that_fit_are_loaded(tmp_path):
    source, target = model(), model()
    load_weights(target, save(tmp_path / "a.pth", source.state_dict()))
    assert torch.equal(target[0].weight, source[0].weight)


def test_weights_of_another_shape_are_an_error_that_names_file_and_key(tmp_path):
    path = save(tmp_path / "wide.pth", model(5).state_dict())
    with pytest.raises(ValueError, match=r"wide.pth.*0.weight \(5, 3\) instead of \(4, 3\)"):
        load_weights(model(), path)


def test_missing_weights_are_an_error_that_names_them(tmp_path):
    state = model().state_dict()
    del state["1.bias"]
    with pytest.raises(ValueError, match="part.pth.*missing: 1.bias"):
        load_weights(model(), save(tmp_path / "part.pth", state))


def test_surplus_weights_are_an_error_that_names_them(tmp_path):
    deeper = nn.Sequential(*model(), nn.Linear(2, 2))
    path = save(tmp_path / "deeper.pth", deeper.state_dict())
    with pytest.raises(ValueError, match="deeper.pth.*not in the model: 2.weight, 2.bias"):
        load_weights(model(), path)
    FittingCheckpointer(model()).load(path)  # a training may start from them


def test_the_weights_of_a_deeper_backbone_are_an_error(tmp_path, tiny_config):
    config = tiny_config("mask_rcnn_toy").backbone
    shallow = instantiate(config)
    config.bottom_up.stages.depth = 34
    path = save(tmp_path / "r34.pth", instantiate(config).state_dict())
    with pytest.raises(ValueError, match=r"r34.pth.*not in the model: bottom_up.res"):
        load_weights(shallow, path)


def test_a_semantic_branch_that_the_model_lacks_is_an_error(tmp_path, tiny_config):
    with_branch = instantiate(tiny_config("mask_rcnn_sfpn_toy"))
    path = save(tmp_path / "sfpn.pth", with_branch.state_dict())
    with pytest.raises(ValueError, match="sfpn.pth.*not in the model: semantic_branch"):
        load_weights(instantiate(tiny_config("mask_rcnn_toy")), path)


def test_counters_and_what_old_checkpoints_of_detectron2_have_may_be_surplus(tmp_path, tiny_config):
    target = instantiate(tiny_config("mask_rcnn_toy"))
    state = target.state_dict()
    state["backbone.bottom_up.stem.conv1.norm.num_batches_tracked"] = torch.tensor(7)
    state["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    state["pixel_mean"], state["pixel_std"] = target.pixel_mean, target.pixel_std
    load_weights(target, save(tmp_path / "old.pth", dict(state)))
    # Detectron2's model zoo has arrays.
    arrays = {key: value.numpy() for key, value in state.items()}
    content = {"model": arrays, "__author__": "Detectron2"}
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps(content))
    load_weights(target, str(tmp_path / "zoo.pkl"))
    # Weights that were trained with other pixels would detect something else.
    state["pixel_mean"] = target.pixel_mean.flip(0)
    with pytest.raises(ValueError, match="other.pth.*other values than the config's: pixel_mean;"):
        load_weights(target, save(tmp_path / "other.pth", dict(state)))


def test_a_training_may_start_from_some_of_the_weights(tmp_path):
    source, target = model(), model()
    state = source.state_dict()
    del state["1.bias"]
    FittingCheckpointer(target).load(save(tmp_path / "part.pth", state))
    assert torch.equal(target[0].weight, source[0].weight)


def test_a_training_does_not_start_from_weights_of_which_none_fit(tmp_path):
    path = save(tmp_path / "foreign.pth", {"layer1.conv.weight": torch.zeros(3)})
    with pytest.raises(ValueError, match="Nothing in .*foreign.pth.*layer1.conv.weight"):
        FittingCheckpointer(model()).load(path)


def test_what_a_run_resumes_from_must_fit_entirely(tmp_path):
    FittingCheckpointer(model(5), str(tmp_path)).save("model_0000001")
    with pytest.raises(ValueError, match="model_0000001.pth.*wrong shapes"):
        FittingCheckpointer(model(), str(tmp_path)).resume_or_load("", resume=True)


def test_what_a_run_resumes_from_has_nothing_that_the_model_lacks(tmp_path):
    deeper = nn.Sequential(*model(), nn.Linear(2, 2))
    FittingCheckpointer(deeper, str(tmp_path)).save("model_0000001")
    with pytest.raises(ValueError, match="model_0000001.pth.*not in the model: 2.weight"):
        FittingCheckpointer(model(), str(tmp_path)).resume_or_load("", resume=True)


def test_resuming_does_not_make_later_loads_strict(tmp_path):
    checkpointer = FittingCheckpointer(model(), str(tmp_path))
    checkpointer.save("model_0000001", iteration=1)
    assert checkpointer.resume_or_load("", resume=True)["iteration"] == 1
    part = {"0.weight": torch.zeros(4, 3)}
    checkpointer.load(save(tmp_path / "part.pth", part))
    assert torch.equal(checkpointer.model[0].weight, part["0.weight"])


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 half a zip file"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, content):
    (tmp_path / "damaged.pth").write_bytes(content)
    with pytest.raises(ValueError, match="damaged.pth.* can't be read"):
        load_weights(model(), str(tmp_path / "damaged.pth"))


def test_a_missing_file_is_an_error_that_names_file_and_key():
    with pytest.raises(FileNotFoundError, match=r"'nowhere.pth' \(train.init_checkpoint or MODEL"):
        FittingCheckpointer(model()).load("nowhere.pth")


def test_evaluation_without_weights_is_refused():
    with pytest.raises(ValueError, match="No weights given"):
        load_weights(model(), "")


class Opener:
    """An object whose creation writes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("name", ["x.pkl", "x.pth", "old.pth", "x.pyth", "x.safetensors"])
def test_no_file_runs_code(tmp_path, name):
    path = tmp_path / name
    content = {"model": model().state_dict(), "__author__": Opener(tmp_path / "executed")}
    if name in ("x.pkl", "x.safetensors"):
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=name != "old.pth")
    with pytest.raises(ValueError, match=name):
        FittingCheckpointer(model()).load(str(path))
    assert not (tmp_path / "executed").exists()


def test_a_file_with_objects_says_what_to_do_if_it_is_trusted(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": {}, "meta": Opener(tmp_path / "y")}))
    with pytest.raises(ValueError, match=r"open\).* --unsafe-load .*torch.save"):
        FittingCheckpointer(model()).load(str(tmp_path / "x.pkl"))


def test_weights_of_caffe2_are_read_and_have_no_statistics(tmp_path, tiny_config):
    stem = instantiate(tiny_config("mask_rcnn_toy").backbone.bottom_up.stem)
    net = nn.ModuleDict({"stem": stem})
    shape = stem.conv1.weight.shape
    blobs = {
        "conv1_w": np.ones(shape, np.float32),
        "res_conv1_bn_s": np.full(shape[0], 2, np.float32),
        "res_conv1_bn_b": np.full(shape[0], 3, np.float32),
        "conv1_w_momentum": np.zeros(shape, np.float32),
    }
    (tmp_path / "R.pkl").write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    load_weights(net, str(tmp_path / "R.pkl"))
    assert (stem.conv1.weight == 1).all() and (stem.conv1.norm.bias == 3).all()


def test_statistics_that_frozen_norms_fill_in_are_missing(tmp_path, caplog):
    net = nn.Sequential(nn.Conv2d(3, 4, 1), FrozenBatchNorm2d(4))
    state = dict(net.state_dict())
    del state["1.running_var"]
    path = save(tmp_path / "part.pth", state)
    with pytest.raises(ValueError, match=r"part.pth.*missing: 1.running_var;"):
        load_weights(net, path)
    FittingCheckpointer(net).load(path)
    assert "1.running_var" in caplog.text


def test_a_file_of_which_nothing_is_used_is_an_error_where_norms_fill_themselves_in(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 1), FrozenBatchNorm2d(4))
    path = save(tmp_path / "foreign.pth", {"layer.weight": torch.zeros(3)})
    with pytest.raises(ValueError, match="Nothing in .*foreign.pth.*layer.weight"):
        FittingCheckpointer(net).load(path)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.fill_(float("nan")), "0.weight is NaN at 12 of 12 places"),
        (lambda w: w / 0, "0.weight is (NaN|infinite)"),
        (lambda w: w.double() + 1e200, "0.weight is infinite"),
        (lambda w: w.int(), "0.weight has values of torch.int32, not floating-point"),
        (lambda w: w + 1j, "0.weight has values of torch.complex64"),
        (lambda w: w.tolist(), "'0.weight' is a list, not a tensor"),
        (lambda w: "weights", "'0.weight' is a str, not a tensor"),
        (lambda w: w.to_sparse(), "0.weight is sparse"),
        (lambda w: w.t().contiguous(), r"transposed.*0.weight \(3, 4\) instead of \(4, 3\)"),
    ],
)
def test_values_that_are_no_weights_are_an_error_that_names_file_and_key(tmp_path, change, message):
    state = dict(model().state_dict())
    state["0.weight"] = change(state["0.weight"])
    path = save(tmp_path / "odd.pth", state)
    with pytest.raises(ValueError, match=f"odd.pth.*{message}"):
        FittingCheckpointer(model()).load(path)


def test_a_flipped_bit_is_an_error(tmp_path):
    source = model()
    path = tmp_path / "x.pth"
    save(path, source.state_dict())
    content = bytearray(path.read_bytes())
    content[content.index(source[0].weight.detach().numpy().tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="x.pth.* is damaged: the checksum of"):
        load_weights(model(), str(path))


def test_a_file_of_mmdetection_names_the_command_that_converts_it(tmp_path):
    state = {"state_dict": {"neck.lateral_convs.0.conv.weight": torch.ones(2)}, "meta": {}}
    torch.save(state, tmp_path / "mm.pth")
    for load in (load_weights, lambda net, path: FittingCheckpointer(net).load(path)):
        with pytest.raises(ValueError, match="mm.pth.*convert_checkpoint.py --from mmdet"):
            load(model(), str(tmp_path / "mm.pth"))


def test_a_failed_load_does_not_disturb_the_next(tmp_path):
    checkpointer = FittingCheckpointer(model())
    (tmp_path / "a.pth").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"a\.pth"):
        checkpointer.load(str(tmp_path / "a.pth"))
    checkpointer.load(save(tmp_path / "b.pth", model().state_dict()))


def test_a_write_that_fails_leaves_the_file_from_before(tmp_path, monkeypatch):
    checkpointer = FittingCheckpointer(model(), str(tmp_path))
    checkpointer.save("model_final")
    before = (tmp_path / "model_final.pth").read_bytes()

    def write_half(content, file):
        file.write(before[: len(before) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises(OSError, match="model_final.pth can't be written.*No space left"):
        checkpointer.save("model_final")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"model_final.pth", "last_checkpoint"}
    assert (tmp_path / "model_final.pth").read_bytes() == before


def test_safetensors_are_read_or_the_package_is_named(tmp_path, monkeypatch):
    path, source = str(tmp_path / "x.safetensors"), model()
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(source.state_dict(), path)
    target = model()
    load_weights(target, path)
    assert torch.equal(target[0].weight, source[0].weight)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ValueError, match="x.safetensors: pip install safetensors"):
        load_weights(model(), path)


def prepared(**preparation):
    net = model()
    for key, value in {"input_format": "RGB", "pixel_mean": torch.zeros(3), **preparation}.items():
        setattr(net, key, value)
    return net


def test_a_checkpoint_tells_what_it_was_trained_with(tmp_path):
    checkpointer = FittingCheckpointer(source := prepared(), str(tmp_path))
    checkpointer.trained_with = {"thing_classes": ["fern", "moss"], "input_format": "RGB"}
    checkpointer.save("model_final")
    checkpointer.save_weights("weights_final")
    for name in ("model_final", "weights_final"):
        target = prepared()
        found = load_weights(target, str(tmp_path / f"{name}.pth"))
        assert found == checkpointer.trained_with and torch.equal(
            target[0].weight, source[0].weight
        )
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert load_weights(model(), save(tmp_path / "old.pth", source.state_dict())) == {}


@pytest.mark.parametrize(
    ("preparation", "message"),
    [
        ({"input_format": "BGR"}, "input_format RGB instead of BGR"),
        ({"pixel_mean": torch.ones(3)}, r"pixel_mean \[0.0, .* instead of \[1.0"),
    ],
)
def test_swapped_colours_do_not_go_unnoticed(tmp_path, caplog, preparation, message):
    checkpointer = FittingCheckpointer(prepared(), str(tmp_path))
    checkpointer.trained_with = {"input_format": "RGB", "pixel_mean": [0.0, 0.0, 0.0]}
    checkpointer.save("model_final")
    path = str(tmp_path / "model_final.pth")
    with pytest.raises(ValueError, match=f"model_final.pth' took images with {message}"):
        load_weights(prepared(**preparation), path)
    FittingCheckpointer(prepared(**preparation)).load(path)  # weights to start a training from
    assert re.search(message, caplog.text)
