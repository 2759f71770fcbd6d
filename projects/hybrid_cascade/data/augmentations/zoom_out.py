"""SSD's augmentation for small objects (arXiv 1512.02325, Sec. 3.6): a larger canvas."""

import detectron2.data.transforms as T
import numpy as np


class ZoomOut(T.Augmentation):
    """Put the image at a random place on a canvas that is 1 to `max_ratio` times as wide and high.

    The canvas is gray, because Detectron2's `PadTransform` fills all channels with the same value.
    Label maps (`sem_seg`) are padded with 255, "ignored".
    """

    def __init__(self, max_ratio: float = 4.0, pad_value: int = 115):
        """
        Args:
            max_ratio: at least 1.
            pad_value: 0 to 255; the default is the mean of SSD's pixel means.

        Raises:
            ValueError: if `max_ratio` is smaller than 1.
        """
        super().__init__()
        if max_ratio < 1:
            raise ValueError(f"max_ratio={max_ratio} is smaller than 1")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draw a canvas for an image, (H, W, C) or (H, W)."""
        height, width = image.shape[:2]
        ratio = self._rand_range(1, self.max_ratio)
        more_x, more_y = int(width * (ratio - 1)), int(height * (ratio - 1))
        x, y = np.random.randint(more_x + 1), np.random.randint(more_y + 1)
        return T.PadTransform(
            x, y, more_x - x, more_y - y, width, height, self.pad_value, seg_pad_value=255
        )
