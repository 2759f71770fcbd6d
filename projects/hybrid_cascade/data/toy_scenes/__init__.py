"""Toy scenes: a small dataset, drawn instead of downloaded."""

from .dataset import *  # noqa: F403
