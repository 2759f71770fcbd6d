"""Models outside of Python."""
