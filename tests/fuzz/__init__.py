"""Malformed input, generated from a seed: `python -m tests.fuzz` says what happens with it."""
