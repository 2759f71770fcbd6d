import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torchvision.ops import roi_align

from hybrid_cascade.modeling import FusedROIPooler


def test_it_adds_semantic_features_pooled_to_the_size_of_the_others():
    pyramid, semantic = torch.randn(1, 4, 16, 16), torch.randn(1, 4, 8, 8)
    boxes = torch.tensor([[3.0, 5, 40, 50], [10, 10, 20, 30]])
    pooler = FusedROIPooler(
        ROIPooler(7, [1 / 4], 0, "ROIAlignV2"), ROIPooler(14, [1 / 8], 0, "ROIAlignV2")
    )
    expected = roi_align(pyramid, [boxes], 7, 1 / 4, 0, aligned=True)
    context = roi_align(semantic, [boxes], 14, 1 / 8, 0, aligned=True)
    expected = expected + context.reshape(2, 4, 7, 2, 7, 2).mean((3, 5))
    torch.testing.assert_close(pooler([pyramid, semantic], [Boxes(boxes)]), expected)


def test_no_boxes_give_no_features_with_a_gradient():
    semantic = torch.randn(1, 4, 8, 8, requires_grad=True)
    pooler = FusedROIPooler(
        ROIPooler(7, [1 / 4], 0, "ROIAlignV2"), ROIPooler(14, [1 / 8], 0, "ROIAlignV2")
    )
    features = pooler([torch.randn(1, 4, 16, 16), semantic], [Boxes(torch.zeros(0, 4))])
    assert features.shape == (0, 4, 7, 7)
    features.sum().backward()
    assert not semantic.grad.any()
