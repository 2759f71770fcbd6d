"""What a graph records: inference for one image, with or without Detectron2's postprocessing.

Shapes: D detections of the image, H x W the size of the output, M the side of a mask.
"""

import torch
from detectron2.export import TracingAdapter
from detectron2.modeling import MViT, SwinTransformer
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import BitMasks, Instances, ROIMasks
from torch import Tensor, nn

from ..layers.resizing import interpolation_weights


def detect(model: nn.Module, batched_inputs: list[dict]) -> list[Instances]:
    """Return what the model detects, before it is resized to an output size."""
    if hasattr(model, "inference"):
        return model.inference(batched_inputs, do_postprocess=False)
    return [x["instances"] for x in model(batched_inputs)]  # SSD


def detect_and_paste(
    model: nn.Module, batched_inputs: list[dict], output_size: Tensor
) -> list[Instances]:
    """Return what the model detects in an image, at an output size.

    That is Detectron2's postprocessing. Masks are pasted all at once, by products of matrices,
    which a graph can record; a pixel whose probability is 0.5 up to rounding may differ.

    Args:
        output_size: (2,) int64, (H, W).
    """
    [instances] = detect(model, batched_inputs)
    if instances.has("pred_masks"):
        instances.pred_masks = _PastedByProducts(instances.pred_masks[:, 0])
    return [detector_postprocess(instances, *output_size.unbind())]


def adapter_of(model: nn.Module, image: Tensor, paste_masks: bool) -> TracingAdapter:
    """Return a module that takes the tensors of `inputs_of` and returns those of the detections."""
    inputs = inputs_of(image, (1, 1) if paste_masks else None)
    detector = detect_and_paste if paste_masks else detect
    return TracingAdapter(model, ([{"image": image}], *inputs[1:]), detector).eval()


def inputs_of(image: Tensor, output_size: tuple[int, int] | None) -> tuple[Tensor, ...]:
    """Return the inputs of a graph: the image, and (2,) the output size if there is one."""
    if output_size is None:
        return (image,)
    return image, torch.tensor(output_size, device=image.device)


class _PastedByProducts(ROIMasks):
    """Mask probabilities (D, M, M) that know how to paste themselves into an image."""

    def __getitem__(self, item) -> "_PastedByProducts":
        return _PastedByProducts(self.tensor[item])

    def to_bitmasks(self, boxes: Tensor, height: int, width: int, threshold: float) -> BitMasks:
        """Return the masks (D, H, W).

        Bilinear resizing is one product with the weights of each row of the mask in each row of the
        image, and one with those of the columns.
        """
        x1, y1, x2, y2 = boxes.tensor.unbind(1)
        side = self.tensor.shape[-1]
        rows = _weights(y1, y2, height, side)
        columns = _weights(x1, x2, width, side)
        return BitMasks(rows @ self.tensor @ columns.transpose(1, 2) >= threshold)


def _weights(low: Tensor, high: Tensor, pixels: int, cells: int) -> Tensor:
    """Return the weight of each cell of a mask in each pixel, (D, pixels, cells), along one axis.

    Args:
        low, high: (D,), the ends of the boxes, in pixels.
    """
    centers = torch.arange(pixels, device=low.device) + 0.5
    in_box = (centers - low[:, None]) / (high - low)[:, None]
    return interpolation_weights(in_box * cells - 0.5, cells)


def check_traceable(model: nn.Module) -> None:
    """Raise a ValueError if the model is known to do something that a trace can't record.

    That is a loop or a branch that depends on the data, or an output beside instances.
    """
    heads = getattr(model, "roi_heads", None)
    if getattr(heads, "soft_nms", "none") != "none":
        raise ValueError(
            f"soft_nms={heads.soft_nms!r} loops until no box is left, which a trace cannot record:"
            " set model.roi_heads.soft_nms=none (MODEL.ROI_HTC_HEAD.SOFT_NMS none)"
        )
    if getattr(heads, "test_output", "") == "voting":
        raise ValueError(
            "MNC's mask voting visits the tiles of the image that have masks, which a trace cannot"
            " record: set model.roi_heads.test_output=nms (MODEL.ROI_MNC_HEAD.TEST_OUTPUT nms)"
        )
    for output in ("output_sem_seg", "output_panoptic_seg"):
        if getattr(model, output, False):
            raise ValueError(f"Instances are exported, nothing else: set model.{output}=False")
    if getattr(model, "proposal_generator", model) is None:
        raise ValueError("The model has no proposal_generator, and an image is its only input")
    for module in model.modules():
        if isinstance(module, (SwinTransformer, MViT)):
            raise ValueError(
                f"Detectron2's {type(module).__name__} computes with the size of the image in"
                " Python: a trace would be good for one size only"
            )
