"""Dataset mappers."""
