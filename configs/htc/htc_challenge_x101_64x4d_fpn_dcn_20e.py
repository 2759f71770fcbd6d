"""HTC with the extensions of the COCO 2018 challenge (arXiv 1901.07518, Section 4.4), 20 epochs.

The paper reports mask AP 49.0 on COCO test-dev for the whole system. Of its parts, these are here:
deformable convolutions, synchronized batch norms, in the semantic branch too, training on short
sides of 400 to 1400 pixels, and five mirrored sizes at test time. These are not: guided anchoring,
which Detectron2 lacks, and the deformable SENet-154, in place of which there is ResNeXt-101-64x4d.
For an ensemble, give more checkpoints. Images should reach the views in their original size:

    ./train_net.py --config-file configs/htc/htc_challenge_x101_64x4d_fpn_dcn_20e.py --eval-only \\
        train.init_checkpoint=a.pth train.test_time.checkpoints=[b.pth] \\
        'dataloader.test.mapper.augmentations=[]'
"""

from ..common.backbones.resnet import resnet_stages
from .htc_x101_64x4d_fpn_dcn_20e import dataloader, lr_multiplier, model, optimizer, train

_NORM = "SyncBN"
# The stem and res2 are frozen, and their norms with them.
model.backbone.bottom_up.stages = resnet_stages(
    101, num_groups=64, width_per_group=4, deform=True, norm=_NORM
)
model.backbone.norm = _NORM
model.semantic_branch.norm = _NORM
model.roi_heads.mask_heads[0].conv_norm = _NORM
# Training and its own evaluations use none of these views.
train.test_time.short_sides = [600, 800, 1000, 1200, 1400]
train.test_time.max_size = [900, 1200, 1500, 1800, 2100]  # of each
train.test_time.flip = True
