"""The traced graph against the model, which says what is right."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

import hybrid_cascade
from hybrid_cascade.export import largest_differences, trace

from .models import BatchedNMS, boxes_near_the_threshold, model_outputs

LIBRARIES = list((Path(hybrid_cascade.__file__).parent / "layers").glob("_C*"))
CASES = {
    "HTC": ("htc_toy", {}),
    "HTC without semantics": ("htc_without_semantic_toy", {}),
    "Cascade Mask R-CNN": ("cascade_mask_rcnn_toy", {}),
    "boxes of each class": ("cascade_mask_rcnn_toy", {"boxes_of_each_class": True}),
    "HTC with a semantic pyramid": ("htc_sfpn_toy", {}),
    "MNC with global context": ("mnc_toy", {"test_output": "boxes", "global_context": True}),
    "SSD": ("ssd_toy", {}),
}


@pytest.mark.parametrize("name", ["mask_rcnn_toy", "ssd_toy"])
def test_a_graph_postprocesses_for_any_size_as_the_model_does(name, build, images):
    model = build(name)
    graph = trace(model, images[0], paste_masks=True)
    with torch.jit.optimized_execution(False):
        for image in images:
            differences = largest_differences(model, graph, image, (image.shape[2], 130))
            assert set(differences.values()) == {0}, differences


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


def test_few_and_many_boxes_survive_the_same_nms_as_in_eager_mode():
    boxes = boxes_near_the_threshold()
    graph = trace(BatchedNMS(), boxes[:, :50])
    for number in (0, 10, boxes.shape[1]):
        differences = largest_differences(BatchedNMS(), graph, boxes[:, :number])
        assert set(differences.values()) == {0}, number


class Fails(nn.Module):
    def inference(self, batched_inputs, do_postprocess):
        raise RuntimeError("in the middle of a trace")


def test_torchvisions_nms_is_its_own_again_after_a_trace():
    eager = torchvision.ops.boxes.batched_nms
    trace(BatchedNMS(), torch.rand(1, 5, 6))
    assert torchvision.ops.boxes.batched_nms is eager
    with pytest.raises(RuntimeError, match="in the middle of a trace"):
        trace(Fails(), torch.rand(1, 5, 6))
    assert torchvision.ops.boxes.batched_nms is eager
