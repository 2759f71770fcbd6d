"""How long the rows of the study are trained and from which start, and where their files are."""

from dataclasses import dataclass
from pathlib import Path

from record import RESULTS

RECORDS = RESULTS / "study"


@dataclass(frozen=True)
class Schedule:
    """Of trainings that can be compared.

    iterations: of each training.
    from_scratch: without the backbone of study_pretraining.py.
    """

    iterations: int
    from_scratch: bool = False

    @property
    def name(self) -> str:
        return f"{self.iterations}_iterations" + ("_from_scratch" if self.from_scratch else "")

    @property
    def records(self) -> Path:
        """The folder of the records."""
        return RECORDS / self.name

    def record(self, row: str, seed: int) -> Path:
        """Return where the record of a run is."""
        return self.records / f"{row}_{seed}.json"

    def folder(self, output: Path, row: str, seed: int) -> Path:
        """Return where a run leaves its weights and detections, in the output of the study."""
        return output / self.name / f"{row}_{seed}"

    def weights(self, output: Path, row: str, seed: int) -> Path:
        """Return where the trained weights of a run are."""
        return self.folder(output, row, seed) / "weights_final.pth"


def pretrained_weights(output: Path) -> Path:
    """Return where study_pretraining.py leaves the backbone."""
    return output / "pretraining" / "bottom_up.pth"
