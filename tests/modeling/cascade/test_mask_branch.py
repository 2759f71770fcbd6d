import pytest
import torch
from detectron2.layers import Conv2d
from torch import nn

from hybrid_cascade.modeling.cascade.mask_branch import class_mask_logits

CLASSES = torch.tensor([2, 0, 2, 3, 1])


def features():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 6, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)


def of_classes(logits):
    return logits[torch.arange(5), CLASSES][:, None]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_the_whole_layer(bias, memory_format):
    predictor = nn.Conv2d(6, 4, 1, bias=bias, dtype=torch.float64)
    results = []
    for compute in (
        lambda x: class_mask_logits(predictor, x, CLASSES),
        lambda x: of_classes(predictor(x)),
    ):
        x = features()
        logits = compute(x.contiguous(memory_format=memory_format))
        assert logits.shape == (5, 1, 4, 4)
        grads = torch.autograd.grad(logits.square().sum(), [x, *predictor.parameters()])
        results.append([logits, *grads])
    torch.testing.assert_close(*results)


def test_one_1x1_convolution_is_not_computed_for_all_classes():
    predictor = nn.Conv2d(6, 4, 1, dtype=torch.float64)
    predictor.register_forward_hook(lambda *_: pytest.fail("called"))
    class_mask_logits(predictor, features(), CLASSES)


def test_masks_of_all_classes_alike_are_those_of_the_only_one():
    predictor = nn.Conv2d(6, 1, 1, dtype=torch.float64)
    x = features()
    assert torch.equal(class_mask_logits(predictor, x, CLASSES), predictor(x))


@pytest.mark.parametrize(
    "predictor",
    [
        nn.Conv2d(6, 4, 3, padding=1),
        nn.Conv2d(6, 4, 1, groups=2),
        Conv2d(6, 4, 1, activation=nn.ReLU()),
        Conv2d(6, 4, 1, norm=nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(6, 4, 1), nn.Tanh()),
    ],
    ids=["3x3", "groups", "activation", "norm", "not a convolution"],
)
def test_other_layers_are_called(predictor):
    predictor = predictor.double()
    x = features()
    assert torch.equal(class_mask_logits(predictor, x, CLASSES), predictor(x))


def test_no_instances_have_no_masks():
    predictor = nn.Conv2d(6, 4, 1)
    x = torch.zeros(0, 6, 4, 4)
    assert class_mask_logits(predictor, x, CLASSES[:0]).shape == (0, 1, 4, 4)
