"""HTC with a ResNet-50-FPN, as published (arXiv 1901.07518)."""

from hybrid_cascade import use_semantic_branch

from .htc_without_semantic_fpn import model

use_semantic_branch(model, num_classes=183)
model.semantic_branch.loss_mean = "all"
model.semantic_branch.label_sampling = "corner"
model.stuff_labels = []  # for panoptic output: those of the dataset to train on
