"""COCO instances, images of 800 pixels in RGB, as the published HTC models were trained."""

from detectron2.model_zoo import get_config

dataloader = get_config("common/data/coco.py").dataloader
dataloader.train.mapper.augmentations[0].short_edge_length = (800,)
dataloader.train.mapper.image_format = "RGB"
