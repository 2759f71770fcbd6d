"""What setup.py says and copies, without compiling."""

import pkgutil
import re
import runpy
import sys
from pathlib import Path

import pytest
import setuptools
import yaml
from detectron2.config import LazyConfig
from packaging.requirements import Requirement

import hybrid_cascade
from hybrid_cascade.commands.main import main
from hybrid_cascade.engine.config_names import list_configs

ROOT = Path(__file__).parents[1]


@pytest.fixture
def arguments(monkeypatch):
    """The arguments of setup(), on a machine without torch, where nothing is compiled."""
    monkeypatch.chdir(ROOT)
    return run_setup(monkeypatch, without=["torch"])


def run_setup(monkeypatch, without):
    given = {}
    with monkeypatch.context() as patch:
        patch.setattr(setuptools, "setup", given.update)
        for package in without:
            patch.setitem(sys.modules, package, None)
        with pytest.warns(UserWarning, match="operators are not compiled"):
            runpy.run_path("setup.py")
    return given


def test_a_wheel_has_all_modules_and_configs_and_the_configs_import_one_another(
    arguments, tmp_path
):
    distribution = setuptools.Distribution({**arguments, "script_name": "setup.py"})
    command = distribution.get_command_obj("build_py")
    command.build_lib = str(tmp_path)
    command.ensure_finalized()
    stale = tmp_path / "hybrid_cascade" / "configs" / "of_an_earlier_build.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    command.run()
    package = ROOT / "projects" / "hybrid_cascade"
    built = tmp_path / "hybrid_cascade"
    for name in (path.relative_to(package) for path in package.rglob("*")):
        if name.suffix in (".py", ".html", ".css", ".js", ".typed"):
            assert (built / name).is_file(), name
    assert all((built / "configs" / name).is_file() for name in list_configs())
    assert not stale.exists() and not list(tmp_path.rglob("__pycache__"))
    config = LazyConfig.load(str(built / "configs" / "htc" / "htc_r50_fpn_1x.py"))
    assert config.model.roi_heads.num_classes == 80


def test_a_source_distribution_names_all_that_the_operators_are_built_from():
    patterns = re.findall(r"\*(\.\w+)", (ROOT / "MANIFEST.in").read_text())
    sources = (ROOT / "projects" / "hybrid_cascade" / "layers" / "csrc").rglob("*.*")
    assert {path.suffix for path in sources} <= set(patterns)


def test_the_version_has_one_source(arguments):
    assert arguments["version"] == hybrid_cascade.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == arguments["version"]


def test_the_description_points_at_no_file_of_the_repository(arguments):
    text = arguments["long_description"]
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert targets and all(target.startswith("https://") for target in targets)
    assert "![" not in text and "docs/which_config.md" in text


def test_requirements_do_not_depend_on_the_packages_of_the_machine(arguments, monkeypatch):
    assert "opencv-python" in arguments["install_requires"]  # cv2 is there
    other = run_setup(monkeypatch, without=["torch", "cv2", "timm"])
    assert other["install_requires"] == arguments["install_requires"]


def test_the_constraints_pin_the_default_environment_within_what_is_required(arguments):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.lower().split("==") for line in lines if not line.startswith("#"))
    required = (ROOT / "requirements.txt").read_text().splitlines()
    required += arguments["install_requires"]
    for requirement in map(Requirement, (x for x in required if x and not x.startswith("#"))):
        if requirement.name != "opencv-python":  # the default environment has the headless one
            assert requirement.specifier.contains(pinned[requirement.name.lower()]), requirement


def test_the_console_command_is_a_function_of_the_package(arguments):
    [entry] = arguments["entry_points"]["console_scripts"]
    name, _, target = entry.partition(" = ")
    assert name == "hybrid-cascade" and pkgutil.resolve_name(target) is main
