"""Give the tensors of another project's checkpoint the names that they have in our models."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from .preprocessing import Preprocessing
from .weights_file import read_weights

# The layers whose output channels follow the number of classes.
_CLASS_LAYER = re.compile(
    r"(cls_score|bbox_pred|predictor|classification_head\.module_list\.\d+)\.(weight|bias)$"
)


@dataclass(frozen=True)
class Layout:
    """What the names of a model depend on.

    Attributes:
        bottom_ups: the prefix of the ResNet or VGG, "backbone." where there is no pyramid; one for
            each of `SeparateBackbones`.
        stages: box stages of the cascade, 0 for a model without one.
        vgg_heads: prefixes of the RoI heads that have fc6 and fc7 of VGG-16, as fc1 and fc2.
    """

    bottom_ups: tuple[str, ...] = ("backbone.bottom_up.",)
    stages: int = 3
    vgg_heads: tuple[str, ...] = ()

    @classmethod
    def of(cls, target: Mapping[str, torch.Tensor]) -> "Layout":
        """The layout of the model with this state dict."""
        prefix = re.compile(r"backbone\.(backbones\.\w+\.|bottom_up\.)")
        bottom_ups = dict.fromkeys(m[0] for m in map(prefix.match, target) if m) or ["backbone."]
        stages = {m[1] for m in (re.match(r"roi_heads\.box_head\.(\d+)\.", n) for n in target) if m}
        vgg_heads = (
            name.removesuffix("fc1.weight")
            for name, tensor in target.items()
            if re.fullmatch(r"roi_heads\.(box|masked)_head\.fc1\.weight", name)
            and tensor.shape == (4096, 512 * 7 * 7)
        )
        return cls(tuple(bottom_ups), len(stages), tuple(vgg_heads))


@dataclass(frozen=True)
class Source:
    """A project whose checkpoints can be converted.

    Attributes:
        title: its name, for messages.
        rename: (name of a tensor there, layout of the model here) -> names here, [] for none.
        left_out: for names that have no counterpart, a pattern and the reason.
        must_fill: the parameters of a model that a checkpoint has to give a value, a pattern; the
            others start fresh.
        preprocessing: what images the published models expect, the usual one first.
        lazy_settings, yaml_settings: overrides of our configs that make up for other differences
            between the two projects, for the same numbers.
        refuse: raises a ValueError for a relative of the format that can't be read.
        adapt: (tensors there, tensors of the model or None) -> tensors there in our order and
            scale, where a name does not make them ours, without the classes that the model lacks.
        check: what else in a model makes the weights compute something else, with the overrides of
            a LazyConfig, or of a CfgNode where the second argument is true; "" if nothing.
        read: the file's tensors by name; the second argument lets it run code of the file.
    """

    title: str
    rename: Callable[[str, Layout], list[str]]
    left_out: Mapping[str, str]
    must_fill: str
    preprocessing: tuple[Preprocessing, ...]
    lazy_settings: str = ""
    yaml_settings: str = ""
    refuse: Callable[[Mapping[str, torch.Tensor]], None] = lambda state_dict: None
    adapt: Callable[
        [Mapping[str, torch.Tensor], Mapping[str, torch.Tensor] | None],
        Mapping[str, torch.Tensor],
    ] = lambda state_dict, target: state_dict
    check: Callable[[nn.Module, bool], str] = lambda model, yaml: ""
    read: Callable[[str, bool], Mapping[str, torch.Tensor]] = read_weights


@dataclass
class Conversion:
    """What became of a checkpoint.

    Attributes:
        state_dict: the tensors under their new names.
        mapped: (name there, name here) of each of them.
        left: names there that are not used, and why.
        fresh: names here that keep their initialization, and why.
    """

    state_dict: dict[str, torch.Tensor] = field(default_factory=dict)
    mapped: list[tuple[str, str]] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)


def convert(
    source: Source,
    state_dict: Mapping[str, torch.Tensor],
    target: Mapping[str, torch.Tensor] | None = None,
) -> Conversion:
    """Rename tensors; values change only where `source.adapt` changes them.

    Args:
        source: where they come from.
        state_dict: the checkpoint's tensors.
        target: the state dict of the model that shall load them; without it, nothing is known about
            shapes, and the model is taken to be a cascade of three stages on a feature pyramid.

    Raises:
        ValueError: if nothing can be mapped, a tensor has the wrong shape, or a parameter of the
            model that `source.must_fill` names gets no value; lists the names.
    """
    source.refuse(state_dict)
    state_dict = source.adapt(state_dict, target)
    layout = Layout() if target is None else Layout.of(target)
    result = Conversion()
    wrong_shapes = []
    for name, tensor in state_dict.items():
        new_names = source.rename(name, layout)
        if not new_names:
            reasons = (why for pattern, why in source.left_out.items() if re.search(pattern, name))
            result.left[name] = next(reasons, f"not a name of {source.title} that we know")
        for new_name in new_names:
            if _is_counter(new_name) and (target is None or new_name not in target):
                result.left[name] = "a counter that batch norm does not need"
            elif target is not None and new_name not in target:
                result.left[name] = f"the model has no {new_name}"
            elif target is None or tensor.shape == target[new_name].shape:
                result.state_dict[new_name] = tensor
                result.mapped.append((name, new_name))
            else:
                shapes = f"{tuple(tensor.shape)}, the model's {tuple(target[new_name].shape)}"
                may_differ = source.must_fill and not re.match(source.must_fill, new_name)
                same_inputs = tensor.shape[1:] == target[new_name].shape[1:]
                if may_differ and same_inputs and _CLASS_LAYER.search(new_name):
                    result.fresh[new_name] = f"other classes: {name} is {shapes}"
                else:
                    wrong_shapes.append(f"{name} is {shapes} {new_name}")
    if not any(not _is_counter(name) for name in result.state_dict) and not wrong_shapes:
        raise ValueError(
            f"Nothing in the file has the name of a {source.title} weight"
            + (" that this model has" if target is not None else "")
            + _some(list(state_dict), ". In the file")
        )
    missing = []
    for name in target or ():
        if name in result.state_dict or name in result.fresh or _is_counter(name):
            continue
        if re.match(source.must_fill, name):
            missing.append(name)
        else:
            result.fresh[name] = "not in the file"
    if wrong_shapes or missing:
        raise ValueError(
            "The file does not fit the model of this config"
            + _some(wrong_shapes, ". Wrong shapes")
            + _some(missing, ". Parameters that get no value")
            + _some(list(result.left), ". Not used")
        )
    return result


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _some(names: list[str], title: str, limit: int = 6) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{title} ({len(names)}): {', '.join(names[:limit])}{more}" if names else ""
