import pickle

import pytest
import torch
from detectron2.config import instantiate
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
