import detectron2.data.transforms as T
import numpy as np
import pytest

from hybrid_cascade.data import ZoomOut


def test_the_image_and_its_boxes_move_together():
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    image[10:20, 30:50] = 255
    boxes = np.array([[30.0, 10.0, 50.0, 20.0]])
    sizes = set()
    for seed in range(20):
        np.random.seed(seed)
        aug_input = T.AugInput(image, boxes=boxes, sem_seg=np.zeros((40, 60), dtype=np.uint8))
        ZoomOut(max_ratio=3.0, pad_value=115)(aug_input)
        canvas, (box,) = aug_input.image, aug_input.boxes.astype(int)
        assert canvas.dtype == np.uint8
        assert 40 <= canvas.shape[0] <= 120 and 60 <= canvas.shape[1] <= 180
        assert (canvas == 255).sum() == 3 * 10 * 20
        assert (canvas[box[1] : box[3], box[0] : box[2]] == 255).all()
        assert (canvas == 0).sum() == 3 * (40 * 60 - 10 * 20)
        assert ((canvas == 115).all(axis=2) == (aug_input.sem_seg == 255)).all()
        sizes.add(canvas.shape)
    assert len(sizes) > 10


def test_a_ratio_of_one_changes_nothing():
    image = np.random.randint(0, 256, (7, 1, 3), dtype=np.uint8)
    aug_input = T.AugInput(image)
    ZoomOut(max_ratio=1.0)(aug_input)
    assert (aug_input.image == image).all()


def test_a_smaller_canvas_is_an_error():
    with pytest.raises(ValueError, match="max_ratio=0.5"):
        ZoomOut(max_ratio=0.5)
