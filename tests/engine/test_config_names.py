import runpy
import shutil

import pytest

from hybrid_cascade import model_zoo
from hybrid_cascade.engine import find_config, load_config
from hybrid_cascade.engine.config_names import list_configs

TOY = "quick_start/mask_rcnn_toy.py"


@pytest.mark.parametrize("name", [TOY, f"configs/{TOY}"])
def test_a_name_stands_for_a_config_of_this_project_where_there_is_no_such_file(
    name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == model_zoo.get_config_file(TOY)
    assert load_config(name).train.max_iter > 0


def test_a_file_goes_before_a_config_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick_start").mkdir()
    (tmp_path / TOY).write_text("nothing = 1")
    assert find_config(TOY) == TOY


def test_a_name_of_nothing_is_answered_with_the_nearest_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="file 'htc/htc_r50_1x.py'.*htc_r50_fpn_1x"):
        load_config("htc/htc_r50_1x.py")
    with pytest.raises(FileNotFoundError, match="that name$"):
        load_config("/nowhere/my.py")


def test_all_configs_have_names_but_not_the_parts_that_they_share():
    names = list_configs()
    assert {TOY, "yaml/htc/htc_r50_fpn_1x.yaml"} <= set(names)
    assert not any(name.startswith("common") for name in names)


def test_the_configs_inside_of_an_installed_package_go_before_those_of_a_clone(tmp_path):
    module = tmp_path / "site" / "hybrid_cascade" / "engine" / "config_names.py"
    module.parent.mkdir(parents=True)
    shutil.copy(find_config.__code__.co_filename, module)
    assert runpy.run_path(str(module))["CONFIGS"] == tmp_path / "configs"
    inside = module.parents[1] / "configs"
    inside.mkdir()
    assert runpy.run_path(str(module))["CONFIGS"] == inside
