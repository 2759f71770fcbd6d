import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import BoxMode
from PIL import Image

from hybrid_cascade.data import BoxAwareMapper
from hybrid_cascade.model_zoo import get_config_file


class SeeBoxes(T.Augmentation):
    """Record the boxes that it is given."""

    def __init__(self):
        self.seen = []

    def get_transform(self, image, boxes):
        self.seen.append(boxes.tolist())
        return T.NoOpTransform()


@pytest.fixture
def dataset_dict(tmp_path):
    file_name = str(tmp_path / "image.png")
    Image.fromarray(np.random.randint(0, 256, (60, 80, 3), dtype=np.uint8)).save(file_name)
    box = {"bbox": [10.0, 20.0, 30.0, 20.0], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}
    crowd = {**box, "bbox": [0.0, 0.0, 80.0, 60.0], "iscrowd": 1}
    annotations = [box, crowd]
    return {"file_name": file_name, "height": 60, "width": 80, "annotations": annotations}


def mapper(*augmentations):
    return BoxAwareMapper(is_train=True, augmentations=list(augmentations), image_format="RGB")


def test_each_augmentation_sees_the_boxes_as_those_before_left_them(dataset_dict):
    before, after = SeeBoxes(), SeeBoxes()
    flip = T.RandomFlip(prob=1.0)
    output = mapper(before, flip, after)(dataset_dict)
    assert before.seen == [[[10.0, 20.0, 40.0, 40.0]]]
    assert after.seen == [[[40.0, 20.0, 70.0, 40.0]]]
    assert output["instances"].gt_boxes.tensor.tolist() == after.seen[0]


@pytest.mark.parametrize("annotations", [slice(1, 2), slice(0, 0)])
def test_images_with_crowds_only_or_nothing_have_no_boxes_to_see(dataset_dict, annotations):
    dataset_dict["annotations"] = dataset_dict["annotations"][annotations]
    see = SeeBoxes()
    output = mapper(see, T.MinIoURandomCrop())(dataset_dict)
    assert see.seen == [[]] and len(output["instances"]) == 0


def test_ssd_data_is_distorted_zoomed_cropped_and_flipped(dataset_dict):
    cfg = LazyConfig.load(get_config_file("ssd/ssd300_vgg16.py")).dataloader.train.mapper
    ssd_mapper = instantiate(cfg)
    whole = ssd_mapper(dataset_dict)["image"]
    larger = smaller = 0
    for seed in range(30):
        np.random.seed(seed)
        output = ssd_mapper(dataset_dict)
        height, width = output["image"].shape[-2:]
        larger += height > 60 and width > 80
        smaller += height < 60 and width < 80
        assert len(output["instances"]) == 1
        assert output["instances"].gt_boxes.nonempty().all()
        assert "gt_masks" not in output["instances"].get_fields()
    assert larger > 3 and smaller > 3
    assert whole.dtype == torch.uint8
