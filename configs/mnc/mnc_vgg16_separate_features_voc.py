"""MNC, three stages, each with its own VGG-16. Published: mAP^r 60.2 at IoU 0.5."""

from detectron2.config import LazyCall as L

from hybrid_cascade.modeling import VGG16, SeparateBackbones

from .mnc_vgg16_3stage_voc import dataloader, lr_multiplier, model, optimizer, train

model.backbone = L(SeparateBackbones)(
    proposal=L(VGG16)(out_features=["conv5_3"], freeze_at=2),
    mask=L(VGG16)(out_features=["conv5_3"], freeze_at=2),
    category=L(VGG16)(out_features=["conv5_3"], freeze_at=2),
)
model.proposal_generator.in_features = ["proposal.conv5_3"]
model.roi_heads.mask_in_features = ["mask.conv5_3"]
model.roi_heads.in_features = ["category.conv5_3"]
model.roi_heads.end_to_end = False
