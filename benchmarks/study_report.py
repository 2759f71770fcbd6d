"""The tables and the figure of the study."""

import math
import statistics
from pathlib import Path

from matplotlib.figure import Figure
from study_comparison import Runs, aps, difference, standard_error
from study_rows import COMPARISONS, ROWS, USUAL

TASKS = {"bbox": "box AP", "segm": "mask AP"}


def print_tables(runs: Runs, seconds: dict[str, float]) -> None:
    """Print the rows, and the differences, as Markdown.

    Args:
        runs: see `load_runs`.
        seconds: of an iteration of each row, where it was measured.
    """
    print("| model | seeds | box AP | mask AP | small, medium (masks) | s / iteration |")
    print("|---|---|---|---|---|---|")
    for row, of_row in runs.items():
        names = list(next(iter(of_row.values()))["evaluations"])
        for evaluation in names:
            title = ROWS[row].title + (f", {evaluation}" if evaluation != USUAL else "")
            cells = [with_error(list(aps(runs, row, evaluation, t).values())) for t in TASKS]
            cells += [", ".join(mean_of(of_row, evaluation, size) for size in ("APs", "APm"))]
            time = f"{seconds[row]:.2f}" if row in seconds and evaluation == USUAL else ""
            print(f"| {title} | {len(of_row)} | {' | '.join(cells)} | {time} |")
    print("\n| | box AP | error: seeds, images | | mask AP | error: seeds, images | |")
    print("|---|---|---|---|---|---|---|")
    for comparison in COMPARISONS:
        found = [difference(runs, comparison, task) for task in TASKS]
        if None not in found:
            cells = " | ".join(
                f"{d.value:+.1f} ± {2 * d.error:.1f} | {d.over_seeds:.1f}, {d.over_images:.1f} "
                f"| {d.verdict}"
                for d in found
            )
            claim = f" (claimed: {comparison.claim})" if comparison.claim else ""
            print(f"| {comparison.idea}{claim} | {cells} |")


def with_error(values: list[float]) -> str:
    """Return mean ± standard error, and the seeds' standard deviation."""
    if len(values) < 2:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {standard_error(values):.1f}"


def mean_of(of_row: dict[int, dict], evaluation: str, metric: str) -> str:
    of_seeds = [record["evaluations"][evaluation]["segm"][metric] for record in of_row.values()]
    return f"{statistics.mean(of_seeds):.1f}"


def draw(runs: Runs, seconds: dict[str, float], iterations: int, path: Path) -> None:
    """Draw AP, with the standard errors over seeds, against the seconds of a training."""
    figure = Figure(figsize=(12, 5.5), dpi=100, layout="constrained")
    for position, (task, label) in enumerate(TASKS.items(), start=1):
        axes = figure.add_subplot(1, 2, position, xlabel="seconds of a training", ylabel=label)
        axes.grid(alpha=0.3)
        for number, row in enumerate(row for row in runs if row in seconds):
            values = list(aps(runs, row, USUAL, task).values())
            error = standard_error(values)
            axes.errorbar(
                iterations * seconds[row],
                statistics.mean(values),
                yerr=None if math.isnan(error) else error,
                fmt="osD^v<>P"[number // 10],
                color=f"C{number % 10}",
                capsize=3,
                label=ROWS[row].title,
            )
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    figure.savefig(path)
