"""Toy scenes: a small dataset that is drawn, so that nothing has to be downloaded."""

from .classes import COLORS, IGNORE_LABEL, SEMANTIC_CLASSES, STUFF_CLASSES, THING_CLASSES
from .dataset import draw_toy_scenes, register_toy_scenes

__all__ = [
    "COLORS",
    "IGNORE_LABEL",
    "SEMANTIC_CLASSES",
    "STUFF_CLASSES",
    "THING_CLASSES",
    "draw_toy_scenes",
    "register_toy_scenes",
]
