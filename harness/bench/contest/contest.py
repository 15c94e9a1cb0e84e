"""Who trains in `harness bench train`, on what, and in which turns.

Every contestant is a process of its own. All are built, one after the other; then they take turns,
A B C A B C: while one computes, the others wait for a line, or are stopped.
"""

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.bench.contest.contestant import Child, Contestant
from harness.bench.contest.entrants import (
    PEERS,
    Entrants,
    check_same_work,
    device_of,
    peer_and_threads,
    why_no_torch,
)
from harness.bench.contest.peers import llmc, llmc_cuda
from harness.bench.timing import Timing
from harness.bench.waterfall import Waterfall, waterfall_of
from harness.config import command_line
from harness.config.config import model_of, trainer_settings
from harness.contract import core_ops
from harness.data import Dataset, Sequences
from harness.errors import ConfigError, HarnessError
from harness.interchange.initial_model import InitialModel
from harness.interchange.llmc.header import HEADER_BYTES
from harness.interchange.llmc.layout import Run as Layout
from harness.interchange.llmc.model import write_llmc_model
from harness.machine.child import environment_with_harness
from harness.machine.device_peaks import AnyPeaks
from harness.machine.processor import load_average, this_machine
from harness.machine.reexec import CORETYPE
from harness.machine.threads import threads_for
from harness.models.gpt2 import build
from harness.models.kinds import tensor_shapes
from harness.run.data import load_data

COMPARED_LOSSES = 10
TURN_S = 0.25
"""A turn is as many steps as fit; one step alone would be timed with the neighbour's cache."""

PAUSE_S = 0.05
"""Before each turn: the neighbour's threads spin for some milliseconds after their work."""

OURS = "harness.bench.contest.ours"
TORCH_PEER = Path(__file__).parent / "peers" / "torch_peer.py"
LLMC = "llm.c"


