"""The mapper for training with a CfgNode: Detectron2's, with jitter and Copy-Paste on request."""

from collections.abc import Sequence

import detectron2.data.transforms as T
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper

from .copy_paste import CopyPasteMapper
from .partial_masks import PartialMasksMapper


def build_train_mapper(cfg: CfgNode, dataset: Sequence[dict]) -> DatasetMapper | CopyPasteMapper:
    """Return a `PartialMasksMapper`, with INPUT.LARGE_SCALE_JITTER and INPUT.COPY_PASTE if enabled.

    Large-scale jitter (arXiv 2012.07177) replaces the resizing to INPUT.MIN_SIZE_TRAIN. Flips, and
    crops before the resizing, are kept. Boxes are then computed from the augmented masks, if there
    are masks.

    Args:
        cfg: with this project's keys.
        dataset: the dicts of the training images, which Copy-Paste copies from.

    Raises:
        ValueError: for Copy-Paste without masks, or values that `CopyPasteMapper` rejects.
    """
    args = DatasetMapper.from_config(cfg, is_train=True)
    jitter, pasting = cfg.INPUT.LARGE_SCALE_JITTER, cfg.INPUT.COPY_PASTE
    ignore_value = cfg.MODEL.SEMANTIC_BRANCH.IGNORE_VALUE
    if jitter.ENABLED:
        size = jitter.IMAGE_SIZE
        index = [isinstance(x, T.ResizeShortestEdge) for x in args["augmentations"]].index(True)
        args["augmentations"][index : index + 1] = [
            T.ResizeScale(jitter.MIN_SCALE, jitter.MAX_SCALE, size, size),
            T.FixedSizeCrop((size, size), pad=jitter.PAD, seg_pad_value=ignore_value),
        ]
        args["recompute_boxes"] = cfg.MODEL.MASK_ON
    mapper = PartialMasksMapper(**args)
    if not pasting.ENABLED:
        return mapper
    if not cfg.MODEL.MASK_ON:
        raise ValueError("INPUT.COPY_PASTE.ENABLED pastes by masks: it needs MODEL.MASK_ON True")
    return CopyPasteMapper(
        mapper,
        dataset,
        probability=pasting.PROBABILITY,
        max_instances=pasting.MAX_INSTANCES,
        sem_seg_ignore_value=ignore_value,
    )
