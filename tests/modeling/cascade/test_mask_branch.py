import pytest
import torch
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead
from detectron2.structures import Boxes, Instances
from torch import nn

from hybrid_cascade.modeling import HTCROIHeads
from hybrid_cascade.modeling.cascade.mask_branch import (
    add_mean_masks,
    class_mask_logits,
    mask_features,
    mask_logits,
)

from .toy_heads import (
    CHANNELS,
    CLASSES,
    OFF,
    SIZES,
    assert_equal_instances,
    box_arguments,
    detect,
    htc,
    liven_up,
    mask_arguments,
    mask_heads,
    train,
)

CLASSES_OF_ROIS = torch.tensor([2, 0, 2, 3, 1])


def roi_features():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 6, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)


def of_classes(logits):
    return logits[torch.arange(5), CLASSES_OF_ROIS][:, None]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_the_whole_layer(bias, memory_format):
    predictor = nn.Conv2d(6, 4, 1, bias=bias, dtype=torch.float64)
    results = []
    for compute in (
        lambda x: class_mask_logits(predictor, x, CLASSES_OF_ROIS),
        lambda x: of_classes(predictor(x)),
    ):
        x = roi_features()
        logits = compute(x.contiguous(memory_format=memory_format))
        assert logits.shape == (5, 1, 4, 4)
        grads = torch.autograd.grad(logits.square().sum(), [x, *predictor.parameters()])
        results.append([logits, *grads])
    torch.testing.assert_close(*results)


def test_one_1x1_convolution_is_not_computed_for_all_classes():
    predictor = nn.Conv2d(6, 4, 1, dtype=torch.float64)
    predictor.forward = lambda _: pytest.fail("called")
    class_mask_logits(predictor, roi_features(), CLASSES_OF_ROIS)


@pytest.mark.parametrize("register", ["register_forward_hook", "register_full_backward_hook"])
def test_a_predictor_with_hooks_is_called(register):
    predictor = nn.Conv2d(6, 4, 1, dtype=torch.float64)
    calls = []
    getattr(predictor, register)(lambda *args: calls.append(args))
    x = roi_features()
    logits = class_mask_logits(predictor, x, CLASSES_OF_ROIS)
    logits.sum().backward()
    assert len(calls) == 1
    assert torch.equal(logits, predictor(x))


def test_masks_of_all_classes_alike_are_those_of_the_only_one():
    predictor = nn.Conv2d(6, 1, 1, dtype=torch.float64)
    x = roi_features()
    assert torch.equal(class_mask_logits(predictor, x, CLASSES_OF_ROIS), predictor(x))


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
    x = roi_features()
    assert torch.equal(class_mask_logits(predictor, x, CLASSES_OF_ROIS), predictor(x))


def test_no_instances_have_no_masks():
    predictor = nn.Conv2d(6, 4, 1)
    x = torch.zeros(0, 6, 4, 4)
    assert class_mask_logits(predictor, x, CLASSES_OF_ROIS[:0]).shape == (0, 1, 4, 4)


def test_information_flow_follows_equation_4():
    roi_heads = htc().eval()
    flows = roi_heads.mask_information_flow
    x = torch.randn(5, CHANNELS, 14, 14)
    with torch.no_grad():
        m = None
        for t, (head, ours) in enumerate(
            zip(roi_heads.mask_head, mask_features(roi_heads.mask_head, flows, x), strict=True)
        ):
            if t == 0:
                m = x
            else:
                flow = flows[t - 1]
                m = x + torch.relu(torch.nn.functional.conv2d(m, flow.weight, flow.bias))
            for conv in (head.mask_fcn1, head.mask_fcn2):
                m = torch.relu(torch.nn.functional.conv2d(m, conv.weight, conv.bias, padding=1))
            torch.testing.assert_close(ours, m)


def test_information_flow_needs_heads_with_convolutions():
    shape = ShapeSpec(channels=CHANNELS, height=14, width=14)
    head = MaskRCNNConvUpsampleHead(shape, num_classes=CLASSES, conv_dims=[CHANNELS])
    arguments = {**box_arguments(1), **mask_arguments(), "mask_heads": [head]}
    with pytest.raises(ValueError, match="needs mask heads with convolutions"):
        HTCROIHeads(**arguments, stage_loss_weights=None)


class Constant(MaskRCNNConvUpsampleHead):
    def layers(self, x):
        return super().layers(x) * 0 + 7