class Contest:
    """The contestants of `entrants`, built when it is entered as a context, and ended with it."""

    def __init__(self, entrants: Entrants) -> None:
        self.entrants = entrants
        self.machine, self.load = this_machine(), load_average()
        said = [] if entrants.threads is None else [f"threads={entrants.threads}"]
        self.overrides = {name: [*said, *texts] for name, texts in entrants.ours.items()}
        self.configs = {n: command_line.compose(o) for n, o in self.overrides.items()}
        first = next(iter(self.configs.values()))
        self.threads = threads_for(entrants.threads or first.threads).count
        data = load_data(first)
        self.model = model_of(first, data.vocab_size)
        every = {n: trainer_settings(config, self.model) for n, config in self.configs.items()}
        check_same_work(every, self.configs)
        self.settings = next(iter(every.values()))
        self.learning_rate = first.optimizer.lr
        self.device = device_of(self.settings)
        self.unavailable: dict[str, str] = {}
        self.names = [*self.overrides, *entrants.peers]
        if entrants.llmc is not None:
            self._ask_llmc(entrants.llmc, data)
        self.tokens = data.train[: self._tokens_of_llmc()]
        self.batches = self._first_batches(data)
        self.contestants: dict[str, Contestant] = {}
        self.peaks_bytes: dict[str, int | None] = {}

    def _ask_llmc(self, program: Path, data: Dataset) -> None:
        if not (program.is_file() and os.access(program, os.X_OK)):
            raise ConfigError(
                f"--llmc {program} is not a program",
                slug="bench-no-llmc",
                expected="a trainer of llm.c, built: train_gpt2, or for a GPU train_gpt2cu",
            )
        if self.on_device:
            reason = llmc_cuda.why_not_llmc_cuda(self.settings, len(data.train))
        else:
            reason = llmc.why_not_llmc(self.settings, self.learning_rate, len(data.train))
        if reason:
            self.unavailable[LLMC] = reason
        else:
            self.names.append(LLMC)

    @property
    def on_device(self) -> bool:
        """Whether the first of ours trains on a device that is not the host; peers then do so too."""
        return self.device != "host"

    def _tokens_of_llmc(self) -> int:
        if not self.on_device:
            return llmc.TOKENS
        return llmc_cuda.tokens_read(self.settings.batch_size, self.settings.sequence_length)

    def _first_batches(self, data: Dataset) -> npt.NDArray[np.int32]:
        """(ten, 2, sequences, tokens): x and y of the steps whose losses are compared."""
        settings = self.settings
        if LLMC in self.names:
            B, T = settings.batch_size, settings.sequence_length
            return llmc.batches(data.train, COMPARED_LOSSES, B, T)
        count = settings.batch_size * settings.gradient_accumulation
        sequences = Sequences(data.train, settings.sequence_length, settings.seed)
        return np.stack(
            [np.stack(sequences.take(i * count, count)) for i in range(COMPARED_LOSSES)]
        )

    @property
    def tokens_per_step(self) -> int:
        return int(self.batches[0][0].size)

    def __enter__(self) -> "Contest":
        self._folder = tempfile.TemporaryDirectory(prefix="harness-bench-")
        try:
            self._write_files(Path(self._folder.name))
            for name in () if self.entrants.alone else self.names:
                self._build(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.contestants.values():
            one.end()
        self._folder.cleanup()

    def _write_files(self, folder: Path) -> None:
        """What the contestants read: the batches, and for peers our initial weights."""
        self.batches_file, self.weights_file = folder / "batches.bin", folder / "weights.bin"
        self.batches.tofile(self.batches_file)
        torch = bool(self.entrants.peers) and not why_no_torch(self.settings)
        initial = InitialModel(self.model, self.settings.seed)
        if torch or (LLMC in self.names and not self.on_device):
            write_llmc_model(self.weights_file, initial)
        if LLMC in self.names and self.on_device:
            write_llmc_model(self._low_weights_file, initial, "bfloat16")

    @property
    def _low_weights_file(self) -> Path:
        return self.weights_file.with_name("weights_bf16.bin")

    def _build(self, name: str) -> None:
        if name in self.entrants.peers and (reason := why_no_torch(self.settings)):
            self.unavailable[name] = reason
            return
        one = self.contestant(name)
        self.contestants[name] = one
        try:
            unavailable = one.build()
        except HarnessError as error:
            if not self.entrants.keep_going:
                raise
            unavailable = str(error.headline)
        if unavailable:
            self._leave_out(name, unavailable)

    def _leave_out(self, name: str, reason: str) -> None:
        self.contestants.pop(name).end()
        self.unavailable[name] = reason
        if all(ours in self.unavailable for ours in self.overrides):
            raise ConfigError(
                "none of ours can train",
                slug="bench-nobody-trains",
                found="\n".join(f"{n}: {why}" for n, why in self.unavailable.items()),
            )

    def contestant(self, name: str) -> Contestant:
        common = {
            "batches": str(self.batches_file),
            "shape": self.batches.shape,
            "learning_rate": self.learning_rate,
        }
        if name in self.overrides:
            own = {"overrides": self.overrides[name], "vocab_size": self.model.vocab_size}
            return Child(name, sys.executable, OURS, {**common, **own}, self._environment(name))
        if name == LLMC:
            assert self.entrants.llmc is not None
            folder = self.weights_file.parent / "llmc"
            program = self.entrants.llmc.resolve()
            if self.on_device:
                return llmc_cuda.LlmcCuda(
                    program,
                    self._low_weights_file,
                    self.tokens,
                    folder,
                    self.settings,
                    self.learning_rate,
                )
            return llmc.Llmc(program, self.weights_file, self.tokens, folder, self.threads)
        spec = {**common, **peer_spec(self, name)}
        return Child(name, self.entrants.python, str(TORCH_PEER), spec, os.environ)

    def _environment(self, name: str) -> dict[str, str]:
        """Of a process of ours: BLAS may choose its kernels where the entry says so."""
        environment = environment_with_harness()
        if self.configs[name].blas_kernel == "library":
            environment.pop(CORETYPE, None)
        return environment

    def run(self, turns: int) -> dict[str, Timing]:
        """Ten steps of each, in turns, for the losses; then turns of about TURN_S. Seconds a step."""
        fastest: dict[str, float] = {}
        for _ in range(COMPARED_LOSSES):
            for name, found in self._round(dict.fromkeys(self.contestants, 1)).items():
                fastest[name] = min([*found, fastest.get(name, found[0])])
        # Long steps need no more rounds than this many turns; short ones are taken by the dozen.
        steps = {name: max(1, int(TURN_S / s)) for name, s in fastest.items()}
        self._round(steps)
        rounds = [self._round(steps) for _ in range(turns)]
        for name, one in self.contestants.items():
            self.peaks_bytes[name] = one.peak()
        return {
            name: Timing(tuple(sum(found[name]) / len(found[name]) for found in rounds))
            for name in self.contestants
        }

    def _round(self, steps: Mapping[str, int]) -> dict[str, list[float]]:
        """Each contestant's turn. The seconds of its steps."""
        found = {}
        for name in list(self.contestants):
            try:
                found[name] = self._turn(self.contestants[name], steps[name])
            except HarnessError as error:
                if not self.entrants.keep_going or self.contestants[name].losses:
                    raise
                self._leave_out(name, str(error.facts.get("found", error.headline)))
        return found

    def _turn(self, one: Contestant, steps: int) -> list[float]:
        time.sleep(PAUSE_S)
        others = [other for other in self.contestants.values() if other is not one]
        before = {other.name: other.processor_s() for other in others}
        start = time.perf_counter()
        seconds = one.run(steps)
        waited_s = time.perf_counter() - start
        for other in others:
            other.busy_s += other.processor_s() - before[other.name]
            other.waited_s += waited_s
        return seconds

    def waterfalls(self, peaks: AnyPeaks, steps: int = COMPARED_LOSSES) -> list[Waterfall]:
        """Each of ours again, from the start, with every half-op timed. The plain ones are let go."""
        return [
            waterfall_of(name, one.waterfall(steps), peaks)
            for name, one in self.contestants.items()
            if name in self.overrides and isinstance(one, Child)
        ]


def peer_spec(contest: "Contest", name: str) -> dict[str, Any]:
    kind, threads = peer_and_threads(name)
    settings, layout = contest.settings, Layout(contest.model)
    rule = settings.optimizer.decay
    program, _ = build(core_ops(), contest.model, 1, 1)
    return {
        **PEERS[kind],
        "device": "cuda" if contest.on_device else "cpu",
        "threads": threads or contest.threads,
        "model": asdict(contest.model),
        "optimizer": asdict(settings.optimizer),
        "decayed": [
            p.name
            for p in program.parameters.values()
            if rule == "all" or (rule == "matrices" and p.decay)
        ],
        "micro_batch": settings.batch_size,
        "clip_norm": settings.clip_norm,
        "loss_gradient": settings.loss_gradient,
        "weights_file": str(contest.weights_file),
        "weights": {
            name: (HEADER_BYTES + 4 * layout.offset(name), shape)
            for name, shape in tensor_shapes(contest.model).items()
        },
    }


def heading_of(contest: "Contest") -> str:
    """What is trained, by whom, on what."""
    settings, model = contest.settings, contest.model
    batches = "; batches as llm.c takes them" if LLMC in contest.names else ""
    rows = [
        f"{model.parameters:,} parameters: {model.layers} layers, {model.heads}"
        f" heads, {model.channels} channels, vocabulary {model.vocab_size:,};"
        f" {settings.gradient_accumulation} x {settings.batch_size} sequences of"
        f" {settings.sequence_length} tokens, {settings.precision.policy},"
        f" {settings.optimizer.name}, clip_norm {settings.clip_norm}{batches}",
        f"on {contest.machine}; {contest.threads} threads each; load before {contest.load:.1f}",
        *(f"{one.name}: {one.what}" for one in contest.contestants.values()),
        *(f"{name}: not run ({reason})" for name, reason in contest.unavailable.items()),
    ]
    return "\n".join(rows)
