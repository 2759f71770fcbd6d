"""Trainings of a model of two layers, interrupted and continued."""

import shutil

import pytest
import torch
from detectron2.data import DatasetCatalog
from PIL import Image
from torch import nn

from hybrid_cascade.data import register_toy_scenes
from hybrid_cascade.engine import Trainer, load_config
from hybrid_cascade.engine.hooks import DrawResults
from hybrid_cascade.engine.micro_batches import MicroBatchTrainer
from hybrid_cascade.model_zoo import get_config_file

NAME = "mixed_scenes"
OVERRIDES = [
    "train.max_iter=8",
    "train.seed=1",
    "train.checkpointer.period=2",
    "train.checkpointer.max_to_keep=100",
    "dataloader.train.total_batch_size=2",
    "dataloader.train.dataset.names=mixed_scenes",
    "dataloader.test.dataset.names=mixed_scenes_source_val",
    "optimizer.lr=0.01",
]


class Tiny(nn.Module):
    """A model whose loss depends on pixels, on the order in a batch, and on random numbers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 3)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, batch):
        losses = []
        for i, image in enumerate(batch):
            features = self.norm(self.layer(image["image"][None].float() / 255))
            losses.append((features * torch.rand(2, 1, 1)).square().mean() * (i + 1))
        return {"loss": sum(losses)}


class TinyTrainer(Trainer):
    def build_model(self, cfg):
        torch.manual_seed(0)
        return Tiny()

    def test(self, cfg, model):
        return {}

    def build_hooks(self):
        return [hook for hook in super().build_hooks() if not isinstance(hook, DrawResults)]


@pytest.fixture(scope="module", autouse=True)
def mixed_scenes(tmp_path_factory):
    """Scenes of which every other one lies on its side."""
    folder = tmp_path_factory.mktemp("data")
    register_toy_scenes(str(folder / "toy_scenes"), "mixed_scenes_source", num_train=10, num_val=1)

    def load():
        images = []
        for number, image in enumerate(DatasetCatalog.get("mixed_scenes_source_train")):
            image = {k: v for k, v in image.items() if k != "sem_seg_file_name"}
            if number % 2 and image["annotations"]:
                path = str(folder / f"{number}.png")
                Image.open(image["file_name"]).transpose(Image.Transpose.TRANSPOSE).save(path)
                image.update(file_name=path, width=image["height"], height=image["width"])
                image["annotations"] = [_transpose(a) for a in image["annotations"]]
            images.append(image)
        return images

    DatasetCatalog.register(NAME, load)
    yield
    DatasetCatalog.remove(NAME)


def _transpose(annotation):
    x, y, w, h = annotation["bbox"]
    polygons = [
        [v for pair in zip(p[1::2], p[::2], strict=True) for v in pair]
        for p in annotation["segmentation"]
    ]
    return {**annotation, "bbox": [y, x, h, w], "segmentation": polygons}


def build(folder, *overrides):
    options = [*OVERRIDES, f"train.output_dir={folder}", *overrides]
    return TinyTrainer(load_config(get_config_file("quick_start/mask_rcnn_toy.py"), options))


def run(folder, *overrides, resume=True):
    trainer = build(folder, *overrides)
    trainer.resume_or_load(resume)
    trainer.train()
    return trainer


def read(path):
    return torch.load(path, weights_only=True)


def assert_same(path, other):
    a, b = read(path)["model"], read(other)["model"]
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a training of eight iterations, without a break."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder, resume=False)
    return folder


@pytest.fixture
def part(tmp_path, whole):
    """The folder of the same training, as if it had been killed after the fourth iteration."""
    for iteration in (1, 3):
        shutil.copy(whole / f"model_{iteration:07d}.pth", tmp_path)
    (tmp_path / "last_checkpoint").write_text("model_0000003.pth")
    return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_images_of_both_orientations_resume_bit_for_bit(part, whole, workers):
    trainer = run(part, f"dataloader.train.num_workers={workers}")
    assert len({image["width"] > image["height"] for image in trainer.train_dataset}) == 2
    assert trainer.start_iter == 4
    assert_same(part / "model_final.pth", whole / "model_final.pth")
    assert trainer.sampler._waiting  # images that waited for others of their orientation


def trained_weights(path):
    return read(path)["trainer"]["hooks"]["AverageWeights"]["trained"]


def test_averages_of_the_weights_resume_bit_for_bit(tmp_path, whole):
    ema = "train.ema_decay=0.9"
    run(tmp_path / "whole", ema, resume=False)
    (tmp_path / "part").mkdir()
    shutil.copy(tmp_path / "whole" / "model_0000003.pth", tmp_path / "part")
    (tmp_path / "part" / "last_checkpoint").write_text("model_0000003.pth")
    assert run(tmp_path / "part", ema).start_iter == 4
    one, other = (tmp_path / folder / "model_final.pth" for folder in ("whole", "part"))
    assert_same(one, other)
    trained, again = trained_weights(one), trained_weights(other)
    without = read(whole / "model_final.pth")["model"]
    for key, value in trained.items():
        assert torch.equal(value, again[key]) and torch.equal(value, without[key]), key
    assert not torch.equal(read(one)["model"]["layer.weight"], trained["layer.weight"])


def test_a_training_without_averages_resumes_with_them(part):
    trainer = build(part, "train.ema_decay=0.9")
    trainer.resume_or_load()
    weights = read(part / "model_0000003.pth")["model"]
    for model in (trainer.model, trainer.evaluated_model):
        assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


def test_averages_begin_with_the_weights_that_a_training_starts_from(tmp_path, whole):
    weights = whole / "model_final.pth"
    trainer = build(tmp_path, "train.ema_decay=0.9", f"train.init_checkpoint={weights}")
    trainer.resume_or_load(resume=False)
    expected = read(weights)["model"]["layer.weight"]
    assert torch.equal(trainer.model.layer.weight, expected)
    assert torch.equal(trainer.evaluated_model.layer.weight, expected)


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_model_with_averaged_weights_is_the_one_that_is_evaluated(tmp_path, monkeypatch, decay):
    trainer = build(tmp_path, f"train.ema_decay={decay}")
    evaluated = []
    monkeypatch.setattr(
        "hybrid_cascade.engine.trainer.evaluate", lambda cfg, model, **_: evaluated.append(model)
    )
    Trainer.test(trainer, trainer.cfg, trainer.model)
    assert evaluated == [trainer.evaluated_model]
    assert (trainer.evaluated_model is trainer.model) == (decay == 0)


def test_a_batch_in_parts_resumes_bit_for_bit(tmp_path):
    parts = "train.micro_batches=2"
    trainer = run(tmp_path / "whole", parts, resume=False)
    assert isinstance(trainer._trainer, MicroBatchTrainer)
    (tmp_path / "part").mkdir()
    shutil.copy(tmp_path / "whole" / "model_0000003.pth", tmp_path / "part")
    (tmp_path / "part" / "last_checkpoint").write_text("model_0000003.pth")
    run(tmp_path / "part", parts)
    assert_same(tmp_path / "part" / "model_final.pth", tmp_path / "whole" / "model_final.pth")


@pytest.mark.parametrize("tag", ["", "of_another_run.pth", "../other/model_final.pth", "\1\xff"])
def test_a_useless_name_of_the_last_checkpoint_is_told_and_the_newest_is_taken(part, tag, caplog):
    (part / "last_checkpoint").write_text(tag, encoding="latin1")
    trainer = build(part)
    trainer.resume_or_load()
    message = "which is not in its folder" if tag else "last_checkpoint is empty"
    assert message in caplog.text
    assert f"Resuming from {part}/model_0000003.pth" in caplog.text
    assert trainer.start_iter == 4


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_last_checkpoint_is_told_and_the_one_before_is_taken(part, damage, caplog):
    path = part / "model_0000003.pth"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        position = content.index(read(path)["model"]["layer.weight"].numpy().tobytes())
        content[position + 5] ^= 1
    path.write_bytes(content[: {"truncated": len(content) // 2, "empty": 0}.get(damage)])
    trainer = build(part)
    trainer.resume_or_load()
    assert "model_0000003.pth is" in caplog.text
    assert f"Resuming from {part}/model_0000001.pth" in caplog.text
    assert trainer.start_iter == 2


def test_it_stops_if_no_checkpoint_is_whole(part):
    for path in part.glob("model_*.pth"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="No checkpoint .* is whole: .*model_0000001.pth.*delete"):
        build(part).resume_or_load(resume=True)


def test_weights_without_the_state_of_a_training_are_not_resumed_from(part, caplog):
    torch.save({"model": read(part / "model_0000003.pth")["model"]}, part / "model_0000003.pth")
    build(part).resume_or_load()
    assert "model_0000003.pth has no state of a training (trainer)" in caplog.text
    assert f"Resuming from {part}/model_0000001.pth" in caplog.text


@pytest.mark.parametrize("left", [None, 3000])
def test_a_last_file_that_a_kill_has_cut_short_is_written_again(part, whole, left):
    shutil.copy(whole / "model_0000007.pth", part)
    (part / "last_checkpoint").write_text("model_0000007.pth")
    path = part / "model_final.pth"
    if left:
        path.write_bytes((whole / "model_final.pth").read_bytes()[:left])
    trainer = run(part)
    assert trainer.start_iter == 8
    assert_same(path, whole / "model_final.pth")
    assert read(path)["iteration"] == 7 and read(path)["trainer"]["iteration"] == 7


def test_a_folder_with_checkpoints_is_not_overwritten(part):
    before = {p.name: p.read_bytes() for p in part.iterdir() if p.suffix == ".pth"}
    with pytest.raises(FileExistsError, match="model_0000001.pth.*--resume.*train.output_dir"):
        build(part).resume_or_load(resume=False)
    assert {p.name: p.read_bytes() for p in part.iterdir() if p.suffix == ".pth"} == before


def test_resuming_in_an_empty_folder_starts_a_training(tmp_path):
    trainer = build(tmp_path)
    trainer.resume_or_load()
    assert trainer.start_iter == 0
