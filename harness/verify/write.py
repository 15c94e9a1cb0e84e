"""A small model and its debug state, so that a backend can be verified without downloading anything.

The weights are random, the state is the float64 referee's, rounded to float32 once. Both files are
llm.c's: its own `test_gpt2` reads them as it reads the ones it published.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError, ResourceError
from harness.interchange.llmc.debug_state import write_debug_state
from harness.interchange.llmc.model import write_llmc_model
from harness.models.gpt2 import GPT2
from harness.verify.float64 import Float64Model
from harness.verify.seeded_model import SeededModel

MODEL, STATE = "model.bin", "debug_state.bin"


@dataclass(frozen=True)
class Written:
    """The two files, and the loss in the state."""

    model: Path
    state: Path
    loss: float


def write_files(folder: Path, model: GPT2, B: int, T: int, seed: int) -> Written:
    """Write model.bin and debug_state.bin into folder, which is made where it is missing.

    Both or none: where one can't be written, the other is deleted again.
    Raises ConfigError where there are such files already, and T tokens that do not fit the model;
    ResourceError, before anything is drawn, where the memory will not do.
    """
    written = folder / MODEL, folder / STATE
    _refuse_to_overwrite(folder, written)
    source = SeededModel(model, seed)
    referee = Float64Model(source, B, T, ["a smaller model, B or T"])
    x_BT, y_BT = source.tokens(B, T)
    loss = referee.forward(x_BT, y_BT)
    referee.backward()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"folder can't be made: {folder}", slug="verify-folder-not-made", found=error
        ) from error
    logits_BTV = referee.logits
    write_debug_state(
        written[1], model, x_BT, y_BT, logits_BTV, loss, referee.gradients.__getitem__
    )
    try:
        write_llmc_model(written[0], source)
    except BaseException:
        # Alone it would be of no use, and the next attempt would find the folder taken.
        with suppress(OSError):
            written[1].unlink()
        raise
    return Written(*written, loss)


def _refuse_to_overwrite(folder: Path, written: tuple[Path, ...]) -> None:
    there = [path.name for path in written if os.path.exists(path)]
    if there:
        raise ConfigError(
            f"there are such files already: {folder}",
            slug="verify-files-there",
            found=", ".join(there),
            effect="nothing was written",
            do="another folder, or delete them",
        )
