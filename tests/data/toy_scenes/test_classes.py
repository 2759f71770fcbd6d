from hybrid_cascade.data.toy_scenes import COLORS, SEMANTIC_CLASSES, STUFF_CLASSES, THING_CLASSES
from hybrid_cascade.data.toy_scenes.classes import HOMES, OUTLINES, STUFF_LABELS


def test_an_outline_on_some_stuff_is_one_class_only():
    seen = [(OUTLINES[name], home) for name in THING_CLASSES for home in HOMES[name]]
    assert len(seen) == len(set(seen))
    assert {home for _, home in seen} == set(range(len(STUFF_CLASSES)))


def test_an_outline_alone_does_not_tell_the_class_where_there_are_two():
    names_of = {}
    for name, outline in OUTLINES.items():
        names_of.setdefault(outline, set()).add(name)
    assert names_of == {
        "disc": {"ball", "buoy"},
        "triangle": {"tent", "sail"},
        "diamond": {"kite"},
    }


def test_labels_number_the_things_first_then_the_stuff():
    assert SEMANTIC_CLASSES[: len(THING_CLASSES)] == THING_CLASSES
    assert tuple(SEMANTIC_CLASSES[label] for label in STUFF_LABELS) == STUFF_CLASSES
    assert list(COLORS) == list(SEMANTIC_CLASSES)
