"""The optimizer state of llm.c's CUDA trainer: `state_%08d_%05d.bin` of a step and a rank.

    slot 2 = processes, 3 = rank, 4 = master weights are here, 5 = the loader shuffles, 10 = step
    slots 20, 22        uint64: the random state, and what it was before the last update
    slots 30, 32        uint64: shard and sample at which the loader stands
    m, v, master        the sixteen kinds each, float32; of ZeRO stage 1 this rank's part of them
    the loader's order  where it shuffles: shuffle.py

Several ranks without ZeRO each write all of m and v, the same numbers. Which it is follows from the
size. No setting of the optimizer is stored. Where there are master weights, llm.c makes the model
from them when it resumes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.errors import CheckpointError
from harness.interchange.closable import Closable
from harness.interchange.llmc import header as llmc_header
from harness.interchange.llmc import shuffle as llmc_shuffle
from harness.interchange.llmc.file import (
    LlmcFile,
    finite_bytes,
    require_finite,
    write_llmc_file,
    wrong_size,
)
from harness.interchange.llmc.header import HEADER_BYTES
from harness.interchange.llmc.layout import Run, clear_padding, largest, shared_run
from harness.interchange.llmc.shuffle import Shuffle
from harness.models.gpt2 import GPT2
from harness.models.kinds import tensor_shapes

VERSION = 1
USED = (2, 3, 4, 5, 10, 20, 21, 22, 23, 30, 31, 32, 33)
MOMENTS = ("m", "v", "master")
FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class RankState:
    """What a rank keeps beside the moments. shuffle: None where the loader reads in order."""

    random: int = 0
    random_before_update: int = 0
    shard: int = 0
    sample: int = 0
    shuffle: Shuffle | None = None


class LlmcOptimizerState(Closable):
    """The state files of one step, of all its ranks, open. model: the one that they belong to."""

    def __init__(self, paths: Sequence[Path | str], model: GPT2) -> None:
        assert paths, "at least the file of rank 0"
        self.model = model
        with ExitStack() as files:
            self._ranks = [
                files.enter_context(_Rank(Path(path), model, rank))
                for rank, path in enumerate(paths)
            ]
            _require_agreement(self._ranks)
            self._files = files.pop_all()
        first = self._ranks[0]
        self.step, self.processes = first.step, first.processes
        self.has_master, self.shared = first.has_master, first.run.processes > 1
        self.ranks = [rank.state for rank in self._ranks]

    @property
    def paths(self) -> list[Path]:
        return [rank.file.path for rank in self._ranks]

    @property
    def moments(self) -> tuple[str, ...]:
        """What can be read: m and v, and master where there are master weights."""
        return MOMENTS if self.has_master else MOMENTS[:2]

    def read_into(self, moment: str, name: str, out: np.ndarray) -> None:
        """Fill out, float32 of the tensor's shape. moment: `m`, `v` or `master`.

        Of ranks that share the state each gives its part.
        """
        assert moment in self.moments, f"{moment}: there are {self.moments}"
        assert out.shape == Run(self.model).shape(name), f"{name}: {out.shape}"
        flat = out.reshape(-1)
        for rank in self._ranks if self.shared else self._ranks[:1]:
            part = rank.run.length(name)
            rank.read(MOMENTS.index(moment), name, flat[rank.index * part :][:part])
        clear_padding(self.model, name, out)
        require_finite(out, f"{moment} of {name}", self.paths[0])

    def check(self) -> None:
        """Read everything once, and raise what is wrong with the first."""
        space, run = np.empty(largest(self.model), np.float32), Run(self.model)
        for name, shape in tensor_shapes(self.model).items():
            for moment in self.moments:
                self.read_into(moment, name, space[: run.length(name)].reshape(shape))

    def close(self) -> None:
        self._files.close()


def optimizer_state_bytes(model: GPT2, master: bool, processes: int = 1) -> int:
    """The size of a file without a shuffle: 995,808,256 for GPT-2 124M without master weights.

    processes: how many share the state.
    """
    return HEADER_BYTES + 4 * (3 if master else 2) * Run(model, processes).size


def write_optimizer_state(
    paths: Sequence[Path | str],
    model: GPT2,
    step: int,
    read: Callable[[str, str], np.ndarray],
    *,
    ranks: Sequence[RankState],
    master: bool = False,
    shared: bool = False,
) -> None:
    """Write a file for each rank, one tensor in memory at a time; each is written whole or not at all.

    read: (moment, name) -> the whole tensor; asked once for each, and by each rank.
    master: write the master weights too.
    shared: ZeRO stage 1: each rank has an equal part of every tensor.
    """
    assert len(paths) == len(ranks) >= 1, f"{len(paths)} files for {len(ranks)} ranks"
    run = shared_run(model, len(ranks), Path(paths[0])) if shared else Run(model)
    for index, (path, state) in enumerate(zip(paths, ranks, strict=True)):
        slots = {
            0: llmc_header.OPTIMIZER_STATE,
            1: VERSION,
            2: len(ranks),
            3: index,
            4: int(master),
            5: int(state.shuffle is not None),
            10: step,
        }
        long_slots = {
            20: state.random,
            22: state.random_before_update,
            30: state.shard,
            32: state.sample,
        }
        header = llmc_header.encode(slots, long_slots)
        order = state.shuffle.encode() if state.shuffle else b""
        size = optimizer_state_bytes(model, master, run.processes) + len(order)
        pieces = _pieces(Path(path), run, index, read, MOMENTS if master else MOMENTS[:2])
        write_llmc_file(Path(path), _framed(header, pieces, order), size)


def _framed(
    header: bytes, pieces: Iterator[memoryview], order: bytes
) -> Iterator[bytes | memoryview]:
    yield header
    yield from pieces
    yield order


def _pieces(
    path: Path,
    run: Run,
    index: int,
    read: Callable[[str, str], np.ndarray],
    moments: Sequence[str],
) -> Iterator[memoryview]:
    """A rank's part of each tensor."""
    for moment in moments:
        for name, shape in tensor_shapes(run.model).items():
            values = read(moment, name)
            assert values.shape == shape, f"{moment} of {name}: {values.shape}"
            if name == "wte":
                values = values.copy()
                clear_padding(run.model, name, values)
            length = run.length(name)
            start = index * length if run.processes > 1 else 0
            part = values.reshape(-1)[start : start + length]
            yield finite_bytes(part, f"{moment} of {name}", path)


