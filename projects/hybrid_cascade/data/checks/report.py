"""Faults of a dataset, counted by kind."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

logger = logging.getLogger(__name__)

MOST_EXAMPLES = 2
# Large datasets have a few annotations without area or outside of the image, COCO's training set
# too, and Detectron2 drops or clips them. More than this fraction of the instances is a mistake.
RARE = 1e-3


class DatasetError(ValueError):
    """The data cannot be trained on; the message names the file, the key and what to do."""


class Level(Enum):
    """How bad a kind of fault is."""

    ERROR = "error"  # stops
    FREQUENT = "frequent"  # stops if more than the fraction `RARE` of the instances have it
    ODD = "odd"  # is logged


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        title: what is wrong, such as "polygon with NaN".
        advice: what to do, in one or two sentences.
        level: how bad it is.
    """

    title: str
    advice: str
    level: Level = Level.ERROR


@dataclass
class Report:
    """The faults of a dataset.

    Attributes:
        where: the beginning of the message, such as "Dataset 'plants_train'".
        num_instances: the annotations that were read.
        counts: how often each kind was found.
        examples: the first places where it was found, such as "annotation 3 of image 'a.jpg'".
    """

    where: str
    num_instances: int = 0
    counts: Counter[Kind] = field(default_factory=Counter)
    examples: dict[Kind, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: Kind, example: str, count: int = 1) -> None:
        """Count faults, and keep one of them as an example."""
        self.counts[kind] += count
        if len(self.examples[kind]) < MOST_EXAMPLES:
            self.examples[kind].append(example)

    @property
    def errors(self) -> list[Kind]:
        """Return the kinds that stop a training, most frequent first."""
        return [kind for kind, count in self.counts.most_common() if self._stops(kind, count)]

    @property
    def oddities(self) -> list[Kind]:
        """Return the other kinds, most frequent first."""
        return [kind for kind, count in self.counts.most_common() if not self._stops(kind, count)]

    def _stops(self, kind: Kind, count: int) -> bool:
        if kind.level is Level.FREQUENT:
            return count > RARE * self.num_instances
        return kind.level is Level.ERROR

    def describe(self, kinds: Iterable[Kind]) -> str:
        """Return a line for each kind: how often, examples, what to do."""
        lines = [self.where]
        for kind in kinds:
            count, examples = self.counts[kind], "; ".join(self.examples[kind])
            times = "" if count == 1 else f", {count} times"
            more = "" if count <= len(self.examples[kind]) else "; …"
            lines.append(f"- {kind.title}{times}: {examples}{more}. {kind.advice}")
        return "\n".join(lines) if len(lines) != 2 else f"{lines[0]}: {lines[1][2:]}"

    def close(self, *, stop: bool = True) -> None:
        """Log the oddities, and raise the errors.

        Args:
            stop: False: log the errors too.

        Raises:
            DatasetError: if there are errors, with all of them.
        """
        if self.oddities:
            logger.warning("%s", self.describe(self.oddities))
        if not self.errors:
            return
        if stop:
            raise DatasetError(self.describe(self.errors))
        logger.warning("%s", self.describe(self.errors))
