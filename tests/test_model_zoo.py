import pytest
import torch

from hybrid_cascade import model_zoo

TOY = "quick_start/htc_toy.py"


def test_configs_are_found_by_name():
    assert model_zoo.get_config("htc/htc_r50_fpn_1x.py").model.roi_heads.num_classes == 80


def test_configs_take_overrides():
    cfg = model_zoo.get_config(
        "own_data/htc_r50_fpn.py", overrides=["model.roi_heads.num_classes=3"]
    )
    assert cfg.model.semantic_branch.num_classes == 4


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(FileNotFoundError, match="htc/htc_r50_fpn_1x.py"):
        model_zoo.get_config("htc/htc_r50.py")


def test_trained_weights_that_nobody_published_are_an_error():
    with pytest.raises(RuntimeError, match="No trained weights are published"):
        model_zoo.get(TOY, trained=True)


def test_models_come_in_training_mode_and_with_the_trained_weights_that_are_known(
    monkeypatch, tmp_path
):
    model = model_zoo.get(TOY, device="cpu")
    assert model.training
    torch.save({"model": model.state_dict()}, tmp_path / "toy.pth")
    monkeypatch.setitem(model_zoo.TRAINED, TOY, str(tmp_path / "toy.pth"))
    again = model_zoo.get(TOY, trained=True, device="cpu")
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