class _Rank(Closable):
    """The file of one rank, open and checked but for its numbers."""

    def __init__(self, path: Path, model: GPT2, index: int) -> None:
        self.index = index
        self.file = LlmcFile(path, llmc_header.OPTIMIZER_STATE, (VERSION,), USED)
        try:
            header = self.file.header
            llmc_header.require_positive(header, path, {2: "processes"})
            for slot in (4, 5):
                if header[slot] not in (0, 1):
                    raise llmc_header.damaged(path, f"0 or 1 in slot {slot}", f"{header[slot]}")
            if header[10] < 0:
                raise llmc_header.damaged(path, "a step of at least 0", f"{header[10]}")
            self.processes, self.step = header[2], header[10]
            self.has_master, self.shuffles = bool(header[4]), bool(header[5])
            self.run, shuffle = self._contents(model)
        except BaseException:
            self.file.close()
            raise
        random, before, shard, sample = (header.uint64(slot) for slot in (20, 22, 30, 32))
        self.state = RankState(random, before, shard, sample, shuffle)

    def read(self, moment: int, name: str, out: np.ndarray) -> None:
        """moment: an index into MOMENTS."""
        number = moment * self.run.size + self.run.offset(name)
        self.file.read_floats(HEADER_BYTES + 4 * number, out, FLOAT32)

    def close(self) -> None:
        self.file.close()

    def _contents(self, model: GPT2) -> tuple[Run, Shuffle | None]:
        """Whether this rank holds all of m and v or a part, and the order at the end of the file."""
        possible = [Run(model)]
        if self.processes > 1 and model.channels % self.processes == 0:
            possible.append(Run(model, self.processes))
        sizes = [optimizer_state_bytes(model, self.has_master, r.processes) for r in possible]
        for run, size in zip(possible, sizes, strict=True):
            if not self.shuffles and self.file.size == size:
                return run, None
            if self.shuffles and self.file.size > size:
                shuffle = llmc_shuffle.decode(self.file.read(size, self.file.size - size))
                if shuffle is not None:
                    return run, shuffle
        numbers = " or ".join(f"{size:,}" for size in sizes)
        order = " and the loader's order" if self.shuffles else ""
        raise wrong_size(self.file.path, f"{numbers} bytes{order}", self.file.size)


def _require_agreement(ranks: Sequence[_Rank]) -> None:
    first = ranks[0]
    for rank in ranks:
        found = rank.file.header
        expected = (len(ranks), rank.index, first.step, first.has_master, first.run.processes)
        if expected != (found[2], found[3], rank.step, rank.has_master, rank.run.processes):
            raise CheckpointError(
                f"the optimizer states of the ranks are not of one step: {rank.file.path}",
                slug="llmc-ranks-disagree",
                where=rank.file.path,
                expected=_describe(*expected),
                found=_describe(found[2], found[3], rank.step, rank.has_master, rank.run.processes),
                do="give the files of all ranks of one step, rank 0 first",
            )


def _describe(processes: int, index: int, step: int, master: bool, sharing: int) -> str:
    return (
        f"{processes} processes, rank {index}, step {step:,}, "
        f"{'with' if master else 'without'} master weights, "
        f"{'part' if sharing > 1 else 'all'} of each tensor"
    )