def test_a_mask_head_with_layers_of_its_own_is_called(features):
    heads = mask_heads(1)
    own = Constant(
        ShapeSpec(channels=CHANNELS, height=14, width=14), num_classes=CLASSES, conv_dims=[CHANNELS]
    )
    found = Instances(SIZES[0], pred_boxes=Boxes(torch.tensor([[5.0, 5, 50, 60]])))
    found.pred_classes = torch.tensor([1])
    for head, all_seven in ((own, True), (*heads, False)):
        roi_heads = liven_up(
            HTCROIHeads(
                **box_arguments(),
                **mask_arguments(),
                mask_heads=[head],
                mask_stages="last",
                **OFF,
            )
        ).eval()
        maps = {name: m[:1] for name, m in features.items()}
        (instances,) = roi_heads.forward_with_given_boxes(maps, [found])
        assert (instances.pred_masks == torch.tensor(7.0).sigmoid()).all() == all_seven


@pytest.mark.parametrize("flow", [True, False])
def test_hooks_of_the_predictors_run_in_training_and_inference_and_change_no_mask(
    flow, features, proposals, targets, storage
):
    roi_heads = htc(mask_information_flow=flow)
    losses, found = (
        train(roi_heads, features, proposals, targets),
        detect(roi_heads, features, proposals),
    )
    calls = []
    for head in roi_heads.mask_head:
        head.predictor.register_forward_hook(lambda *args: calls.append(args[0]))
    losses_with_hooks = train(roi_heads, features, proposals, targets)
    found_with_hooks = detect(roi_heads, features, proposals)
    assert calls == [head.predictor for head in roi_heads.mask_head] * 2
    torch.testing.assert_close(losses_with_hooks, losses)
    assert_equal_instances(found_with_hooks, found)


def test_masks_are_averaged_over_the_heads():
    instances = [
        Instances(size, pred_classes=torch.tensor(classes))
        for size, classes in zip(SIZES, ([2], [0, 1]), strict=True)
    ]
    of_classes, of_one = torch.randn(3, CLASSES, 4, 4), torch.randn(3, 1, 4, 4)
    add_mean_masks([of_classes, of_one], instances)
    expected = of_classes[range(3), [2, 0, 1]].sigmoid() / 2 + of_one[:, 0].sigmoid() / 2
    assert [i.pred_masks.shape for i in instances] == [(1, 1, 4, 4), (2, 1, 4, 4)]
    torch.testing.assert_close(torch.cat([i.pred_masks[:, 0] for i in instances]), expected)


def upsampling_head(classes=CLASSES):
    shape = ShapeSpec(channels=6, height=4, width=4)
    head = MaskRCNNConvUpsampleHead(shape, num_classes=classes, conv_dims=[6, 7])
    for layer in (head.deconv, head.predictor):
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    return head


@pytest.mark.parametrize("classes", [1, CLASSES])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_pixels_one_after_another_are_those_of_the_deconvolution(classes, memory_format):
    head, of_rois = upsampling_head(classes), CLASSES_OF_ROIS % classes
    x = roi_features().detach().float().contiguous(memory_format=memory_format)
    deconvolved = []
    [expected] = mask_logits([head], [], x, of_rois, [0])  # with gradients: the layers themselves
    with torch.no_grad():
        [logits] = mask_logits([head], [], x, of_rois, [0])
        head.deconv.register_forward_hook(lambda *args: deconvolved.append(args))
        [of_hooked] = mask_logits([head], [], x, of_rois, [0])
    assert logits.shape == (5, 1, 8, 8) and len(deconvolved) == 1
    for found in (logits, of_hooked):
        torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-5)


def test_no_map_of_the_size_of_the_masks_is_computed_at_inference(monkeypatch):
    head = upsampling_head()
    monkeypatch.setattr(head.deconv, "forward", lambda x: pytest.fail("called"))
    with torch.no_grad():
        mask_logits([head], [], roi_features().detach().float(), CLASSES_OF_ROIS % CLASSES, [0])


@torch.no_grad()
def test_masks_of_16_bit_logits_are_float32():
    instances = [Instances((8, 8), pred_classes=torch.zeros(2, dtype=torch.int64))]
    add_mean_masks([torch.randn(2, 1, 4, 4).bfloat16()] * 3, instances)
    assert instances[0].pred_masks.dtype == torch.float32
