"""Detectron2's Mask R-CNN, Cascade Mask R-CNN and relatives, to start the training of a cascade.

A head that Detectron2's model has once fills the heads of all stages.
"""

import re

from .conversion import Layout, Source
from .preprocessing import DETECTRON2_STD, MSRA


def _rename(name: str, layout: Layout) -> list[str]:
    if not name.startswith(("backbone.", "proposal_generator.rpn_head.", "roi_heads.")):
        return []
    match = re.fullmatch(r"(roi_heads\.(?:box_head|box_predictor|mask_head))\.(\D.*)", name)
    if match is None or layout.stages == 0:
        return [name]
    return [f"{match[1]}.{stage}.{match[2]}" for stage in range(layout.stages)]


DETECTRON2 = Source(
    title="Detectron2",
    rename=_rename,
    left_out={
        r"cell_anchors": "anchors are computed from the config",
        r"^pixel_(mean|std)$": "the preprocessing is the config's",
    },
    preprocessing=(MSRA, DETECTRON2_STD),
    # The pyramid too, but not the offsets of deformable convolutions, which start at zero.
    must_fill=r"backbone\.(?!.*conv2_offset)",
)
