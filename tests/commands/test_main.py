import runpy
import sys
from pathlib import Path

import pytest

from hybrid_cascade import __version__
from hybrid_cascade.commands.main import COMMANDS, main

SCRIPTS = sorted((Path(__file__).parents[2] / "tools").glob("*.py"))


@pytest.fixture
def call(monkeypatch):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["hybrid-cascade", *arguments])
        return main()

    return call


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself_under_its_name(call, capsys, name):
    with pytest.raises(SystemExit) as stopped:
        call(name, "--help")
    assert stopped.value.code == 0
    assert f"usage: hybrid-cascade {name} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code"), [((), 2), (("detect",), 2), (("--help",), 0), (("-h",), 0)]
)
def test_without_a_command_all_are_listed(call, capsys, arguments, code):
    assert call(*arguments) == code
    output = capsys.readouterr()
    assert all(f"  {name} " in output.out for name in COMMANDS)
    assert ("no command 'detect'" in output.err) == (arguments == ("detect",))


def test_the_version_is_that_of_the_package(call, capsys):
    assert call("--version") == 0
    assert capsys.readouterr().out == f"hybrid-cascade {__version__}\n"


def test_evaluate_does_not_train(call, monkeypatch):
    given = []
    monkeypatch.setattr(
        "hybrid_cascade.commands.train.launch", lambda run, args: given.append(args)
    )
    assert call("evaluate", "--config-file", "x.py", "a=1") == 0
    assert call("train", "--config-file", "x.py") == 0
    assert [(x.eval_only, x.config_file) for x in given] == [(True, "x.py"), (False, "x.py")]
    assert given[0].opts == ["a=1"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_each_script_is_a_command(path):
    modules = {f"hybrid_cascade.commands.{module}" for module, _, _ in COMMANDS.values()}
    assert runpy.run_path(str(path))["main"].__module__ in modules
