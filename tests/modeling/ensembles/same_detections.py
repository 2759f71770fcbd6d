"""What the tests of models that are joined expect of equal detections."""

import torch


def assert_same_boxes(found, expected):
    """Classes, scores and boxes are the same, of one instance at least; both have masks or none."""
    assert len(found) == len(expected) > 0
    assert torch.equal(found.pred_classes, expected.pred_classes)
    torch.testing.assert_close(found.scores, expected.scores)
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert found.has("pred_masks") == expected.has("pred_masks")
