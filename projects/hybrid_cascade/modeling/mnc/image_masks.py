"""Masks of the size of the image, where Detectron2 expects masks of the inside of boxes."""

import torch
from detectron2.structures import BitMasks, Boxes, ROIMasks
from torch.nn import functional as F


class ImageMasks(ROIMasks):
    """Masks (R, H, W) that `detector_postprocess` resizes with the image.

    As "pred_masks" of instances they go where probabilities of the inside of boxes, (R, 1, M, M) or
    `ROIMasks`, go, for example the masks that `mask_voting` finds.
    """

    def to(self, device: torch.device) -> "ImageMasks":
        return ImageMasks(super().to(device).tensor)

    def __getitem__(self, item: slice | torch.Tensor) -> "ImageMasks":
        """See `ROIMasks`. As there, an int raises a ValueError."""
        return ImageMasks(super().__getitem__(item).tensor)

    def to_bitmasks(
        self, boxes: Boxes, height: int, width: int, threshold: float = 0.5
    ) -> BitMasks:
        """
        Args:
            boxes: not used: the masks know where they are.
            height, width: size of the result, in pixels.
            threshold: pixels of the resized (bilinear) masks from this value on are set.
        """
        resized = self.tensor.new_empty((len(self), height, width), dtype=torch.bool)
        # A few at a time, as floats take four times the memory.
        for target, masks in zip(resized.split(16), self.tensor.split(16), strict=True):
            floats = F.interpolate(masks[:, None].float(), (height, width), mode="bilinear")
            torch.ge(floats[:, 0], threshold, out=target)
        return BitMasks(resized)
