"""The traced graph against the model, which says what is right."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from detectron2.layers import batched_nms
from detectron2.modeling import MViT, SwinTransformer
from detectron2.structures import Boxes, Instances
from torch import nn

import hybrid_cascade
from hybrid_cascade.export import detect, largest_differences, pool_with_torchvision, trace
from hybrid_cascade.modeling import FusedROIPooler

LIBRARIES = list((Path(hybrid_cascade.__file__).parent / "layers").glob("_C*"))


CASES = {
    "HTC": ("htc_toy", {}),
    "HTC without semantics": ("htc_without_semantic_toy", {}),
    "Cascade Mask R-CNN": ("cascade_mask_rcnn_toy", {}),
    "HTC with a semantic pyramid": ("htc_sfpn_toy", {}),
    "MNC with global context": ("mnc_toy", {"test_output": "boxes", "global_context": True}),
    "SSD": ("ssd_toy", {}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_graph_detects_in_any_image_what_the_model_detects(case, build, images):
    name, switches = CASES[case]
    model = build(name, **switches)
    graph = trace(model, images[0])
    counts = []
    # PyTorch optimizes a graph when it runs again, which takes longer than all else here.
    with torch.jit.optimized_execution(case == "HTC"):
        for image in images:
            differences = largest_differences(model, graph, image)
            assert set(differences.values()) == {0}, differences
            counts.append(len(graph(image)[0]))
    assert max(counts) > 0 and min(counts) == 0


@pytest.mark.skipif(not LIBRARIES, reason="RoI warp is not compiled here")
def test_the_graph_of_mnc_runs_without_python_where_the_operator_is_loaded(build, images, tmp_path):
    model = build("mnc_toy", test_output="nms")
    trace(model, images[0]).save(tmp_path / "mnc.ts")
    torch.save([(x, [*model_outputs(model, x)]) for x in images], tmp_path / "expected.pth")
    program = f"""
import sys, torch, torchvision
torch.ops.load_library({str(LIBRARIES[0])!r})
graph = torch.jit.load("mnc.ts")
for image, expected in torch.load("expected.pth"):
    assert all(map(torch.equal, graph(image), expected))
assert "hybrid_cascade" not in sys.modules and "detectron2" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=300)


@torch.no_grad()
def model_outputs(model, image):
    [instances] = detect(model, [{"image": image}])
    fields = instances.get_fields()
    for name in sorted(fields):
        yield getattr(fields[name], "tensor", fields[name])
    yield torch.tensor(instances.image_size)


def test_a_comparison_leaves_the_model_as_it_is_and_copies_no_weights(build, images):
    model = build("htc_toy")
    poolers = [m for m in model.modules() if isinstance(m, FusedROIPooler)]
    own_outputs = list(model_outputs(model, images[1]))
    copied = pool_with_torchvision(model)
    assert poolers and all(pooler.in_one_pass for pooler in poolers)
    assert not any(m.in_one_pass for m in copied.modules() if isinstance(m, FusedROIPooler))
    of_model, of_copy = (m.state_dict(keep_vars=True).values() for m in (model, copied))
    assert [id(tensor) for tensor in of_model] == [id(tensor) for tensor in of_copy]
    assert all(map(torch.equal, own_outputs, model_outputs(model, images[1])))


class BatchedNMS(nn.Module):
    """Takes boxes (R, 4), scores and classes as an image of R rows."""

    def inference(self, batched_inputs, do_postprocess):
        boxes, scores, classes = batched_inputs[0]["image"].split([4, 1, 1], dim=1)
        kept = batched_nms(boxes, scores[:, 0], classes[:, 0].long(), 0.5)
        size = torch.tensor([1000, 1000])
        return [Instances(size, pred_boxes=Boxes(boxes[kept]), scores=scores[kept])]


