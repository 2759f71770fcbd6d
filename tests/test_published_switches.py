"""The tables of switches in the docs are complete, and right about the defaults here."""

import inspect
import re
from pathlib import Path

import pytest
from detectron2.model_zoo import get_config

from hybrid_cascade import model_zoo, use_htc_heads, use_semantic_branch
from hybrid_cascade.modeling import HTCROIHeads, MNCROIHeads, SemanticContextHead

DOCS = Path(__file__).parent.parent / "docs"
# Arguments that are parts of a model, names of features, or numbers of an option that is off.
NO_SWITCHES = {
    HTCROIHeads: {
        *("mask_heads", "semantic_pooler", "semantic_in_feature"),
        *("test_stages", "soft_nms_sigma", "soft_nms_score_thresh"),
    },
    MNCROIHeads: {
        *("in_features", "pooler", "mask_head", "masked_head", "box_head", "predictor"),
        *("mask_in_features", "pathway_pool", "sampling_ious"),
    },
}
WORDS = {"yes": True, "no": False, "as MMDetection": True, "as Detectron2": False}


def rows_of(page, heading):
    """The rows of a table by the names of their switches; each has its other cells."""
    text = (DOCS / page).read_text()
    table = text[text.index(heading) :].partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {name: row[1:] for row in cells for name in re.findall(r"`(\w+)`", row[0])}


def defaults_of(cls):
    own = inspect.signature(cls.__init__).parameters.values()
    named = [p for p in own if p.kind is p.KEYWORD_ONLY]
    return {p.name: p.default for p in named if p.name not in NO_SWITCHES.get(cls, ())}


def says(cell, value):
    if cell in WORDS:
        return value == WORDS[cell] or (cell == "no" and value == "none")
    if isinstance(value, str):
        return cell.split(",")[0] == (value or "none")
    numbers = [value] if isinstance(value, int | float) else value
    return [float(x) for x in re.findall(r"-?[\d.]+", cell)] == list(numbers)


def published():
    return model_zoo.get_config("htc/htc_r50_fpn_1x.py").model


def swapped():
    model = get_config("common/models/mask_rcnn_fpn.py").model
    use_htc_heads(model)
    use_semantic_branch(model)
    return model


@pytest.mark.parametrize(("column", "make_model"), [(-2, published), (-1, swapped)])
def test_the_switches_of_htc_and_their_values_are_in_the_docs(column, make_model):
    rows, model = rows_of("configs.md", "| switch | paper | MMDetection"), make_model()
    switches = {**defaults_of(HTCROIHeads), **model.roi_heads, **model.roi_heads.box_predictors[0]}
    assert defaults_of(HTCROIHeads).keys() <= rows.keys()
    branch = {**defaults_of(SemanticContextHead), **model.semantic_branch}
    switches.update({k: branch[k] for k in ("norm", "loss_weight", "loss_mean", "label_sampling")})
    switches["anchor_boundary_thresh"] = model.proposal_generator.get("anchor_boundary_thresh", -1)
    # The latter are two values, of which one is a fraction.
    compared = [n for n in rows if rows[n][column] != "as the config" and n != "smooth_l1_beta"]
    for name in compared:
        assert says(rows[name][column], switches[name]), (name, rows[name][column], switches[name])


def test_the_switches_of_mnc_and_their_defaults_are_in_the_docs():
    rows, defaults = rows_of("mnc.md", "| switch | paper | released"), defaults_of(MNCROIHeads)
    assert defaults.keys() <= rows.keys()
    for name in ("end_to_end", "global_context", "binarize_before_voting", "box_gradient_rois"):
        assert says(rows[name][-1], defaults[name])
    for name in ("mask_loss_weight", "nms_iou", "merge_iou", "mask_threshold", "test_output"):
        assert says(rows[name][-1], defaults[name])
    assert [x / 100 for x in (30, 50, 20)] == list(defaults["sampling_fractions"])
