"""A model of one layer, inputs for it, and the outputs of a model as a graph has them."""

import torch
from detectron2.layers import batched_nms
from detectron2.structures import Boxes, Instances
from torch import nn

from hybrid_cascade.export import detect


@torch.no_grad()
def model_outputs(model, image):
    [instances] = detect(model, [{"image": image}])
    fields = instances.get_fields()
    for name in sorted(fields):
        yield getattr(fields[name], "tensor", fields[name])
    yield torch.tensor(instances.image_size)


class BatchedNMS(nn.Module):
    """Takes boxes (R, 4), scores and classes as an image (1, R, 6)."""

    def inference(self, batched_inputs, do_postprocess):
        boxes, scores, classes = batched_inputs[0]["image"][0].split([4, 1, 1], dim=1)
        kept = batched_nms(boxes, scores[:, 0], classes[:, 0].long(), 0.5)
        size = torch.tensor([1000, 1000])
        return [Instances(size, pred_boxes=Boxes(boxes[kept]), scores=scores[kept])]


def boxes_near_the_threshold():
    """Return an image of 8000 rows for `BatchedNMS`, in pairs.

    The boxes of a pair have an IoU of 0.5, or by a rounding more or less.
    """
    corners = torch.rand(4000, 2) * 1000
    classes = torch.randint(0, 80, (4000, 1))
    boxes = torch.cat([corners, corners + 100, torch.rand(4000, 1), classes], dim=1)
    shifted = boxes + torch.tensor([100 / 3, 0, 100 / 3, 0, 1, 0])
    return torch.stack([boxes, shifted], dim=1).reshape(1, -1, 6)