def test_few_and_many_boxes_survive_the_same_nms_as_in_eager_mode():
    corners = torch.rand(4000, 2) * 1000
    classes = torch.randint(0, 80, (4000, 1))
    boxes = torch.cat([corners, corners + 100, torch.rand(4000, 1), classes], dim=1)
    # Each of these has an IoU of 0.5 with one of those, or by a rounding more or less.
    shifted = boxes + torch.tensor([100 / 3, 0, 100 / 3, 0, 1, 0])
    boxes = torch.cat([boxes, shifted])
    graph = trace(BatchedNMS(), boxes[:50])
    for number in (0, 10, len(boxes)):
        differences = largest_differences(BatchedNMS(), graph, boxes[:number])
        assert set(differences.values()) == {0}, number


class Fails(nn.Module):
    def inference(self, batched_inputs, do_postprocess):
        raise RuntimeError("in the middle of a trace")


def test_torchvisions_nms_is_its_own_again_after_a_trace():
    eager = torchvision.ops.boxes.batched_nms
    trace(BatchedNMS(), torch.rand(5, 6))
    assert torchvision.ops.boxes.batched_nms is eager
    with pytest.raises(RuntimeError, match="in the middle of a trace"):
        trace(Fails(), torch.rand(5, 6))
    assert torchvision.ops.boxes.batched_nms is eager


class Detector(nn.Module):
    """Detects what it is given."""

    def __init__(self, boxes, scores):
        super().__init__()
        self.found = Instances((8, 8), pred_boxes=Boxes(torch.tensor(boxes)))
        self.found.scores = torch.tensor(scores)

    def forward(self, batched_inputs):
        return [{"instances": self.found}]


@pytest.mark.parametrize(
    "boxes, scores, size, expected",
    [
        ([[0.0, 0, 4, 4]], [0.5], [8, 8], {"pred_boxes": 0, "scores": 0, "image_size": 0}),
        ([[0.0, 1, 4, 4]], [0.75], [8, 6], {"pred_boxes": 1, "scores": 0.25, "image_size": 2}),
        ([[0.0, 0, 4, math.nan]], [0.5], [8, 8], {"pred_boxes": math.inf}),
        ([[0.0, 0, 4, 4]] * 2, [0.5, 0.5], [8, 8], {"pred_boxes": math.inf, "scores": math.inf}),
    ],
)
def test_differences_are_those_of_each_field(boxes, scores, size, expected):
    model = Detector([[0.0, 0, 4, 4]], [0.5])
    outputs = torch.tensor(boxes), torch.tensor(scores), torch.tensor(size)
    differences = largest_differences(model, lambda image: outputs, torch.zeros(3, 8, 8))
    assert expected.items() <= differences.items()
    assert list(differences) == ["pred_boxes", "scores", "image_size"]


def test_there_is_no_difference_between_two_times_nothing():
    model = Detector([], [])
    model.found.pred_boxes.tensor = torch.zeros(0, 4)
    outputs = torch.zeros(0, 4), torch.zeros(0), torch.tensor([8, 8])
    differences = largest_differences(model, lambda image: outputs, torch.zeros(3, 8, 8))
    assert set(differences.values()) == {0}


def with_attribute(name, value):
    model = nn.Module()
    setattr(model, name, value)
    return model


@pytest.mark.parametrize(
    "model, message",
    [
        (lambda: heads(soft_nms="linear"), "set model.roi_heads.soft_nms=none"),
        (lambda: heads(test_output="voting"), "set model.roi_heads.test_output=nms"),
        (lambda: with_attribute("output_sem_seg", True), "set model.output_sem_seg=False"),
        (
            lambda: with_attribute("output_panoptic_seg", True),
            "set model.output_panoptic_seg=False",
        ),
        (lambda: with_attribute("proposal_generator", None), "has no proposal_generator"),
        (
            lambda: SwinTransformer(embed_dim=12, num_heads=[1] * 4),
            "SwinTransformer .* one size only",
        ),
        (lambda: MViT(embed_dim=8, depth=4, last_block_indexes=range(4)), "MViT .* one size only"),
    ],
)
def test_what_a_trace_cannot_record_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        trace(model(), torch.zeros(3, 32, 32))


def heads(**switches):
    return with_attribute("roi_heads", with_attribute(*switches.popitem()))
