"""The tables and the figure of the study."""

import itertools
import math
import statistics
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from study_comparison import Difference, Runs, aps, difference, standard_error
from study_rows import COMPARISONS, ROWS, USUAL

TASKS = {"bbox": "box AP", "segm": "mask AP"}


def print_tables(schedules: dict[str, Runs], compared: str, seconds: dict[str, float]) -> None:
    """Print what was found, as Markdown.

    Args:
        schedules: the records of each schedule: see `load_schedules`.
        compared: the schedule whose rows are compared.
        seconds: of an iteration of each row, where it was measured.
    """
    runs = schedules[compared]
    print_rows(runs, seconds)
    print_other_evaluations(runs)
    print_comparisons(runs)
    print_curves(runs)
    print_schedules(schedules)
    print_comparisons_of_schedules(schedules)


def print_table(*header: str) -> None:
    """Print the header of a table."""
    print(f"\n| {' | '.join(header)} |\n|{'---|' * len(header)}")


def print_line(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |")


def print_rows(runs: Runs, seconds: dict[str, float]) -> None:
    """Print AP of each row with its standard error over seeds, and what of objects is mistaken."""
    print_table(
        "model", "seeds", "box AP", "mask AP", "masks: small", "medium", "occluded",
        "surroundings wrong, %", "outline wrong, %", "s / iteration",
    )  # fmt: skip
    for row, of_row in runs.items():
        evaluated = [record["evaluations"][USUAL] for record in of_row.values()]
        means = [
            statistics.mean(x[part][metric] for x in evaluated)
            for part, metric in (
                ("segm", "APs"),
                ("segm", "APm"),
                ("segm", "occluded"),
                ("class_errors", "surroundings"),
                ("class_errors", "outline"),
            )
        ]
        print_line(
            ROWS[row].title,
            str(len(of_row)),
            *(with_error(list(aps(runs, row, USUAL, task).values())) for task in TASKS),
            *(f"{mean:.1f}" for mean in means),
            f"{seconds[row]:.2f}" if row in seconds else "",
        )


def print_other_evaluations(runs: Runs) -> None:
    """Print AP of the same weights evaluated in other ways, and the spread of seeds."""
    print_table("model", "evaluated", "box AP", "mask AP", "deviation of seeds: box", "mask")
    for row, of_row in runs.items():
        for evaluation in next(iter(of_row.values()))["evaluations"]:
            of_tasks = [list(aps(runs, row, evaluation, task).values()) for task in TASKS]
            print_line(
                ROWS[row].title,
                evaluation or "as trained",
                *(f"{statistics.mean(values):.1f}" for values in of_tasks),
                *(f"{statistics.stdev(x):.1f}" if len(x) > 1 else "" for x in of_tasks),
            )


def print_comparisons(runs: Runs) -> None:
    """Print the differences with twice their errors, and whether they are beyond."""
    print_table(
        "", "box AP", "error: seeds, images", "box", "mask AP", "error: seeds, images", "mask"
    )
    for comparison in COMPARISONS:
        found = [difference(runs, comparison, task) for task in TASKS]
        if None in found:
            continue
        claim = f" (claimed: {comparison.claim})" if comparison.claim else ""
        print_line(comparison.idea + claim, *itertools.chain(*map(_cells, found)))


def _cells(found: Difference) -> tuple[str, str, str]:
    """Return a difference with twice its error, its two errors, and the verdict."""
    value = f"{round(found.value, 1) + 0.0:+.1f}"  # without "-0.0"
    if math.isnan(found.error):
        return value, f"unknown, {found.over_images:.1f}", found.verdict
    value += f" ± {2 * found.error:.1f}"
    return value, f"{found.over_seeds:.1f}, {found.over_images:.1f}", found.verdict


def print_curves(runs: Runs) -> None:
    """Print AP of the averaged weights during training, on the scenes for that."""
    first = next(iter(next(iter(runs.values())).values()))
    print_table("box AP, mask AP after", *(f"{point[0]} iterations" for point in first["curve"]))
    for row, of_row in runs.items():
        points = zip(*(record["curve"] for record in of_row.values()), strict=True)
        means = [np.mean(of_seeds, axis=0) for of_seeds in points]
        print_line(ROWS[row].title, *(f"{box:.1f}, {mask:.1f}" for _, box, mask in means))


def print_schedules(schedules: dict[str, Runs]) -> None:
    """Print AP of the rows that were trained in several schedules, and of how many seeds it is."""
    print_table("box AP, mask AP (seeds)", *(name.replace("_", " ") for name in schedules))
    for row in ROWS:
        of_schedules = [runs[row] for runs in schedules.values() if row in runs]
        if len(of_schedules) > 1:
            print_line(ROWS[row].title, *(_means(runs, row) for runs in schedules.values()))


def print_comparisons_of_schedules(schedules: dict[str, Runs]) -> None:
    """Print the differences that were found in several schedules, with twice their errors."""
    print_table("box AP, mask AP", *(name.replace("_", " ") for name in schedules))
    for comparison in COMPARISONS:
        found = [
            [difference(runs, comparison, task) for task in TASKS] for runs in schedules.values()
        ]
        if sum(None not in of_tasks for of_tasks in found) > 1:
            cells = (
                "" if None in of_tasks else ", ".join(_cells(d)[0] for d in of_tasks)
                for of_tasks in found
            )
            print_line(comparison.idea, *cells)


def _means(runs: Runs, row: str) -> str:
    if row not in runs:
        return ""
    means = (statistics.mean(aps(runs, row, USUAL, task).values()) for task in TASKS)
    return ", ".join(f"{mean:.1f}" for mean in means) + f" ({len(runs[row])})"


def with_error(values: list[float]) -> str:
    """Return mean ± standard error."""
    if len(values) < 2:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {standard_error(values):.1f}"


def draw(runs: Runs, seconds: dict[str, float], iterations: int, path: Path) -> None:
    """Draw AP, with the standard errors over seeds, against the seconds of a training."""
    figure = Figure(figsize=(12, 6.5), dpi=100, layout="constrained")
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
                markersize=5,
                capsize=3,
                label=ROWS[row].title,
            )
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    figure.savefig(path)
