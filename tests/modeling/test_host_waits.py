"""What waits for a GPU, counted on a CPU by operators, and on a GPU by PyTorch itself."""

import warnings

import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances

from hybrid_cascade.layers.extension import compiled_devices, compiled_reason
from hybrid_cascade.modeling import SemanticTargets
from hybrid_cascade.modeling.cascade.box_selection import nms_ending_early
from hybrid_cascade.modeling.poolers import is_compiled

from .cascade.toy_heads import SEMANTIC_POOLER, htc
from .host_waits import HostWaits

needs_operator = pytest.mark.skipif(not is_compiled, reason="pyramid_roi_align is not compiled")


@pytest.fixture
def features():
    maps = {f"p{k}": torch.randn(2, 8, 128 >> k, 128 >> k) for k in range(2, 6)}
    return {**maps, "semantic": torch.randn(2, 8, 16, 16)}


@pytest.fixture
def make_proposals():
    def make():
        boxes = torch.rand(2, 20, 2) * 40
        boxes = torch.cat([boxes, boxes + 30], dim=2)
        return [Instances((96, 128), proposal_boxes=Boxes(b)) for b in boxes]

    return make


def test_reading_numbers_and_shapes_that_depend_on_them_are_counted_with_their_places():
    x = torch.arange(4.0)
    with HostWaits() as waits:
        x.sum().item()
        x[x > 1]
        x[x > 1] = 0
        x.nonzero()
        x[torch.arange(2)] + 1
    assert [name for name, _, _ in waits.places] == ["_local_scalar_dense", "index", "nonzero"]


@needs_operator
@pytest.mark.parametrize("class_wise", [False, True])
def test_no_stage_of_a_cascade_waits_at_inference(features, make_proposals, class_wise):
    heads = htc(class_wise=class_wise, semantic_fusion="both", semantic_pooler=SEMANTIC_POOLER)
    heads.eval()
    with torch.no_grad(), HostWaits() as waits:
        heads.predict_boxes_and_scores(features, make_proposals())
    assert not waits.places


@needs_operator
def test_masks_of_detected_boxes_wait_for_nothing(features, make_proposals):
    heads = htc(semantic_fusion="both", semantic_pooler=SEMANTIC_POOLER).eval()
    with torch.no_grad():
        instances = heads.detect_boxes(features, make_proposals())
        with HostWaits() as waits:
            heads._forward_mask(features, instances)
    assert not waits.places and instances[0].has("pred_masks")


def test_painting_a_label_map_waits_for_nothing(make_ground_truth):
    instances = make_ground_truth(40, 50, [[4, 4, 12, 12], [0, 0, 40, 32]], [3, 1], True)
    with HostWaits() as waits:
        SemanticTargets(num_classes=6, num_things=5, source="instances").paint(instances)
    assert not waits.places


def test_a_selection_that_ends_early_reads_no_score():
    boxes = torch.rand(300, 2).mul(100).repeat(1, 2) + torch.tensor([0.0, 0, 10, 10])
    scores = torch.rand(300, 9).softmax(dim=1)
    with HostWaits() as waits:
        selected = nms_ending_early(boxes, scores, (200, 200), 0.001, 0.5, 20)
    assert len(selected) == 20
    assert not [place for place in waits.places if place[1].startswith("cascade/")]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.skipif("cuda" not in compiled_devices, reason=compiled_reason)
def test_one_image_waits_at_most_36_times_on_a_gpu(tiny_config, inputs):
    # None of them in the stages and the masks. Copying the image 1, the anchors of 5 levels 10, the
    # RPN's boxes 3, the selection 4, NMS twice 6, the results 5; the others to spare, since it was
    # counted without a GPU.
    model = instantiate(tiny_config("htc_toy")).cuda().eval()
    image = {key: value for key, value in inputs[0].items() if key != "instances"}
    with torch.no_grad():
        model([image])  # what is done once is done
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model([image])
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [w for w in caught if "synchroniz" in str(w.message)]
    assert 0 < len(waits) <= 36, [f"{w.filename}:{w.lineno}" for w in waits]
