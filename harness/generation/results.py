"""Keep what was generated: `out=FILE` gets one JSON object a row, with the settings that made it.

The file is whole after every batch and every answer; a file that is there already is not touched.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

from harness.data.files import write_atomically
from harness.decoding.continuation import Row
from harness.errors import ConfigError, ResourceError
from harness.generation.prompting import Prompting
from harness.generation.settings import SOURCES_OF_PROMPTS, GenerateConfig, chosen

NOT_SETTINGS = (*SOURCES_OF_PROMPTS, "out", "runs_dir", "model_from")


class Results:
    """The rows of one command. Without `out`, nothing is kept. Raises where nothing could be kept."""

    def __init__(self, config: GenerateConfig, model: Path) -> None:
        self._path = None if config.out is None else Path(os.path.expanduser(config.out))
        self._model = str(model)
        self._lines: list[bytes] = []
        settings = {**asdict(config), "ops": chosen(config.ops)}
        settings["precision_of"] = chosen(config.precision_of)
        self._settings = {name: v for name, v in settings.items() if name not in NOT_SETTINGS}
        if self._path is not None:
            _check_usable(self._path)

    def add(self, rows: list[Row], first: int, prompting: Prompting) -> None:
        """Write rows behind those that are there. first: the index of the first one."""
        if self._path is None:
            return
        for index, row in enumerate(rows, first):
            record = {
                "row": index,
                "prompt": prompting.shown(row.prompt),
                "text": prompting.tokenizer.decode(row.tokens),
                "ended": row.ended,
                "prompt_tokens": list(row.prompt),
                "tokens": row.tokens,
                "model": self._model,
                "tokenizer": prompting.tokenizer.name,
                "settings": self._settings,
            }
            text = json.dumps(record, ensure_ascii=False)
            # Half of a surrogate pair, as in a path that is no UTF-8, becomes JSON's own \udcff.
            self._lines.append(text.encode(errors="backslashreplace") + b"\n")
        write_atomically(self._path, self._lines)


def _check_usable(path: Path) -> None:
    if os.path.lexists(path):
        raise ConfigError(
            f"there is a file already: out={path}",
            slug="results-exist",
            effect="it was left as it is",
            do="another name",
        )
    try:
        write_atomically(path, [])
        path.unlink()
    except (ResourceError, OSError) as error:
        raise ResourceError(
            f"results can't be written: {path}",
            slug="results-not-writable",
            where=path.absolute(),
            found=error.facts["found"] if isinstance(error, ResourceError) else error,
            do="out=FILE in a folder that is there and that you can write to",
        ) from error
