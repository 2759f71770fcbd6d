import pytest
import torch

from hybrid_cascade.layers import roi_warp

from .roi_warp_cases import random_boxes, random_features


@pytest.mark.parametrize("max_pool", [1, 2])
@pytest.mark.parametrize("aligned", [False, True])
def test_an_export_records_roi_aligns_that_warp_boxes_of_all_kinds(monkeypatch, aligned, max_pool):
    features = random_features(2, 3, 9, 13, dtype=torch.float32)
    boxes = random_boxes(40, 2, 36, 52, torch.float32)
    boxes[0, 1:] = boxes[0, [3, 4, 1, 2]]  # reversed
    boxes[1, 1:] = torch.tensor([5.0, 6, 5, 6])  # without area
    boxes[2, 1:] = torch.tensor([900.0, 900, 950, 950])  # outside
    boxes[3, 1:] = torch.tensor([0.0, 0, 52, 36])  # everything
    arguments = features, boxes, (4, 6), 0.25, max_pool, aligned
    expected = roi_warp(*arguments)
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    found = roi_warp(*arguments)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert found[2].abs().max() == 0 and found[1].abs().max() > 0
    assert not torch.equal(found, expected)  # it is another way to compute them
