"""A sample of the cases, and the frame that judges them. `python -m tests.fuzz` runs them all."""

import pytest

from tests.layers import emulated_cuda

from . import case as case_module
from .case import BAD, GOOD, KINDS, Case, _judge, make_case, run


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_of_malformed_inputs_works_or_is_refused_by_name(kind):
    if kind == "cuda_operators":
        if emulated_cuda.COMPILER is None:
            pytest.skip("there is no C++ compiler (g++)")
        emulated_cuda.build()  # not within the time of a case
    for index in range(5):
        outcome = run(kind, 7, index)
        assert outcome.kind in GOOD, (make_case(kind, 7, index).name, outcome)


@pytest.mark.parametrize("kind", KINDS)
def test_cases_are_those_of_their_seed_and_differ(kind):
    names = [make_case(kind, 0, index).name for index in range(40)]
    assert names == [make_case(kind, 0, index).name for index in range(40)]
    assert len(set(names)) > 10


@pytest.mark.parametrize(
    ("names", "phase", "error", "kind"),
    [
        ("a.json", "check", ValueError("a.json has no images"), "refused"),
        ("a.json", "use", ValueError("a.json has no images"), "late"),
        ("a.json", "check", ValueError("no images"), "unclear"),
        ("a.json", "check", AttributeError("a.json"), "unclear"),
        (None, "check", ValueError("a.json has no images"), "unclear"),
    ],
)
def test_an_error_is_good_if_it_comes_early_and_names_what_is_wrong(names, phase, error, kind):
    case = Case("dataset: no images", check=lambda folder: None, names=names)
    assert _judge(case, phase, error).kind == kind
    assert (kind in GOOD) != (kind in BAD)


@pytest.mark.parametrize("kind", GOOD + BAD)
def test_every_outcome_is_seen(kind, monkeypatch):
    monkeypatch.setattr(case_module, "SECONDS", 3 if kind == "hang" else 60)
    index = next(i for i in range(1000) if make_case("examples", 0, i).name == kind)
    outcome = run("examples", 0, index)
    assert outcome.kind == kind
    assert ("the last words" in outcome.detail) == (kind == "crash")
