"""The rows of the study: which models are trained, how each is evaluated, and what is compared."""

from collections.abc import Mapping
from dataclasses import dataclass, field

# All models of the study detect from the same score on: AP counts what is above it.
_SCORE = "test_score_thresh=0.001"
_MASK_RCNN = (f"model.roi_heads.box_predictor.{_SCORE}",)
_CASCADE = (f"model.roi_heads.box_predictors.0.{_SCORE}", "model.roi_heads.resample_stages=True")


@dataclass(frozen=True)
class Row:
    """A model that is trained.

    title: in the table.
    config: its file in configs/quick_start, without the suffix.
    overrides: of this config.
    inference: further ways to evaluate the same weights, by title, as overrides.
    """

    title: str
    config: str
    overrides: tuple[str, ...] = ()
    inference: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


ROWS = {
    "mask_rcnn": Row("Mask R-CNN", "mask_rcnn_toy", _MASK_RCNN),
    "cascade_mask_rcnn": Row("Cascade Mask R-CNN", "cascade_mask_rcnn_toy", _CASCADE),
    # HTC's ideas one after the other, as in its paper's Table 3.
    "interleaved": Row(
        "+ interleaved execution",
        "htc_without_semantic_toy",
        ("model.roi_heads.mask_information_flow=False",),
    ),
    "htc_without_semantic": Row("+ mask information flow", "htc_without_semantic_toy"),
    "htc_box": Row(
        "+ semantic features for boxes", "htc_toy", ("model.roi_heads.semantic_fusion=box",)
    ),
    "htc_mask": Row(
        "+ semantic features for masks", "htc_toy", ("model.roi_heads.semantic_fusion=mask",)
    ),
    "htc": Row("HTC: + semantic features for both", "htc_toy"),
    "htc_painted": Row(
        "HTC, painted label maps", "htc_toy", ("model.semantic_targets.source=instances",)
    ),
    "htc_semantic_weight_1": Row(
        "HTC, semantic loss weighs 1", "htc_toy", ("model.semantic_branch.loss_weight=1.0",)
    ),
    "htc_semantic_convs_4": Row(
        "HTC, 4 semantic convolutions", "htc_toy", ("model.semantic_branch.num_convs=4",)
    ),
    "htc_not_resampled": Row(
        "HTC, RoIs not sampled again", "htc_toy", ("model.roi_heads.resample_stages=False",)
    ),
    "mask_rcnn_sfpn": Row("Mask R-CNN on SFPN", "mask_rcnn_sfpn_toy", _MASK_RCNN),
    "cascade_mask_rcnn_sfpn": Row(
        "Cascade Mask R-CNN on SFPN", "cascade_mask_rcnn_sfpn_toy", _CASCADE
    ),
    "mnc": Row(
        "MNC",
        "mnc_toy",
        inference={
            "3 stages": ("model.roi_heads.test_stages=3",),
            "NMS": ("model.roi_heads.test_output=nms",),
        },
    ),
    "mnc_3_stages": Row(
        "MNC, trained with 3 stages",
        "mnc_toy",
        ("model.roi_heads.num_stages=3", "model.roi_heads.test_stages=3"),
        {"5 stages": ("model.roi_heads.test_stages=5",)},
    ),
    "mnc_detached": Row("MNC, detached boxes", "mnc_toy", ("model.roi_heads.end_to_end=False",)),
}


@dataclass(frozen=True)
class Comparison:
    """A difference of AP: `new` minus `old`, each a row, or a row and a way to evaluate it.

    idea: what is tried.
    claim: what its paper reports on its own data, in the words of `Difference.verdict`; empty if
        it reports no such comparison.
    """

    idea: str
    new: tuple[str, str]
    old: tuple[str, str]
    claim: str = ""


USUAL = ""  # the way to evaluate that a row's config has


def _compare(idea: str, new: str, old: str, claim: str = "") -> Comparison:
    return Comparison(idea, (new, USUAL), (old, USUAL), claim)


COMPARISONS = (
    _compare("Cascade Mask R-CNN over Mask R-CNN", "cascade_mask_rcnn", "mask_rcnn", "better"),
    _compare("HTC over Cascade Mask R-CNN", "htc", "cascade_mask_rcnn", "better"),
    _compare("interleaved execution", "interleaved", "cascade_mask_rcnn", "better"),
    _compare("mask information flow", "htc_without_semantic", "interleaved", "better"),
    _compare("semantic features for boxes", "htc_box", "htc_without_semantic", "better"),
    _compare("semantic features for masks", "htc_mask", "htc_without_semantic", "better"),
    _compare("semantic features for both", "htc", "htc_without_semantic", "better"),
    _compare("painted in place of drawn label maps", "htc_painted", "htc"),
    _compare("painted label maps over none", "htc_painted", "htc_without_semantic"),
    _compare("weight 1 in place of 0.2 for the semantic loss", "htc_semantic_weight_1", "htc"),
    _compare("4 semantic convolutions in place of 2", "htc_semantic_convs_4", "htc"),
    _compare("RoIs sampled again", "htc", "htc_not_resampled"),
    _compare("SFPN, Mask R-CNN", "mask_rcnn_sfpn", "mask_rcnn", "better"),
    _compare("SFPN, Cascade Mask R-CNN", "cascade_mask_rcnn_sfpn", "cascade_mask_rcnn", "better"),
    Comparison("MNC's stages 4 and 5", ("mnc", USUAL), ("mnc", "3 stages"), "better"),
    Comparison(
        "the same, trained with 3",
        ("mnc_3_stages", "5 stages"),
        ("mnc_3_stages", USUAL),
        "better",
    ),
    _compare("MNC trained with 5 stages over 3", "mnc", "mnc_3_stages", "better"),
    _compare("MNC end to end over detached boxes", "mnc", "mnc_detached", "better"),
    Comparison("mask voting over NMS", ("mnc", USUAL), ("mnc", "NMS")),
)
