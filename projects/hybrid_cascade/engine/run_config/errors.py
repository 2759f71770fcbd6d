"""The errors of a config."""

from collections.abc import Iterator
from contextlib import contextmanager


class ConfigError(ValueError):
    """A config that can't be used; the message names the key or the file, and says what to do."""


class UnknownKeyError(ConfigError, KeyError):
    """A key that nothing reads."""

    __str__ = Exception.__str__  # a KeyError would put its message in quotes


@contextmanager
def naming(section: str) -> Iterator[None]:
    """Turn an error into a `ConfigError` that names the section which was to be built.

    Errors of the system (a file that is missing, memory that is short) stay as they are.
    """
    try:
        yield
    except (ConfigError, OSError, RuntimeError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        message = f"{section} can't be built: {type(error).__name__}: {reason}"
        raise ConfigError(message) from error
