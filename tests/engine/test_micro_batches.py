"""Gradients that are accumulated over the parts of a batch."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.engine import SimpleTrainer
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.utils.events import EventStorage
from torch import nn

from hybrid_cascade.engine.hooks import CheckLosses, NotFiniteError
from hybrid_cascade.engine.micro_batches import MicroBatchAMPTrainer, MicroBatchTrainer
from hybrid_cascade.engine.partial_training import select_losses


class MeanOverImages(nn.Module):
    """Two losses, each a mean over the images of a batch, after a frozen norm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4).eval(), nn.Linear(4, 2))
        self.layers[1].running_var.fill_(2.0)
        self.sizes = []

    def train(self, mode=True):
        super().train(mode)
        self.layers[1].eval()
        return self

    def forward(self, images):
        self.sizes.append(len(images))
        found = self.layers(torch.stack([image["x"] for image in images]))
        return {"loss_square": found.square().mean(), "loss_absolute": found[:, 0].abs().mean()}


def make_images(number=8):
    generator = torch.Generator().manual_seed(1)
    return [
        {"x": torch.randn(3, generator=generator) * 10, "file_name": f"{i}.png"}
        for i in range(number)
    ]


def step(loop_class, *args, images=None, clip=False, patterns=(), hooks=(), **kwargs):
    """Return the model and the metrics after an iteration."""
    model = MeanOverImages()
    if patterns:
        select_losses(model, patterns)
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = clip
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "norm"
    optimizer = maybe_add_gradient_clipping(cfg, torch.optim.SGD(model.parameters(), lr=0.1))
    loop = loop_class(model, [images or make_images()], optimizer, *args, **kwargs)
    loop.register_hooks(hooks)
    loop.iter, loop.max_iter = 0, 1
    loop.before_train()
    with EventStorage() as loop.storage:
        loop.run_step()
        metrics = {name: value for name, (value, _) in loop.storage.latest().items()}
    return model, metrics


@pytest.mark.parametrize("options", [{}, {"clip": True}, {"patterns": ["*_square"]}])
@pytest.mark.parametrize("parts", [2, 4, 8])
def test_a_batch_in_parts_gives_the_update_and_the_losses_of_a_whole_one(parts, options):
    whole, expected = step(SimpleTrainer, **options)
    model, metrics = step(MicroBatchTrainer, parts, **options)
    assert model.sizes == [8 // parts] * parts
    start = MeanOverImages()
    for (name, found), wanted, before in zip(
        model.named_parameters(), whole.parameters(), start.parameters(), strict=True
    ):
        torch.testing.assert_close(found, wanted, msg=name)
        assert not torch.equal(found, before)
    for name in ("loss_square", "loss_absolute", "total_loss"):
        assert metrics[name] == pytest.approx(expected[name], rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*CUDA is not available:UserWarning")
def test_scaled_losses_of_mixed_precision_are_unscaled_once_before_clipping_and_the_step():
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1)
    whole, _ = step(SimpleTrainer, clip=True)
    model, _ = step(MicroBatchAMPTrainer, 4, clip=True, grad_scaler=scaler)
    for found, wanted in zip(model.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)
    assert scaler.get_scale() == 2048


@pytest.mark.parametrize("bad", [0, 5, 7])
def test_a_loss_that_is_not_finite_in_any_part_stops_with_the_images_of_that_part(bad):
    images = make_images()
    images[bad]["x"][0] = float("nan")
    with pytest.raises(NotFiniteError, match=f"{bad}.png") as caught:
        step(MicroBatchTrainer, 4, images=images, hooks=[CheckLosses()])
    assert sum(f"{i}.png" in str(caught.value) for i in range(8)) == 2


def test_no_image_of_a_batch_that_has_no_equal_parts_is_left_out():
    with pytest.raises(ValueError, match="batch of 8 images, which are no 3 equal parts"):
        step(MicroBatchTrainer, 3)
