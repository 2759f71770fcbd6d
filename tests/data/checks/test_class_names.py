import pytest
from detectron2.data import MetadataCatalog

from hybrid_cascade.data import DatasetError
from hybrid_cascade.data.checks import check_same_classes


@pytest.fixture
def metadata():
    names = ("classes to train", "classes to test")
    yield [MetadataCatalog.get(name) for name in names]
    for name in names:
        MetadataCatalog.remove(name)


@pytest.mark.parametrize("key", ["thing_classes", "stuff_classes"])
def test_the_same_classes_in_another_order_are_an_error(metadata, key):
    metadata[0].set(**{key: ["fern", "moss", "tree"]})
    metadata[1].set(**{key: ["fern", "tree", "moss"]})
    with pytest.raises(DatasetError, match=f"`{key}`.*class 1 is 'tree' instead of 'moss'"):
        check_same_classes(metadata[0].as_dict(), "'classes to train'", ["classes to test"])


def test_other_names_are_logged(metadata, caplog):
    metadata[0].thing_classes = ["fern", "moss"]
    metadata[1].thing_classes = ["Farn", "Moos"]
    check_same_classes(metadata[0].as_dict(), "'classes to train'", ["classes to test"])
    assert "class 0 is 'Farn' instead of 'fern'" in caplog.text
