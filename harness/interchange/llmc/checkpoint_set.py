"""What llm.c's CUDA trainer leaves of a step: model, a state of each rank, and an empty file last.

    model_00000400.bin          model.py
    state_00000400_00000.bin    optimizer.py; one for each rank
    DONE_00000400               the set is whole

A set without its DONE file is of a trainer that was stopped while it wrote.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.errors import CheckpointError, ResourceError
from harness.files.disk import sync_folder
from harness.interchange.llmc import header as llmc_header
from harness.interchange.llmc.file import LlmcFile, write_llmc_file
from harness.interchange.llmc.model import write_llmc_model
from harness.interchange.llmc.optimizer import USED, VERSION, RankState, write_optimizer_state
from harness.models.model_file import ModelFile

_DONE = re.compile(r"DONE_(\d{8,10})", re.ASCII)


@dataclass(frozen=True)
class CheckpointSet:
    """The files of one step; states in the order of the ranks."""

    step: int
    model: Path
    states: list[Path]


def model_path(folder: Path, step: int) -> Path:
    return folder / f"model_{step:08d}.bin"


def state_path(folder: Path, step: int, rank: int) -> Path:
    return folder / f"state_{step:08d}_{rank:05d}.bin"


def done_path(folder: Path, step: int) -> Path:
    return folder / f"DONE_{step:08d}"


def newest_set(folder: Path | str) -> CheckpointSet:
    """The set of the latest step that is whole: DONE is there, and a file of every rank it needs."""
    folder, reasons = Path(folder), []
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise _no_set(folder, str(error)) from error
    steps = sorted((int(m[1]) for name in names if (m := _DONE.fullmatch(name))), reverse=True)
    for step in steps:
        try:
            return checkpoint_set(folder, step)
        except CheckpointError as error:
            reasons.append(error.headline)
    raise _no_set(folder, "\n".join(reasons[:4]) or "no file DONE_*")


def checkpoint_set(folder: Path | str, step: int) -> CheckpointSet:
    """The files of a step. Raises CheckpointError where one is missing."""
    folder = Path(folder)
    first = state_path(folder, step, 0)
    with LlmcFile(first, llmc_header.OPTIMIZER_STATE, (VERSION,), USED) as file:
        processes = file.header[2]
    wanted = [model_path(folder, step), done_path(folder, step)]
    for rank in range(processes):
        wanted.append(state_path(folder, step, rank))
        if not wanted[-1].is_file():
            break  # a header can promise two thousand million ranks
    missing = [path.name for path in wanted if not path.is_file()]
    if missing or processes < 1:
        raise _no_set(folder, f"step {step:,} lacks {', '.join(missing) or 'processes'}")
    return CheckpointSet(step, wanted[0], wanted[2:])


def write_checkpoint_set(
    folder: Path | str,
    step: int,
    source: ModelFile,
    read: Callable[[str, str], np.ndarray],
    *,
    ranks: Sequence[RankState] = (RankState(),),
    dtype: str = "float32",
    master: bool = False,
    shared: bool = False,
) -> CheckpointSet:
    """Write model, states and DONE of a step, in this order, so that llm.c can resume from them.

    A set of the same step that is there is not whole while this one is being written. Arguments are
    those of write_llmc_model and write_optimizer_state.
    """
    folder = Path(folder)
    done = done_path(folder, step)
    try:
        if done.exists():
            done.unlink()
            sync_folder(folder)
    except OSError as error:
        raise ResourceError(
            f"checkpoint can't be replaced: {done}", slug="llmc-set-not-replaced", found=error
        ) from error
    write_llmc_model(model_path(folder, step), source, dtype)
    states = [state_path(folder, step, rank) for rank in range(len(ranks))]
    write_optimizer_state(
        states, source.model, step, read, ranks=ranks, master=master, shared=shared
    )
    write_llmc_file(done, [], 0)
    return CheckpointSet(step, model_path(folder, step), states)


def _no_set(folder: Path, found: str) -> CheckpointError:
    return CheckpointError(
        f"no whole checkpoint of llm.c's in {folder}",
        slug="llmc-set-missing",
        where=folder,
        expected="model_STEP.bin, state_STEP_RANK.bin of every rank, and DONE_STEP",
        found=found,
    )
