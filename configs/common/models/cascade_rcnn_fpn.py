"""Cascade R-CNN: Cascade Mask R-CNN without its mask branches."""

from .cascade_mask_rcnn_fpn import model

for key in ("mask_in_features", "mask_pooler", "mask_heads"):
    model.roi_heads.pop(key)
