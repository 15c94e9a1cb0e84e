"""Go on where llm.c's CUDA trainer stopped, or let it go on from here.

`model_from=FOLDER optimizer_from=FOLDER` begins a run with the newest whole set of its checkpoints, and
`harness export llmc RUN FOLDER --state` writes one: model, moments, number of updates. Neither side
stores the settings of the optimizer; the place in the data is each side's own, and begins anew.
"""

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import CheckpointError, ConfigError, NumericsError
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

if TYPE_CHECKING:
    from harness.training.trainer import Trainer

OPTIMIZER_GROUP = "optimizer"


class LlmcSetModel(LlmcModel):
    """The model of a set; its float32 master weights, where the states hold them, as llm.c resumes."""

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


def load_moments(folder: Path, trainer: "Trainer") -> int:
    """Give the trainer the moments of the newest set in folder; returns the number of updates.

    Raises ConfigError for an optimizer that has none of these, CheckpointError for a misfit.
    """
    settings = trainer.settings
    if settings.optimizer.op != "adamw" or settings.adapter is not None:
        raise ConfigError(
            "optimizer_from holds the moments of AdamW over all weights",
            slug="moments-of-another-optimizer",
            found=f"optimizer.name={settings.optimizer.name}"
            + ("" if settings.adapter is None else ", and an adapter"),
            do="leave optimizer_from out, or optimizer=adamw adapter=none",
        )
    found = newest_set(folder)
    with LlmcOptimizerState(found.states, settings.model) as state:
        if state.step != found.step:
            raise CheckpointError(
                f"the state is of another step than its name says: {found.states[0]}",
                slug="llmc-set-missing",
                expected=f"step {found.step:,}",
                found=f"step {state.step:,}",
            )
        trainer.parameters.fill("m", partial(state.read_into, "m"))
        trainer.parameters.fill("v", partial(_read_squares, state))
    trainer.given_updates = trainer.optimizer.t = found.step
    return found.step


def _read_squares(state: LlmcOptimizerState, name: str, out: np.ndarray) -> None:
    """The mean of squares, none of which is negative: its root would be NaN, and so the weight."""
    state.read_into("v", name, out)
    if out.min() < 0:
        raise NumericsError(
            f"the state holds a negative mean of squares: v of {name}",
            slug="moments-negative",
            where=state.paths[0],
            found=f"{out.min():.8g}",
            effect="the root of it would make the weight NaN",
        )


def write_set_of_run(run: Path, folder: Path, dtype: str) -> CheckpointSet:
    """llm.c's set of a run's newest checkpoint. Master weights go with it where dtype is narrower."""
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
