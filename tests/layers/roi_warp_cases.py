"""What the tests of RoI warp on CPU and on CUDA share: the equation as a loop, and random boxes."""

import math

import torch


def warp_by_loop(input, boxes, output_size, spatial_scale=1.0, aligned=False):
    """The equation of RoI warping, sample by sample and pixel by pixel, in float64."""
    rows, columns = output_size
    _, channels, height, width = input.shape
    features = input.double()
    output = torch.zeros(len(boxes), channels, rows, columns, dtype=torch.float64)
    shift = 0.5 if aligned else 0.0

    def positions(low, high, count):
        extent = (high - low) * spatial_scale
        return [low * spatial_scale - shift + (i + shift) / count * extent for i in range(count)]

    for k, (image, x1, y1, x2, y2) in enumerate(boxes.double().tolist()):
        for i, y in enumerate(positions(y1, y2, rows)):
            for j, x in enumerate(positions(x1, x2, columns)):
                if not (math.isfinite(x) and math.isfinite(y)):
                    continue
                for v in range(height):
                    for u in range(width):
                        weight = max(0.0, 1 - abs(x - u)) * max(0.0, 1 - abs(y - v))
                        if weight:
                            output[k, :, i, j] += weight * features[int(image), :, v, u]
    return output


def random_boxes(count, images, height, width, dtype=torch.float64, seed=0):
    """Boxes (K, 5), of which some reach out of an image of this size."""
    generator = torch.Generator().manual_seed(seed)
    center = torch.rand(count, 2, generator=generator) * torch.tensor([width, height])
    size = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) * 0.8 + 0.5
    index = torch.randint(images, (count, 1), generator=generator)
    return torch.cat([index, center - size / 2, center + size / 2], dim=1).to(dtype)


def random_features(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
