"""Cases and reference implementations that the tests of RoI warp share."""

import math

import torch
from torch.nn import functional as F


def warp_by_loop(input, boxes, output_size, spatial_scale=1.0, aligned=False):
    """Compute the equation of RoI warping, sample by sample and pixel by pixel, in float64."""
    rows, columns = output_size
    _, channels, height, width = input.shape
    features = input.double()
    output = torch.zeros(len(boxes), channels, rows, columns, dtype=torch.float64)
    shift = 0.5 if aligned else 0.0

    def positions(low, high, count):
        extent = (high - low) * spatial_scale
        return [low * spatial_scale - shift + (i + shift) / count * extent for i in range(count)]

    for roi, (image, x1, y1, x2, y2) in enumerate(boxes.double().tolist()):
        for i, y in enumerate(positions(y1, y2, rows)):
            for j, x in enumerate(positions(x1, x2, columns)):
                if not (math.isfinite(x) and math.isfinite(y)):
                    continue
                for v in range(height):
                    for u in range(width):
                        weight = max(0.0, 1 - abs(x - u)) * max(0.0, 1 - abs(y - v))
                        if weight:
                            output[roi, :, i, j] += weight * features[int(image), :, v, u]
    return output


def warp_by_grid_sample(input, boxes, output_size, spatial_scale=1.0, aligned=False):
    """Compute RoI warp by `grid_sample`, with one grid for each box, padded with zeros."""
    height, width = input.shape[-2:]
    shift = 0.5 if aligned else 0.0

    def positions(low, high, count):
        steps = (torch.arange(count, dtype=boxes.dtype) + shift) / count
        return ((low[:, None] + steps * (high - low)[:, None]) * spatial_scale) - shift

    y = positions(boxes[:, 2], boxes[:, 4], output_size[0])
    x = positions(boxes[:, 1], boxes[:, 3], output_size[1])
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)
    grid = (2 * grid + 1) / torch.tensor([width, height]) - 1
    return F.grid_sample(input[boxes[:, 0].long()], grid, padding_mode="zeros", align_corners=False)


def random_boxes(count, images, height, width, dtype=torch.float64, seed=0):
    """Return boxes (R, 5), some of which reach out of an image of this size."""
    generator = torch.Generator().manual_seed(seed)
    center = torch.rand(count, 2, generator=generator) * torch.tensor([width, height])
    size = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) * 0.8 + 0.5
    index = torch.randint(images, (count, 1), generator=generator)
    return torch.cat([index, center - size / 2, center + size / 2], dim=1).to(dtype)


def random_features(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def gradients(function, input, boxes, seed=1):
    """Return the gradients by features and boxes, for random gradients of the output."""
    input, boxes = input.clone().requires_grad_(), boxes.clone().requires_grad_()
    output = function(input, boxes)
    return torch.autograd.grad(
        output, (input, boxes), random_features(*output.shape, dtype=output.dtype, seed=seed)
    )
