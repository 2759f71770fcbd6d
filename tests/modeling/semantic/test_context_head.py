import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from torch.nn import functional as F

from hybrid_cascade import add_hybrid_cascade_config
from hybrid_cascade.modeling import SemanticContextHead

CHANNELS, CLASSES = 6, 4
SHAPES = {f"p{k}": ShapeSpec(channels=CHANNELS, stride=2**k) for k in range(2, 7)}


@pytest.fixture
def head():
    return SemanticContextHead(SHAPES, num_classes=CLASSES, conv_dim=8, num_convs=2)


@pytest.fixture
def features():
    return {f"p{k}": torch.randn(2, CHANNELS, 128 >> k, 192 >> k) for k in range(2, 7)}


def test_it_computes_the_published_fusion(head, features):
    x = 0
    for name, conv in head.lateral_convs.items():
        resized = F.interpolate(features[name], size=(16, 24), mode="bilinear", align_corners=True)
        x = x + F.relu(F.conv2d(resized, conv.weight, conv.bias))
    for conv in head.convs:
        x = F.relu(F.conv2d(x, conv.weight, conv.bias, padding=1))
    enriched, logits, losses = head(features, None)
    embedding = F.relu(F.conv2d(x, head.embedding.weight, head.embedding.bias))
    torch.testing.assert_close(enriched["semantic"], embedding)
    predicted = F.conv2d(x, head.predictor.weight, head.predictor.bias)
    torch.testing.assert_close(logits, predicted)
    assert losses == {}


def test_it_leaves_the_pyramid_as_it_is_and_says_what_it_adds(head, features):
    enriched, _, _ = head(features, None)
    assert all(enriched[name] is features[name] for name in features)
    assert head.output_shape()["semantic"] == ShapeSpec(channels=CHANNELS, stride=8)
    assert set(head.output_shape()) == set(enriched)


def test_the_loss_is_the_cross_entropy_of_labelled_pixels_at_the_stride_of_the_logits(head):
    logits = torch.randn(1, CLASSES, 2, 3)
    targets = torch.full((1, 16, 24), 255)
    targets[0, 4, 4] = 2  # the pixel in the middle of the first cell
    targets[0, 12, 20] = 1  # of the last
    targets[0, 0, 0] = 3  # a pixel that no cell samples
    expected = -(logits.log_softmax(1)[0, 2, 0, 0] + logits.log_softmax(1)[0, 1, 1, 2]) / 2
    torch.testing.assert_close(head.loss(logits, targets), 0.2 * expected)


def test_mean_over_all_cells_counts_those_to_be_ignored_as_zero(head):
    logits = torch.randn(1, CLASSES, 2, 3)
    targets = torch.randint(0, CLASSES, (1, 16, 24))
    targets[:, :8, :8] = 255  # one cell of six
    labelled = head.loss(logits, targets)
    head.loss_mean = "all"
    torch.testing.assert_close(head.loss(logits, targets), labelled * 5 / 6)


def test_cells_get_the_label_of_their_corner_if_asked(head):
    logits = torch.randn(1, CLASSES, 2, 3)
    targets = torch.full((1, 16, 24), 255)
    targets[0, 8, 16] = 1  # the upper left corner of the last cell
    assert head.loss(logits, targets) == 0
    head.label_sampling = "corner"
    expected = -0.2 * logits.log_softmax(1)[0, 1, 1, 2]
    torch.testing.assert_close(head.loss(logits, targets), expected)


@pytest.mark.parametrize("switch", ["loss_mean", "label_sampling"])
def test_other_words_for_the_loss_are_refused(switch):
    with pytest.raises(ValueError, match=f"{switch}='middle' is not"):
        SemanticContextHead(SHAPES, num_classes=CLASSES, **{switch: "middle"})


def test_without_labelled_pixels_the_loss_and_its_gradients_are_zero(head, features):
    _, _, losses = head(features, torch.full((2, 128, 192), 255))
    losses["loss_sem_seg"].backward()
    assert losses["loss_sem_seg"] == 0
    assert all(p.grad is None or not p.grad.any() for p in head.parameters())
    assert head.predictor.weight.grad is not None


def test_levels_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="fusion_feature='p7'"):
        SemanticContextHead(SHAPES, num_classes=CLASSES, fusion_feature="p7")
    shapes = {**SHAPES, "p4": ShapeSpec(channels=3, stride=16)}
    with pytest.raises(ValueError, match="differ in channels"):
        SemanticContextHead(shapes, num_classes=CLASSES)


def test_a_norm_follows_each_convolution_but_that_of_the_classes(features):
    head = SemanticContextHead(SHAPES, num_classes=CLASSES, conv_dim=8, num_convs=2, norm="BN")
    normed = [*head.lateral_convs.values(), *head.convs, head.embedding]
    assert all(isinstance(conv.norm, torch.nn.BatchNorm2d) for conv in normed)
    assert all(conv.bias is None for conv in normed)
    assert head.predictor.norm is None and head.predictor.bias is not None
    with torch.no_grad():
        for conv in normed:
            conv.norm.weight.fill_(0)
            conv.norm.bias.fill_(2)
    enriched, logits, _ = head.eval()(features, None)
    assert (enriched["semantic"] == 2).all() and logits.std(dim=(0, 2, 3)).max() < 1e-6


def test_yaml_gives_the_branch_its_norm():
    cfg = get_cfg()
    add_hybrid_cascade_config(cfg)
    cfg.MODEL.SEMANTIC_BRANCH.NORM = "GN"
    cfg.MODEL.SEMANTIC_BRANCH.CONV_DIM = 32
    shapes = {name: ShapeSpec(channels=32, stride=shape.stride) for name, shape in SHAPES.items()}
    assert isinstance(SemanticContextHead(cfg, shapes).convs[0].norm, torch.nn.GroupNorm)
