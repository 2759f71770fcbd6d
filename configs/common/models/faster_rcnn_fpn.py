"""Detectron2's Faster R-CNN: Mask R-CNN without its mask branch."""

from .mask_rcnn_fpn import model

for key in ("mask_in_features", "mask_pooler", "mask_head"):
    model.roi_heads.pop(key)
