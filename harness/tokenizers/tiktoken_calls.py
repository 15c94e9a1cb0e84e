"""Call tiktoken so that its panics, too, are errors with a remedy."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from harness.errors import DataError
from harness.tokenizers import utf8

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


def encode_ordinary(
    encoding: Callable[[], Any],
    text: str | bytes,
    explain: Callable[[str], DataError],
    where: str | None,
) -> npt.NDArray[np.int32]:
    """The ids of text, in which the names of special tokens are only characters.

    encoding: asked for only once the text is known to be one; it may need files.
    """
    checked = utf8.checked(text, where)
    made = encoding()
    return np.asarray(call(lambda: made.encode_ordinary(checked), explain), dtype=np.int32)
