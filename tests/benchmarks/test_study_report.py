import re

import pytest
from study_bootstrap import REPLICATES
from study_report import draw, print_tables


def record(row: str, seed: int, ap: float, iterations: int = 600) -> dict:
    """Return a record whose averaged weights are 1 better and evaluate without spread of images."""
    evaluations = {}
    for name, value in (("", ap), ("averaged weights", ap + 1)):
        of_task = {"AP": value, "APs": 30, "APm": 50, "occluded": 10}
        of_task["bootstrap"] = [value] * REPLICATES
        errors = {"surroundings": 2, "outline": 4}
        evaluations[name] = {"bbox": of_task, "segm": of_task, "class_errors": errors}
    curve = [[iterations // 2, ap - 10, ap - 12], [iterations, ap, ap - 2]]
    return {"row": row, "seed": seed, "curve": curve, "evaluations": evaluations}


@pytest.fixture
def schedules() -> dict:
    of_600 = {
        "mask_rcnn": {s: record("mask_rcnn", s, 40 + s) for s in (1, 3)},
        "cascade_mask_rcnn": {s: record("cascade_mask_rcnn", s, 50 + s) for s in (1, 3)},
    }
    from_scratch = {
        row: {3: record(row, 3, ap, 1200)}
        for row, ap in (("mask_rcnn", 55), ("cascade_mask_rcnn", 58))
    }
    return {"600_iterations": of_600, "1200_iterations_from_scratch": from_scratch}


def cells(text: str, start: str) -> list[str]:
    """Return the cells of the first line that starts so."""
    (line, *_) = re.findall(rf"^\| {re.escape(start)}.*$", text, flags=re.MULTILINE)
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_tables_show_means_errors_differences_curves_and_schedules(schedules, capsys):
    print_tables(schedules, "600_iterations", {"mask_rcnn": 0.25})
    text = capsys.readouterr().out
    mean = "42.0 ± 1.0"
    row = ["Mask R-CNN", "2", mean, mean, "30.0", "50.0", "10.0", "2.0", "4.0", "0.25"]
    assert cells(text, "Mask R-CNN | 2 | 42.0 ±") == row
    averaged = ["Mask R-CNN", "averaged weights", "43.0", "43.0", "1.4", "1.4"]
    assert cells(text, "Mask R-CNN | averaged") == averaged
    of_task = ["+10.0 ± 2.8", "1.4, 0.0", "better"]
    claim = "Cascade Mask R-CNN over Mask R-CNN (claimed: better)"
    assert cells(text, "Cascade Mask R-CNN over") == [claim, *of_task, *of_task]
    assert cells(text, "Mask R-CNN | 32.0")[1:] == ["32.0, 30.0", "42.0, 40.0"]
    assert cells(text, "Mask R-CNN | 42.0, 42.0 (2)")[2:] == ["55.0, 55.0 (1)"]
    by_schedule = ["+10.0 ± 2.8, +10.0 ± 2.8", "+3.0, +3.0"]
    assert cells(text, "Cascade Mask R-CNN over Mask R-CNN |")[1:] == by_schedule
    assert "HTC" not in text


def test_differences_that_are_in_one_schedule_are_not_compared_with_other_schedules(
    schedules, capsys
):
    del schedules["1200_iterations_from_scratch"]["mask_rcnn"]
    print_tables(schedules, "600_iterations", {})
    assert "| Cascade Mask R-CNN over Mask R-CNN |" not in capsys.readouterr().out


def test_a_difference_of_one_seed_has_no_error(schedules, capsys):
    del schedules["600_iterations"]["mask_rcnn"][3]
    print_tables(schedules, "600_iterations", {})
    text = capsys.readouterr().out
    of_task = ["+11.0", "unknown, 0.0", "one seed"]
    assert cells(text, "Cascade Mask R-CNN over")[1:] == [*of_task, *of_task]
    assert "nan" not in text


def test_the_figure_shows_the_rows_whose_seconds_were_measured(schedules, tmp_path):
    pictures = [tmp_path / name for name in ("one.png", "both.png")]
    draw(schedules["600_iterations"], {"mask_rcnn": 0.25}, 600, pictures[0])
    draw(
        schedules["600_iterations"], {"mask_rcnn": 0.25, "cascade_mask_rcnn": 0.4}, 600, pictures[1]
    )
    one, both = (picture.read_bytes() for picture in pictures)
    assert one != both
