"""Describe a conversion: a page for people to read, with a line for each group of tensors."""

import re
from collections.abc import Iterable, Iterator

from torch import nn

from .conversion import Conversion, Source, shorten


def describe(
    source: Source, result: Conversion, model: nn.Module | None = None, yaml: bool = False
) -> Iterator[str]:
    """Yield the lines of a report.

    Args:
        source: the kind of checkpoint that was converted.
        result: the result of `convert`.
        model: the model that will load the tensors, to warn if it prepares images in another way
            than they expect.
        yaml: name settings as in a CfgNode instead of a LazyConfig.
    """
    sections = {
        "mapped": (result.mapped, " -> ", True),
        "not used": (result.left.items(), ": ", False),
        "starts fresh": (result.fresh.items(), ": ", False),
    }
    for title, (pairs, sign, both_names) in sections.items():
        if pairs:
            yield f"{title}: {len(pairs)} tensors"
        for group, outcome, number in _group_pairs(pairs, both_names):
            yield f"  {group}{sign}{outcome} ({number})"
    usual = source.preprocessing[0]
    if model is None or not any(p.fits(model) for p in source.preprocessing):
        yield (
            ("" if model is None else "WARNING: this config prepares images in another way. ")
            + f"{source.title}'s published models expect: {usual.overrides(yaml, model)}"
        )
    if model is not None and (problem := source.check(model, yaml)):
        yield f"WARNING: {problem}"
    settings = source.yaml_settings if yaml else source.lazy_settings
    if settings:
        yield f"for the numbers of {source.title} 3, evaluate a cascade with: {settings}"


def _group_pairs(
    pairs: Iterable[tuple[str, str]], both_names: bool
) -> Iterator[tuple[str, str, int]]:
    """Yield for each layer or stage: its name, what happened to its tensors, and their number.

    Args:
        pairs: (name of a tensor, what happened to it).
        both_names: what happened is a second name, which is shortened to its layer or stage too.
    """
    groups: dict[str, list[str]] = {}
    for name, outcome in pairs:
        outcomes = groups.setdefault(_to_group(name), [])
        outcomes.append(_to_group(outcome) if both_names else outcome)
    for group, outcomes in groups.items():
        yield group, shorten(list(dict.fromkeys(outcomes)), limit=4), len(outcomes)


def _to_group(name: str) -> str:
    """Cut a name before its first number: backbone.layer1.0.conv1.weight to "backbone.layer1"."""
    return re.sub(r"\.\d+\..*$|\.[^.]+$", "", name, count=1)
