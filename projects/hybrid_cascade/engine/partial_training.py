"""Train some parts of a model, on some of its losses."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from detectron2.engine.hooks import HookBase
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def freeze_parts(model: nn.Module, names: Sequence[str]) -> None:
    """Keep the parameters of some parts of a model as they are, in place.

    Gradients still flow through the parts into others. Batch norms of the parts need
    `KeepFrozenStatistics`, too.

    Args:
        model: the model.
        names: of modules, such as "backbone" or "roi_heads.mask_head", with all that is inside.

    Raises:
        ValueError: if the model has no such module, or if nothing is left to train.
    """
    for part in find_parts(model, names):
        part.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"train.freeze (SOLVER.FREEZE) {list(names)} leaves nothing to train")


def find_parts(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Return the modules with these names.

    Raises:
        ValueError: if the model has no module of a name.
    """
    return [_find_part(model, name) for name in names]


def _find_part(model: nn.Module, name: str) -> nn.Module:
    part, path = model, []
    for step in name.split("."):
        children = dict(part.named_children())
        if step not in children:
            raise ValueError(
                f"train.freeze (SOLVER.FREEZE): the model has no part {name!r}; "
                f"{'.'.join(path) or 'it'} has {list(children)}"
            )
        part = children[step]
        path.append(step)
    return part


def select_losses(model: nn.Module, patterns: Sequence[str]) -> None:
    """Let a model train on some of its losses, in place.

    The others are still computed and logged, but have no gradients. With several processes,
    parameters that no selected loss trains must be frozen (`freeze_parts`), as
    `DistributedDataParallel` waits for the gradients of all others.

    Args:
        model: returns a dict of losses in training.
        patterns: names of losses, with the wildcards of a shell, such as "loss_rpn_*". In training,
            the model raises a ValueError if one of them fits no loss.
    """

    def detach_others(model: nn.Module, _inputs: Any, losses: Any) -> dict[str, Tensor] | None:
        if not model.training:  # the argument: a copy of the model has this hook, too
            return None
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in losses):
                raise ValueError(
                    f"train.losses (SOLVER.LOSSES): the model has no loss {pattern!r}, but "
                    f"{sorted(losses)}"
                )
        return {
            name: loss if any(fnmatchcase(name, p) for p in patterns) else loss.detach()
            for name, loss in losses.items()
        }

    model.register_forward_hook(detach_others)


class KeepFrozenStatistics(HookBase):
    """Keep the batch norms of frozen parts in eval mode, so that their statistics stay."""

    def __init__(self, parts: Sequence[nn.Module]):
        """
        Args:
            parts: the frozen modules.
        """
        self.norms = [m for part in parts for m in part.modules() if isinstance(m, _BatchNorm)]

    def before_step(self) -> None:
        for norm in self.norms:  # an evaluation sets all modules back to training mode
            norm.eval()
