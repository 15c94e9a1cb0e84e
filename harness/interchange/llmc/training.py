"""Read the model of a checkpoint set of llm.c's CUDA trainer, and write such a set of a run.

`model_from=FOLDER` begins a run with the newest whole set, and `optimizer_from=FOLDER` with its moments
(harness/run/starting_moments.py); `harness export llmc RUN FOLDER --state` writes one: model, moments,
number of updates. Neither side stores the settings of the optimizer. The place in the data is each
side's own, and begins anew.
"""

from contextlib import closing
from pathlib import Path

import numpy as np

from harness.errors import CheckpointError, ConfigError
from harness.files.checkpoint_names import SUFFIX
from harness.interchange.checkpoint_model import CheckpointModel, newest_checkpoint
from harness.interchange.llmc.checkpoint_set import (
    CheckpointSet,
    done_path,
    newest_set,
    write_checkpoint_set,
)
from harness.interchange.llmc.model import LlmcModel
from harness.interchange.llmc.optimizer import FLOAT32, LlmcOptimizerState
from harness.interchange.model_folder import already_there
from harness.interchange.safetensors_file import SafetensorsFile
from harness.models.kinds import tensor_shapes

OPTIMIZER_GROUP = "optimizer"


class LlmcSetModel(LlmcModel):
    """The model of a set. Where the states hold float32 master weights it has those, as in llm.c."""

    def __init__(self, folder: Path) -> None:
        found = newest_set(folder)
        super().__init__(found.model)
        self._masters: LlmcOptimizerState | None = None
        try:
            state = LlmcOptimizerState(found.states, self.model)
        except BaseException:
            self.close()
            raise
        if state.has_master:
            self._masters = state
        else:
            state.close()

    @property
    def description(self) -> str:
        masters = ", float32 master weights" if self._masters else ""
        return super().description + masters

    @property
    def dtype(self) -> np.dtype:
        return FLOAT32 if self._masters else super().dtype

    def read_into(self, name: str, out: np.ndarray) -> None:
        if self._masters is None:
            super().read_into(name, out)
        else:
            self._masters.read_into("master", name, out)

    def close(self) -> None:
        super().close()
        if getattr(self, "_masters", None) is not None:
            assert self._masters is not None
            self._masters.close()


def write_set_of_run(run: Path, folder: Path, dtype: str) -> CheckpointSet:
    """Write a run's newest checkpoint as llm.c's set, with master weights where dtype is narrower."""
    with closing(newest_checkpoint(run)) as stored:
        if stored.lora is not None:
            raise ConfigError(
                f"the run trained an adapter, which llm.c does not have: {run}",
                slug="adapter-in-llmc",
                do="harness export llmc without --state, which merges it; or harness export peft",
            )
        return _write_set(stored, folder, dtype)


def _write_set(stored: CheckpointModel, folder: Path, dtype: str) -> CheckpointSet:
    found = stored.checkpoint
    shapes = tensor_shapes(stored.model)
    with SafetensorsFile(found.path / f"{OPTIMIZER_GROUP}{SUFFIX}") as file:
        wanted = {f"{moment}.{name}" for moment in ("m", "v") for name in shapes}
        if wanted != file.entries.keys():
            raise CheckpointError(
                f"the checkpoint holds no moments of AdamW: {found.path}",
                slug="checkpoint-without-moments",
                expected="m and v of every tensor",
                found=", ".join(sorted({name.partition(".")[0] for name in file.entries}))
                or "none",
            )

        def read(moment: str, name: str) -> np.ndarray:
            values = np.empty(shapes[name], np.float32)
            if moment == "master":
                stored.read_into(name, values)
            else:
                file.read_into(f"{moment}.{name}", values)
            return values

        if folder.exists() and not folder.is_dir():
            raise already_there(folder)
        folder.mkdir(parents=True, exist_ok=True)
        done = done_path(folder, int(found.state["updates"]))
        if done.exists():
            raise already_there(done)
        step, master = int(found.state["updates"]), dtype != "float32"
        return write_checkpoint_set(folder, step, stored, read, dtype=dtype, master=master)
