import json
import re
import sys
from pathlib import Path

import pytest
import study
import study_semantic
from study_rows import ROWS
from study_schedule import RECORDS

ROOT = Path(__file__).parents[2]


def table_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


@pytest.fixture
def printed(monkeypatch, tmp_path, capsys) -> list[str]:
    """Return the lines of the tables that `study.py table` prints of the records of this clone."""
    monkeypatch.setattr(sys, "argv", ["study.py", "table", "--output", str(tmp_path)])
    assert study.main() == 0
    return table_lines(capsys.readouterr().out)


def test_without_a_place_for_the_figure_it_is_drawn_in_the_output(printed, tmp_path):
    assert (tmp_path / "600_iterations" / "figure.png").read_bytes().startswith(b"\x89PNG")


def run(monkeypatch, tmp_path, *options: str) -> int:
    argv = ["study.py", "run", "--output", str(tmp_path), "--rows", "htc", *options]
    monkeypatch.setattr(sys, "argv", argv)
    return study.main()


def test_without_a_run_that_is_left_nothing_is_pretrained(monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, tmp_path) == 0
    assert "All have a record" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_rows_from_another_backbone_than_that_of_the_records_are_not_trained(monkeypatch, tmp_path):
    for weights in (b"", b"other"):  # not there yet; there, and others than those of the records
        if weights:
            (tmp_path / "pretraining").mkdir()
            (tmp_path / "pretraining" / "bottom_up.pth").write_bytes(weights)
        with pytest.raises(SystemExit, match=r"bottom_up.pth is not.*Move its folders"):
            run(monkeypatch, tmp_path, "--seeds", "99")


def test_the_tables_of_the_docs_are_those_of_the_records(printed, capsys):
    of_branches = json.loads((RECORDS / "semantic_600_iterations.json").read_text())["rows"]
    study_semantic.print_tables(of_branches)
    known = {*printed, *table_lines(capsys.readouterr().out)}
    documented = table_lines((ROOT / "docs" / "study.md").read_text())
    assert len(documented) > 50
    assert [line for line in documented if line not in known] == []


def test_the_table_of_the_readme_is_that_of_the_records(printed):
    start = printed.index(next(line for line in printed if line.startswith("| model | seeds")))
    rows = {}
    for line in printed[start + 2 : start + 2 + len(ROWS)]:
        title, _, box_ap, mask_ap, *_, seconds = re.split(r" *\| *", line.strip("| "))
        rows[title] = f"| {title} | {box_ap} | {mask_ap} | {seconds} |"
    _, readme = (
        (ROOT / "README.md")
        .read_text()
        .split("| model | box AP | mask AP | seconds an iteration |\n|---|---|---|---|\n")
    )
    in_readme = readme.split("\n\n")[0].splitlines()
    assert len(in_readme) > 5
    assert [line for line in in_readme if line not in rows.values()] == []
