"""Call tiktoken so that its panics, too, are errors with a remedy."""

from collections.abc import Callable
from typing import TypeVar

from harness.errors import DataError

Result = TypeVar("Result")


def call(function: Callable[[], Result], explain: Callable[[str], DataError]) -> Result:
    """function's result. explain: the DataError for what went wrong, given in one line."""
    try:
        return function()
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    # A panic in tiktoken's Rust is a BaseException, which Exception would let through.
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
        raise explain(text if len(text) <= 200 else text[:200] + " ...") from error
