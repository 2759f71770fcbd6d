"""VOC 2007 and 2012 (trainval), with SBD's masks where it has them; tested on VOC 2007's test.

About two thirds of the images have masks, the others boxes only.
"""

from detectron2.config import LazyCall as L
from detectron2.evaluation import PascalVOCDetectionEvaluator

from .sbd import dataloader

dataloader.train.dataset.names = [
    "sbd_train",
    "sbd_val",
    "voc_2012_trainval_without_sbd",
    "voc_2007_trainval",
]
dataloader.test.dataset.names = "voc_2007_test"
dataloader.evaluator = L(PascalVOCDetectionEvaluator)(
    dataset_name="${dataloader.test.dataset.names}"
)
