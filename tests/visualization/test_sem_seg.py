import numpy as np
import pytest

from hybrid_cascade.modeling import SemanticTargets
from hybrid_cascade.visualization.sem_seg import make_legend, semantic_names

from .fake_cascade import FakeCascade, metadata


@pytest.mark.parametrize("source, stuff", [("instances", ["table"] * 4), ("auto", None)])
def test_labels_of_painted_targets_are_things_and_background(source, stuff):
    model = FakeCascade(num_labels=4)
    model.semantic_targets = SemanticTargets(num_classes=4, num_things=3, source=source)
    names = semantic_names(model, metadata(stuff_classes=stuff))
    assert names == {0: "cup", 1: "fork", 2: "bowl", 3: "background"}
    legend = make_legend([np.full((60, 80), 3)], names, metadata(stuff_classes=stuff))
    assert [name for name, _ in legend.values()] == ["background"]


def test_the_legend_starts_with_the_most_frequent_label_and_takes_colours_of_the_metadata():
    sem_seg = np.array([[0, 1, 1, 4, 4, 4]])
    names = {0: "cup", 1: "sea", 4: "sand"}
    colors = [(0, 0, 0), (0, 51, 255)]
    legend = make_legend([sem_seg], names, metadata(stuff_colors=colors))
    assert list(legend) == [4, 1, 0]
    assert legend[1] == ("sea", (0, 0.2, 1)) and legend[0] == ("cup", (1, 0, 0))


def test_without_label_maps_there_is_no_legend():
    assert make_legend([], {0: "cup"}, metadata()) == {}
