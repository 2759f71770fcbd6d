import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from .scenes import Scenes


@pytest.fixture
def make(tmp_path, request):
    def make_scenes(truth):
        scenes = Scenes(tmp_path, truth)
        request.addfinalizer(lambda: DatasetCatalog.remove(scenes.name))
        request.addfinalizer(lambda: MetadataCatalog.remove(scenes.name))
        return scenes

    return make_scenes
