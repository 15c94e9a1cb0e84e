"""The optimizer's moments that a run begins with, where `optimizer_from` names a folder of llm.c's."""

from functools import partial
from pathlib import Path

import numpy as np

from harness.errors import CheckpointError, ConfigError, NumericsError
from harness.interchange.llmc.checkpoint_set import newest_set
from harness.interchange.llmc.optimizer import LlmcOptimizerState
from harness.training.trainer import Trainer


def load_moments(folder: Path, trainer: Trainer) -> int:
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
