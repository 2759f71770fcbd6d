"""Say what a conversion did, in a page rather than in a line for each tensor."""

import re
from collections.abc import Iterable, Iterator

from torch import nn

from .conversion import Conversion, Source


def describe(
    source: Source, result: Conversion, model: nn.Module | None = None, yaml: bool = False
) -> Iterator[str]:
    """Yield the lines of a report.

    Args:
        source: where the tensors came from.
        result: what became of them.
        model: the model that they shall be loaded into, to see whether it prepares images as they
            expect.
        yaml: name settings as a CfgNode has them rather than a LazyConfig.
    """
    sections = {
        "mapped": (result.mapped, " -> ", True),
        "not used": (result.left.items(), ": ", False),
        "starts fresh": (result.fresh.items(), ": ", False),
    }
    for title, (pairs, sign, both_names) in sections.items():
        if pairs:
            yield f"{title}: {len(pairs)} tensors"
        for group, what, number in _groups(pairs, both_names):
            yield f"  {group}{sign}{what} ({number})"
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


def _groups(pairs: Iterable[tuple[str, str]], both_names: bool) -> Iterator[tuple[str, str, int]]:
    """Pairs of a layer or stage in one: (names, what became of them, number of tensors)."""
    groups: dict[str, list[str]] = {}
    for name, what in pairs:
        groups.setdefault(_group(name), []).append(_group(what) if both_names else what)
    for group, whats in groups.items():
        different = list(dict.fromkeys(whats))
        more = f", and {len(different) - 4} more" if len(different) > 4 else ""
        yield group, ", ".join(different[:4]) + more, len(whats)


def _group(name: str) -> str:
    """The name up to its first number: "backbone.layer1" for backbone.layer1.0.conv1.weight."""
    return re.sub(r"\.\d+\..*$|\.[^.]+$", "", name, count=1)
