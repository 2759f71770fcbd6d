"""HTC with a ResNet-50-FPN, as published (arXiv 1901.07518)."""

from hybrid_cascade import use_semantic_branch
from hybrid_cascade.data import stuff_labels_of

from .cascade_mask_rcnn_fpn import model

use_semantic_branch(model, num_classes=183)
model.stuff_labels = stuff_labels_of("coco_2017_train_stuffthings")
model.roi_heads.interleaved = True
model.roi_heads.mask_information_flow = True
model.roi_heads.box_predictors[0].test_score_thresh = 0.001
