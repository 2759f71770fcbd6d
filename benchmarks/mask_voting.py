"""Mask voting against a plain loop over the survivors, side by side.

    python benchmarks/mask_voting.py --device cpu --threads 2

Prints a table, and writes benchmarks/results/mask_voting_<device>.json. In every round each
contender runs once, in turn, so that a busy machine slows both; figures are medians.

- ours: `mask_voting`.
- loop: every instance that votes is pasted by `detectron2.layers.paste_masks_in_image`, once; then
  each survivor sums the masks of its voters.

The instances are those of an image with a few objects: most boxes and their best scores gather
around the objects, the others are anywhere and score low. "differ" is the share of pixels in the
loop's masks where the two disagree: Detectron2 cuts masks off near their boxes on the CPU.

At the end: what the network takes before the vote, MNC's VGG-16 with random weights and all five
stages on one image of 600 x 800.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import batched_nms, paste_masks_in_image
from detectron2.structures import BitMasks, Boxes, Instances, pairwise_iou
from provenance import provenance
from torch import Tensor

from hybrid_cascade.modeling.mnc import mask_voting

RESULTS = Path(__file__).parent / "results"
NETWORK = "configs/mnc/mnc_vgg16_5stage_voc.py"
CASES = [  # (instances, classes, image size, mean side of a box / side of the image)
    (600, 20, (375, 500), 0.4),
    (600, 20, (600, 800), 0.4),
    (600, 80, (800, 1333), 0.2),
    (600, 20, (375, 500), 0.8),
    (100, 20, (375, 500), 0.4),
]


def make_case(instances, classes, image_size, size, device) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, masks and scores, of 8 objects."""
    generator = torch.Generator().manual_seed(0)

    def rand(*shape):
        return torch.rand(*shape, generator=generator)

    def some_boxes(number):
        sides = size * (0.5 + rand(number, 2))
        low = rand(number, 2) * (1 - sides).clamp(min=0)
        return torch.cat([low, low + sides], dim=1)

    objects = some_boxes(8)
    near = objects[torch.randint(8, (instances * 2 // 3,), generator=generator)]
    near = near + 0.05 * size * torch.randn(near.shape, generator=generator)
    boxes = torch.cat([near, some_boxes(instances - len(near))]).clamp(0, 1)
    overlap, index = pairwise_iou(Boxes(boxes), Boxes(objects)).max(dim=1)
    boxes = boxes * torch.tensor(image_size).flip(0).repeat(2)
    # Discs of random radii, with soft edges.
    steps = torch.linspace(-1, 1, 21)
    radius = (steps[:, None] ** 2 + steps**2).sqrt()
    masks = torch.sigmoid(8 * (0.6 + 0.4 * rand(instances, 1, 1) - radius))
    logits = 2 * torch.randn(instances, classes + 1, generator=generator)
    logits[:, -1] += 4  # the background
    logits[torch.arange(instances), index % classes] += 10 * overlap
    scores = logits.softmax(dim=1)[:, :-1]
    return boxes.to(device), masks.to(device), scores.to(device)


def by_loop(boxes: Tensor, masks: Tensor, scores: Tensor, image_size) -> Instances:
    rows, classes = (scores > 0).nonzero(as_tuple=True)
    kept = batched_nms(boxes[rows], scores[rows, classes], classes, 0.3)[:100]
    survivors, classes = rows[kept], classes[kept]
    merged = pairwise_iou(Boxes(boxes[survivors]), Boxes(boxes)) >= 0.5
    voters = merged.any(dim=0).nonzero()[:, 0]
    pasted = paste_masks_in_image(masks[voters], Boxes(boxes[voters]), image_size, threshold=0.4)
    voted = torch.zeros(len(survivors), *image_size, dtype=torch.bool, device=boxes.device)
    for mask, merges, label in zip(voted, merged[:, voters], classes, strict=True):
        weights = scores[voters, label][merges]
        weights = weights / weights.sum()
        mask[:] = torch.einsum("r,rhw->hw", weights, pasted[merges].float()) >= 0.4
    boxes = BitMasks(voted).get_bounding_boxes().to(boxes.device)
    instances = Instances(image_size, pred_boxes=boxes, pred_masks=voted, pred_classes=classes)
    instances.scores = scores[survivors, classes]
    return instances[boxes.nonempty()]


def time_of(function, arguments, device: str) -> tuple[float, Instances]:
    start = time.perf_counter()
    result = function(*arguments)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def measure(instances, classes, image_size, size, device: str, rounds: int) -> dict:
    arguments = (*make_case(instances, classes, image_size, size, device), image_size)
    contenders = {"ours": mask_voting, "loop": by_loop}
    times = {name: [] for name in contenders}
    results = {}
    for index in range(rounds + 1):
        for name, function in contenders.items():
            seconds, results[name] = time_of(function, arguments, device)
            if index:  # the first is for warming up
                times[name].append(seconds)
    ours, loop = (results[name].pred_masks for name in contenders)
    return {
        "instances": instances,
        "classes": classes,
        "image_size": image_size,
        "box_side": size,
        "rounds": rounds,
        "survivors": len(ours),
        "seconds": {name: statistics.median(values) for name, values in times.items()},
        "times_faster": statistics.median(
            b / a for a, b in zip(times["ours"], times["loop"], strict=True)
        ),
        "differ": ((ours != loop).sum() / loop.sum()).item(),
    }


@torch.no_grad()
def time_network(device: str, rounds: int) -> float:
    """Median seconds of the network, up to the candidates that vote."""
    config = LazyConfig.load(str(Path(__file__).parent.parent / NETWORK))
    model = instantiate(config.model).to(device).eval()
    image = {"image": torch.randint(0, 256, (3, 600, 800)).float()}

    def find_candidates():
        images = model.preprocess_image([image])
        features = model.backbone(images.tensor)
        proposals, _ = model.proposal_generator(images, features)
        return model.roi_heads.find_candidates(features, proposals)

    times = [time_of(find_candidates, (), device)[0] for _ in range(rounds + 1)]
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    print("instances classes   image size  box side  survivors   ours ms   loop ms  faster  differ")
    rows = []
    for case in CASES:
        row = measure(*case, arguments.device, arguments.rounds)
        rows.append(row)
        ours, loop = (1000 * row["seconds"][name] for name in ("ours", "loop"))
        size = "{} x {}".format(*row["image_size"])
        print(
            f"{row['instances']:>9} {row['classes']:>7} {size:>12} {row['box_side']:>9}"
            f" {row['survivors']:>10} {ours:>9.1f} {loop:>9.1f} {row['times_faster']:>6.1f}x"
            f" {row['differ']:>7.2%}"
        )
    network = time_network(arguments.device, arguments.rounds)
    print(f"the network before the vote: {1000 * network:.0f} ms")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"mask_voting_{arguments.device}.json"
    record = {**provenance(arguments.device), "rows": rows, "network_seconds": network}
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
