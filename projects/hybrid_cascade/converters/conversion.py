"""Rename the tensors of another project's checkpoint, so that one of our models can load them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from .layer_names import Layout
from .preprocessing import Preprocessing
from .weight_values import find_fault
from .weights_file import read_weights

# The layers whose output channels follow the number of classes.
_CLASS_LAYER = re.compile(
    r"(cls_score|bbox_pred|predictor|classification_head\.module_list\.\d+)\.(weight|bias)$"
)
# `Source.must_fill` for ImageNet weights. They contain no pyramid, and no offsets of deformable
# convolutions, which start at zero.
IMAGENET_LAYERS = r"backbone\.(?!fpn_)(?!.*conv2_offset)"


@dataclass(frozen=True)
class Source:
    """A kind of checkpoint that can be converted.

    Attributes:
        title: the name of the project, for messages.
        rename: (name of a tensor in the file, layout of the model) -> its names in the model. An
            empty list means that the model has nothing for it.
        left_out: regular expressions for names that the model has nothing for, with the reasons.
            The first that is found in the name counts.
        preprocessing: the images that the published models expect, the most common one first.
        must_fill: a regular expression for the start of the names of those parameters that must get
            a value. The default matches all of them. The others may start fresh.
        lazy_settings, yaml_settings: overrides of our configs with which a model computes the same
            as in the other project, in spite of its other defaults.
        refuse: a function that raises a ValueError for a similar format that can't be converted.
        adapt: (tensors of the file, tensors of the model or None) -> tensors of the file. Changes
            values where names are not enough: reorders and scales them, drops classes.
        check: (model, whether its config is a CfgNode) -> a problem because of which the model
            computes something else with these weights, with the overrides that mend it; "" if
            there is none.
        read: (path, whether the file may run code) -> the tensors of the file by name.
    """

    title: str
    rename: Callable[[str, Layout], list[str]]
    left_out: Mapping[str, str]
    preprocessing: tuple[Preprocessing, ...]
    must_fill: str = ""
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
    """The result of a conversion.

    Attributes:
        state_dict: the tensors under their names in our model.
        mapped: (name in the file, name in the model) of each of them.
        left: the names in the file that are not used, each with the reason.
        fresh: the names in the model that keep their initialization, each with the reason.
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
    """Rename the tensors of a checkpoint; values change only where `source.adapt` changes them.

    Args:
        source: the kind of checkpoint.
        state_dict: its tensors.
        target: the state dict of the model that will load the result. Without it, no shapes are
            compared, and names are those of a cascade of three stages on a feature pyramid.

    Raises:
        ValueError: if nothing can be used, if a tensor has the wrong shape or values that are no
            weights (see `find_fault`), or if a parameter that `source.must_fill` names gets no
            value. The message lists the names.
    """
    source.refuse(state_dict)
    try:
        state_dict = source.adapt(state_dict, target)
    except (IndexError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"A tensor of the file does not have the shape of {source.title}'s: {error}"
        ) from error
    layout = Layout() if target is None else Layout.of(target)
    result = Conversion()
    wrong_shapes = []
    for name, tensor in state_dict.items():
        new_names = source.rename(name, layout)
        if not new_names:
            result.left[name] = _find_reason(source, name)
        for new_name in new_names:
            if _is_counter(new_name) and (target is None or new_name not in target):
                result.left[name] = "a counter that batch norm does not need"
            elif target is not None and new_name not in target:
                result.left[name] = f"the model has no {new_name}"
            elif target is None or tensor.shape == target[new_name].shape:
                result.state_dict[new_name] = tensor
                result.mapped.append((name, new_name))
            else:
                shape, expected = tuple(tensor.shape), tuple(target[new_name].shape)
                mismatch = f"{name} is {shape}, the model's {expected}"
                # The same layer for another number of classes.
                is_class_layer = shape[1:] == expected[1:] and _CLASS_LAYER.search(new_name)
                if is_class_layer and not _must_fill(source, new_name):
                    result.fresh[new_name] = f"other classes: {mismatch}"
                else:
                    wrong_shapes.append(f"{mismatch} {new_name}")
    if all(map(_is_counter, result.state_dict)) and not wrong_shapes:
        raise ValueError(
            f"Nothing in the file has the name of a {source.title} weight"
            + (" that this model has" if target is not None else "")
            + _list_names(". In the file", list(state_dict))
        )
    missing = []
    for name in target or ():
        if name in result.state_dict or name in result.fresh or _is_counter(name):
            continue
        if _must_fill(source, name):
            missing.append(name)
        else:
            result.fresh[name] = "not in the file"
    if wrong_shapes or missing:
        raise ValueError(
            "The file does not fit the model of this config"
            + _list_names(". Wrong shapes", wrong_shapes)
            + _list_names(". Parameters that get no value", missing)
            + _list_names(". Not used", list(result.left))
        )
    faults = [
        find_fault(name, state_dict[name], None if target is None else target[new_name])
        for name, new_name in dict(result.mapped).items()
        if not _is_counter(name)
    ]
    if faults := list(filter(None, faults)):
        raise ValueError("The file" + _list_names(" has values that are no weights", faults))
    return result


def shorten(names: list[str], limit: int) -> str:
    """Join names with commas, and count those after the first `limit`: "a, b and 3 more"."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _list_names(title: str, names: list[str]) -> str:
    return f"{title} ({len(names)}): {shorten(names, limit=6)}" if names else ""


def _find_reason(source: Source, name: str) -> str:
    reasons = (reason for pattern, reason in source.left_out.items() if re.search(pattern, name))
    return next(reasons, f"not a name of {source.title} that we know")


def _must_fill(source: Source, name: str) -> bool:
    return re.match(source.must_fill, name) is not None


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")
