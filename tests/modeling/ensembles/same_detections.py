"""Comparison of detections, for the tests of several views and several models."""

import torch


def assert_same_boxes(found, expected):
    """Assert that classes, scores and boxes are the same, and that both have masks or none.

    There has to be at least one instance.
    """
    assert len(found) == len(expected) > 0
    assert torch.equal(found.pred_classes, expected.pred_classes)
    torch.testing.assert_close(found.scores, expected.scores)
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert found.has("pred_masks") == expected.has("pred_masks")
