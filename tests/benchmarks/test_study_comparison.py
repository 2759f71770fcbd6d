import math

import numpy as np
import pytest
from study_bootstrap import REPLICATES
from study_comparison import Difference, check_backbones, difference
from study_rows import COMPARISONS, ROWS, Comparison


def record(**aps: list[float]) -> dict:
    """Return a record with AP, followed by the replicates, for each way to evaluate."""
    return {
        "evaluations": {
            name.replace("usual", ""): {"segm": {"AP": values[0], "bootstrap": values[1:]}}
            for name, values in aps.items()
        }
    }


def replicates(ap: float, spread: float, seed: int) -> list[float]:
    return [ap, *(ap + spread * np.random.default_rng(seed).standard_normal(REPLICATES))]


def test_errors_over_seeds_of_two_rows_add_up_and_images_are_paired():
    runs = {
        "htc": {s: record(usual=replicates(60 + s, 3, seed=0)) for s in (1, 2, 3)},
        "mask_rcnn": {s: record(usual=replicates(50 + 2 * s, 3, seed=0)) for s in (1, 2, 3)},
    }
    found = difference(runs, Comparison("", ("htc", ""), ("mask_rcnn", "")), "segm")
    assert found.value == pytest.approx(62 - 54)
    assert found.over_seeds == pytest.approx(math.sqrt((1 + 4) / 3))
    assert found.over_images == pytest.approx(0, abs=1e-9)  # both vary alike
    assert found.verdict == "better"


def test_replicates_that_vary_apart_are_an_error_over_images():
    runs = {
        "htc": {s: record(usual=replicates(60, 3, seed=0)) for s in (1, 2)},
        "mask_rcnn": {s: record(usual=replicates(55, 3, seed=1)) for s in (1, 2)},
    }
    found = difference(runs, Comparison("", ("htc", ""), ("mask_rcnn", "")), "segm")
    assert found.over_images == pytest.approx(math.sqrt(2) * 3, rel=0.2)
    assert found.verdict == "not found"


def test_two_evaluations_of_the_same_weights_are_compared_seed_by_seed():
    runs = {
        "mnc": {
            s: record(usual=replicates(60 + 5 * s, 1, 0), nms=replicates(58 + 5 * s, 1, 0))
            for s in (1, 2, 3)
        }
    }
    found = difference(runs, Comparison("", ("mnc", ""), ("mnc", "nms")), "segm")
    assert (found.value, found.over_seeds) == (pytest.approx(2), pytest.approx(0))


def test_one_seed_decides_nothing_and_a_missing_row_is_no_difference():
    runs = {"htc": {1: record(usual=replicates(60, 1, 0))}}
    runs["mnc"] = {1: record(usual=replicates(50, 1, 0))}
    comparison = Comparison("", ("htc", ""), ("mnc", ""))
    assert difference(runs, comparison, "segm").verdict == "one seed"
    del runs["mnc"]
    assert difference(runs, comparison, "segm") is None


@pytest.mark.parametrize("value, verdict", [(2.1, "better"), (1.9, "not found"), (-2.1, "worse")])
def test_a_difference_counts_beyond_twice_its_error(value, verdict):
    assert Difference(value, 0.6, 0.8).verdict == verdict


def test_comparisons_are_of_rows_and_evaluations_that_exist():
    for comparison in COMPARISONS:
        for row, evaluation in (comparison.new, comparison.old):
            assert evaluation in {"", *ROWS[row].inference}


def test_records_of_two_pretrained_backbones_are_refused_by_name():
    mixed = {"htc": {1: {"backbone": "a"}}, "mnc": {1: {"backbone": "b"}, 2: {"backbone": "b"}}}
    with pytest.raises(SystemExit, match=r"600_iterations/htc_1.json and 600_iterations/mnc_2"):
        check_backbones({"600_iterations": mixed})


def test_records_of_one_backbone_and_those_from_scratch_go_together():
    from_scratch = {"htc": {1: {"backbone": None}}}
    pretrained = {"htc": {1: {"backbone": "a"}}, "mnc": {1: {"backbone": "a"}}}
    check_backbones({"600_iterations": pretrained, "600_iterations_from_scratch": from_scratch})
