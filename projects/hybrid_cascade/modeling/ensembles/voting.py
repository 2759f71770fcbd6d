"""Several MNC models, of one config or of several, and several views of an image vote together."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import replace

import detectron2.data.transforms as T
import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances
from torch import Tensor, nn

from ..mnc.candidates import Candidates
from ..mnc.roi_heads import MNCROIHeads
from .members import boxes_of_one_kind, check_members, images_for, masks_of_one_size
from .sizes import size_limits


class VotingEnsemble(nn.Module):
    """Joins the candidates of all stages of all models in all views of an image in one mask voting.

    The winning entry of COCO 2015 made its detections this way (arXiv 1512.03385, appendix B; MNC,
    Section 5.3). Images should come in their original size, as the views are made of them.

    The models may differ in their backbones, numbers of stages, normalization of the pixels,
    padding, RGB or BGR. Masks get the resolution of the first model's.
    """

    def __init__(
        self,
        models: Sequence[GeneralizedRCNN],
        short_sides: Sequence[int] = (),
        max_size: int | Sequence[int] = 1333,
        flip: bool = False,
    ):
        """
        Args:
            models: with `MNCROIHeads` and the same classes. The heads of the first merge the
                candidates of all, by their `test_output` and thresholds. Images come in the
                `input_format` of the first.
            short_sides: the sizes, in pixels, that images are resized to; if there are none, images
                keep their size.
            max_size: bound of the longer side of resized images, in pixels; or a list with one for
                each short side.
            flip: add the mirrored views.

        Raises:
            ValueError: for models with other heads, and for models that differ in classes, in input
                formats other than "RGB" and "BGR", or, if `test_output` is "boxes" (those of the
                last stage), in the numbers of stages.
        """
        super().__init__()
        for model in models:
            if not isinstance(getattr(model, "roi_heads", None), MNCROIHeads):
                raise ValueError("VotingEnsemble joins models with MNCROIHeads only")
        check_members(models)
        heads = [model.roi_heads for model in models]
        stages = [h.test_stages or h.num_stages for h in heads]
        if heads[0].test_output == "boxes" and len(set(stages)) != 1:
            raise ValueError(
                f"test_output='boxes' joins models that run the same number of stages, not {stages}"
            )
        self.models = nn.ModuleList(models)
        limits = size_limits(short_sides, max_size)
        self.resizes = [
            T.ResizeShortestEdge(side, limit)
            for side, limit in zip(short_sides, limits, strict=True)
        ]
        self.flips = (False, True) if flip else (False,)

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """Return detections as `GeneralizedRCNN.inference` does; masks have the output size."""
        return [{"instances": self._detect(x)} for x in batched_inputs]

    def _detect(self, x: dict) -> Instances:
        size = x.get("height", x["image"].shape[1]), x.get("width", x["image"].shape[2])
        candidates = []
        for view in self._views(x["image"]):
            for flip in self.flips:
                for model in self.models:
                    found = self._find_candidates(model, view.flip(2) if flip else view)
                    candidates += [map_to_image(c, view.shape[1:], size, flip) for c in found]
        heads = self.models[0].roi_heads
        candidates = _of_one_kind(candidates, heads.num_classes)
        return detector_postprocess(heads.merge(candidates, size), *size)

    def _views(self, image: Tensor) -> Iterator[Tensor]:
        """Yield an image (C, h, w) in the sizes that the models see."""
        if not self.resizes:
            yield image
        pixels = image.permute(1, 2, 0).cpu().numpy()
        for resize in self.resizes:
            resized = resize.get_transform(pixels).apply_image(pixels)
            yield torch.tensor(resized).permute(2, 0, 1)  # the array may not be writable: copy

    def _find_candidates(self, model: GeneralizedRCNN, image: Tensor) -> list[Candidates]:
        input_format = self.models[0].input_format
        images = model.preprocess_image(images_for(model, [{"image": image}], input_format))
        features = model.backbone(images.tensor)
        proposals, _ = model.proposal_generator(images, features)
        [candidates] = model.roi_heads.find_candidates(features, proposals)
        return candidates


def _of_one_kind(candidates: list[Candidates], num_classes: int) -> list[Candidates]:
    """Return candidates whose masks and class boxes can be put together."""
    masks = masks_of_one_size([c.masks[:, None] for c in candidates])
    class_boxes = boxes_of_one_kind([c.class_boxes for c in candidates], num_classes)
    return [
        dataclasses.replace(c, masks=m[:, 0], class_boxes=b)
        for c, m, b in zip(candidates, masks, class_boxes, strict=True)
    ]


def map_to_image(
    candidates: Candidates, view_size: tuple[int, int], image_size: tuple[int, int], flip: bool
) -> Candidates:
    """Return the candidates of a view with their boxes and masks where they are in the image.

    Args:
        candidates: of the view.
        view_size: its height and width, in pixels.
        image_size: (H, W), in pixels.
        flip: whether the view is mirrored.
    """
    scale_y, scale_x = image_size[0] / view_size[0], image_size[1] / view_size[1]

    def move(boxes: Tensor) -> Tensor:
        boxes = boxes.unflatten(1, (-1, 4))
        if flip:
            x1, y1, x2, y2 = boxes.unbind(2)
            boxes = torch.stack([view_size[1] - x2, y1, view_size[1] - x1, y2], dim=2)
        return (boxes * boxes.new_tensor([scale_x, scale_y] * 2)).flatten(1)

    return replace(
        candidates,
        boxes=move(candidates.boxes),
        masks=candidates.masks.flip(2) if flip else candidates.masks,
        class_boxes=move(candidates.class_boxes),
    )
