"""A folder as it is, or a model of Hugging Face's hub by its name, fetched once and kept.

    resolve_huggingface("models/mine")                that folder
    resolve_huggingface("openai-community/gpt2")      fetched: config, weights, vocabulary

Fetching is left to the library huggingface_hub, the extra [hub]: it knows the address, keeps what it
has fetched, goes on with what was cut short, and has its own settings (HF_HOME, HF_HUB_OFFLINE). It
is imported only where a name is fetched. Files with code or pickles are never asked for.
"""

import os
import re
from pathlib import Path

from harness.errors import ConfigError, DataError, ResourceError
from harness.interchange.huggingface.config import CONFIG
from harness.interchange.huggingface.names import TOKENIZER
from harness.interchange.huggingface.tokenizer import ALL_IN_ONE, VOCABULARY
from harness.interchange.huggingface.weights import INDEX, WEIGHTS

FETCHED = (CONFIG, WEIGHTS, INDEX, "model-*-of-*.safetensors", TOKENIZER, VOCABULARY, ALL_IN_ONE)
TIMEOUT_S = 10  # for the first answer; a download that has begun may take its time

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)


def resolve_huggingface(
    name: str, cache: Path | str | None = None, timeout_s: float = TIMEOUT_S
) -> Path:
    """The folder that name means.

    name: an existing folder, or a model on the hub: `gpt2`, `openai-community/gpt2`.
    cache: where fetched models are kept; None leaves it to the library (~/.cache/huggingface).
    """
    path = os.path.expanduser(name)
    if os.path.exists(path):
        return Path(path)
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"there is no folder {name!r}, and it can't be a name on the hub",
            slug="hub-name-invalid",
            expected="a folder that is there, or a name as gpt2 or openai-community/gpt2",
            do="correct the path",
        )
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise ResourceError(
            f"fetching {name} needs the library huggingface_hub",
            slug="hub-library-missing",
            found=error,
            do="pip install 'gpt2-harness[hub]'" + BY_HAND,
        ) from None
    try:
        folder = huggingface_hub.snapshot_download(
            name, allow_patterns=list(FETCHED), cache_dir=cache, etag_timeout=timeout_s
        )
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise DataError(
            f"the hub has no model {name}, or does not show it to you",
            slug="hub-model-missing",
            found=_first_line(error),
            do="check the name; it was no folder here either",
        ) from error
    except Exception as error:
        # The library raises errors of its own, of two HTTP libraries, and of the system.
        raise DataError(
            f"{name} could not be fetched from the hub, and there is no such folder",
            slug="hub-unreachable",
            found=_first_line(error),
            do="try again with a network" + BY_HAND,
        ) from error
    return Path(folder)


BY_HAND = (
    f",\nor fetch it by hand elsewhere: {CONFIG} and {WEIGHTS} in one folder,"
    "\nand give the folder instead of the name"
)


def _first_line(error: Exception) -> str:
    line = next(iter(str(error).splitlines()), "")
    # The library's texts name its hosts; whoever has another host set knows it.
    text = f"{type(error).__name__}: {line}"
    return text if len(text) <= 200 else text[:200] + " ..."
