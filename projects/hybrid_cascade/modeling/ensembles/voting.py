"""Several MNC models and several sizes of an image vote together on its masks."""

from collections.abc import Iterator, Sequence

import detectron2.data.transforms as T
import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from torch import Tensor, nn

from ..mnc.roi_heads import Candidates, MNCROIHeads


class VotingEnsemble(nn.Module):
    """Joins what all stages of all models find in all views of an image, for one mask voting.

    So did the winning entry of COCO 2015 (arXiv 1512.03385, appendix B; MNC, Section 5.3), of which
    this is the inference. Images should come in their original size, as the views are made of them.
    """

    def __init__(
        self,
        models: Sequence[GeneralizedRCNN],
        short_sides: Sequence[int] = (),
        max_size: int = 1333,
        flip: bool = False,
    ):
        """
        Args:
            models: with `MNCROIHeads` and the same classes. The thresholds of the first count.
            short_sides: the sizes that images are resized to; none: as they come.
            max_size: bound of the longer side.
            flip: look at the mirrored views, too.

        Raises:
            ValueError: for models with other heads, or different numbers of classes.
        """
        super().__init__()
        for model in models:
            if not isinstance(getattr(model, "roi_heads", None), MNCROIHeads):
                raise ValueError("VotingEnsemble joins models with MNCROIHeads only")
        classes = [model.roi_heads.num_classes for model in models]
        if len(set(classes)) != 1:
            raise ValueError(f"VotingEnsemble joins models of the same classes, not of {classes}")
        self.models = nn.ModuleList(models)
        self.resizes = [T.ResizeShortestEdge(side, max_size) for side in short_sides]
        self.flips = (False, True) if flip else (False,)

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """As `GeneralizedRCNN.inference`; masks are voted in the size of the output."""
        return [{"instances": self._detect(x)} for x in batched_inputs]

    def _detect(self, x: dict):
        size = x.get("height", x["image"].shape[1]), x.get("width", x["image"].shape[2])
        candidates = []
        for view in self._views(x["image"]):
            for flip in self.flips:
                for model in self.models:
                    found = self._look(model, view.flip(2) if flip else view)
                    frame = view.shape[1:]
                    candidates += [to_frame(c, frame, size, flip) for c in found]
        return detector_postprocess(self.models[0].roi_heads.merge(candidates, size), *size)

    def _views(self, image: Tensor) -> Iterator[Tensor]:
        if not self.resizes:
            yield image
        pixels = image.permute(1, 2, 0).cpu().numpy()
        for resize in self.resizes:
            resized = resize.get_transform(pixels).apply_image(pixels)
            yield torch.as_tensor(resized).permute(2, 0, 1)

    @staticmethod
    def _look(model: GeneralizedRCNN, image: Tensor) -> list[Candidates]:
        images = model.preprocess_image([{"image": image}])
        features = model.backbone(images.tensor)
        proposals, _ = model.proposal_generator(images, features)
        [candidates] = model.roi_heads.find_candidates(features, proposals)
        return candidates


def to_frame(
    candidates: Candidates, frame: tuple[int, int], size: tuple[int, int], flip: bool
) -> Candidates:
    """Candidates of a view of (height, width) `frame`, mirrored or not, in an image of `size`."""
    scale_y, scale_x = size[0] / frame[0], size[1] / frame[1]

    def move(boxes: Tensor) -> Tensor:
        boxes = boxes.unflatten(1, (-1, 4))
        if flip:
            x1, y1, x2, y2 = boxes.unbind(2)
            boxes = torch.stack([frame[1] - x2, y1, frame[1] - x1, y2], dim=2)
        return (boxes * boxes.new_tensor([scale_x, scale_y] * 2)).flatten(1)

    return Candidates(
        stage=candidates.stage,
        boxes=move(candidates.boxes),
        masks=candidates.masks.flip(2) if flip else candidates.masks,
        scores=candidates.scores,
        class_boxes=move(candidates.class_boxes),
    )
