"""HTC with a ResNet-50-FPN on COCO at 320 pixels, from scratch, a hundred iterations.

This is a test with real images from the dataset to the evaluation, not a way to get a detector. It
needs COCO's instances only: the semantic branch learns from label maps painted from them.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from hybrid_cascade import use_semantic_branch

from ..common.data.coco import dataloader
from ..common.models.htc_without_semantic_fpn import model
from ..common.toy_schedule import lr_multiplier, optimizer, train

use_semantic_branch(model, source="instances")
model.semantic_branch.loss_mean = "all"
model.semantic_branch.label_sampling = "corner"
model.roi_heads.batch_size_per_image = 64
model.proposal_generator.post_nms_topk = (500, 200)
# Without ImageNet weights, the batch norms have to learn their statistics.
model.backbone.bottom_up.freeze_at = 0
model.backbone.bottom_up.stem.norm = model.backbone.bottom_up.stages.norm = "BN"

resize = L(T.ResizeShortestEdge)(short_edge_length=320, max_size=544)
dataloader.train.mapper.augmentations = [resize, L(T.RandomFlip)(horizontal=True)]
dataloader.test.mapper.augmentations = [resize]
dataloader.train.total_batch_size = 2
dataloader.train.num_workers = dataloader.test.num_workers = 0

optimizer.lr = 2e-4
train.max_iter = 100
train.output_dir = "./output/quick_start_coco"
