"""What a value may be: rules, each with a text that ends the sentence "… has to be"."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """What a value has to be.

    Attributes:
        text: the end of the sentence "The value has to be".
        holds: tells whether a value is so. Values are those of a file: numbers, texts, None, lists
            (or tuples) and dicts of them.
    """

    text: str
    holds: Callable[[Any], bool]

    def __or__(self, other: "Rule") -> "Rule":
        return Rule(
            f"{self.text}, or {other.text}", lambda x: self.holds(x) or bool(other.holds(x))
        )


def whole(low: int | None = None, high: int | None = None) -> Rule:
    """Return the rule for a whole number in [low, high]."""
    return Rule(
        f"a whole number{_range(low, high)}",
        lambda x: _is_number(x) and isinstance(x, int) and _is_within(x, low, high),
    )


def number(low: float | None = None, high: float | None = None) -> Rule:
    """Return the rule for a finite number in [low, high]."""
    return Rule(
        f"a number{_range(low, high)}", lambda x: _is_number(x) and _is_within(x, low, high)
    )


def above(low: float, *, finite: bool = True) -> Rule:
    """Return the rule for a number that is greater than `low`."""
    return Rule(
        f"a number above {low}",
        lambda x: (
            isinstance(x, int | float)
            and not isinstance(x, bool)
            and x > low
            and (math.isfinite(x) or not finite)
        ),
    )


def below_one() -> Rule:
    """Return the rule for a number in [0, 1)."""
    return Rule("a number in [0, 1)", lambda x: _is_number(x) and 0 <= x < 1)


def one_of(*values: Any) -> Rule:
    """Return the rule for one of several values."""
    return Rule(
        "one of " + ", ".join(map(repr, values)),
        lambda x: any(type(x) is type(value) and x == value for value in values),
    )


def list_of(rule: Rule, least: int = 0, most: int | None = None) -> Rule:
    """Return the rule for a list with so many members, which all follow a rule."""
    number = "" if least == 0 else f"{least} " if least == most else f"at least {least} "
    return Rule(
        f"a list of {number}values, each {rule.text}",
        lambda x: (
            _is_list(x)
            and least <= len(x) <= (len(x) if most is None else most)
            and all(map(rule.holds, x))
        ),
    )


def ascending(rule: Rule) -> Rule:
    """Return the rule for a list whose members follow a rule and do not descend."""
    members = list_of(rule)
    return Rule(f"{members.text}, ascending", lambda x: members.holds(x) and list(x) == sorted(x))


def nested(rule: Rule) -> Rule:
    """Return the rule for lists of lists, to any depth, whose members follow a rule."""

    def holds(x: Any) -> bool:
        return len(x) > 0 and all(map(holds, x)) if _is_list(x) else rule.holds(x)

    return Rule(f"a list, or lists, of values that are each {rule.text}", holds)


def one_or_list_of(rule: Rule) -> Rule:
    """Return the rule for a value, or a list with at least one, that follows a rule."""
    members = list_of(rule, 1)
    return Rule(
        f"{rule.text}, or a list of such", lambda x: rule.holds(x) or bool(members.holds(x))
    )


def matching(pattern: str, text: str) -> Rule:
    """Return the rule for a text that matches a regular expression."""
    return Rule(text, lambda x: isinstance(x, str) and re.fullmatch(pattern, x) is not None)


def values_of_dict(rule: Rule) -> Rule:
    """Return the rule for a dict whose values follow a rule."""
    return Rule(
        f"a dict of values that are each {rule.text}",
        lambda x: isinstance(x, dict) and all(map(rule.holds, x.values())),
    )


def _is_list(x: Any) -> bool:
    return isinstance(x, Sequence) and not isinstance(x, str)


def _is_number(x: Any) -> bool:
    # A whole number may have more digits than a float can hold.
    return not isinstance(x, bool) and (
        isinstance(x, int) or (isinstance(x, float) and math.isfinite(x))
    )


def _is_within(x: float, low: float | None, high: float | None) -> bool:
    return (low is None or x >= low) and (high is None or x <= high)


def _range(low: float | None, high: float | None) -> str:
    if high is None:
        return "" if low is None else f" of {low} or more"
    return f" of at most {high}" if low is None else f" in [{low}, {high}]"


NONE = Rule("None", lambda x: x is None)
SWITCH = Rule("True or False", lambda x: isinstance(x, bool))
LIST = Rule("a list", _is_list)
TEXT = Rule("a text", lambda x: isinstance(x, str))
NAME = Rule("a text that is not empty", lambda x: isinstance(x, str) and x != "")
PROBABILITY = number(0, 1)
CALLABLE = Rule("a function or class", callable)
