"""Inference with several views of an image and several checkpoints of a model."""

from copy import deepcopy
from dataclasses import dataclass

from detectron2.config import CfgNode
from omegaconf import DictConfig
from torch import nn

from ..modeling import MNCROIHeads, RCNNEnsemble, RCNNWithTestTimeAugmentation, VotingEnsemble
from .checkpointer import load_weights


@dataclass
class TestTimeOptions:
    """`train.test_time` of a LazyConfig, TEST.AUG and TEST.CHECKPOINTS of a CfgNode."""

    checkpoints: list[str]  # of further models, beside train.init_checkpoint or MODEL.WEIGHTS
    short_sides: list[int]
    max_size: int
    flip: bool

    @classmethod
    def of(cls, cfg: DictConfig | CfgNode) -> "TestTimeOptions":
        if not isinstance(cfg, CfgNode):
            return cls(**cfg.train.test_time)
        views = cfg.TEST.AUG
        sides = list(views.MIN_SIZES) if views.ENABLED else []
        flip = views.ENABLED and views.FLIP
        return cls(list(cfg.TEST.CHECKPOINTS), sides, views.MAX_SIZE, flip)


def with_test_time_options(cfg: DictConfig | CfgNode, model: nn.Module) -> nn.Module:
    """A model that detects as the config's test-time options say; the model itself without any.

    The models and views of MNC vote together on masks. Those of other R-CNNs are averaged, the
    models within each view.

    Raises:
        ValueError: if the model has no way to join what it finds.
        FileNotFoundError: for a checkpoint that does not exist.
    """
    options = TestTimeOptions.of(cfg)
    views = (options.short_sides, options.max_size, options.flip)
    has_views = bool(options.short_sides or options.flip)
    if not (options.checkpoints or has_views):
        return model
    for output in ("output_sem_seg", "output_panoptic_seg"):
        if getattr(model, output, False):
            raise ValueError(f"Test-time options join instances only: set model.{output}=False")
    models = [model]
    for path in options.checkpoints:
        models.append(deepcopy(model))
        load_weights(models[-1], path)
    if isinstance(getattr(model, "roi_heads", None), MNCROIHeads):
        return VotingEnsemble(models, *views).eval()
    joined = RCNNEnsemble(models) if options.checkpoints else model
    return (RCNNWithTestTimeAugmentation(joined, *views) if has_views else joined).eval()
