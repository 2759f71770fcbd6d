"""Datasets that can be registered."""
