"""The contestants of `harness bench train`, and their turns.

Every contestant is a process of its own. All are built, one after the other. Then they take turns, A B C
A B C: while one computes, the others wait for a line, or are stopped.
"""

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.bench.contest.contestant import Child, Contestant
from harness.bench.contest.entrants import PEERS, Entrants, peer_and_threads, why_no_torch
from harness.bench.contest.peers import llmc, llmc_cuda
from harness.bench.contest.work import COMPARED_LOSSES, LLMC, Work
from harness.bench.timing import Timing
from harness.bench.waterfall import Waterfall, waterfall_of
from harness.contract import core_ops
from harness.errors import ConfigError, HarnessError
from harness.interchange.llmc.header import HEADER_BYTES
from harness.interchange.llmc.layout import Run as Layout
from harness.machine.child import environment_with_harness
from harness.machine.device_peaks import AnyPeaks
from harness.machine.processor import load_average, this_machine
from harness.machine.reexec import CORETYPE
from harness.models.gpt2 import build
from harness.models.kinds import tensor_shapes

TURN_S = 0.25
"""A turn is as many steps as fit; one step alone would be timed with the neighbour's cache."""

PAUSE_S = 0.05
"""Before each turn: the neighbour's threads spin for some milliseconds after their work."""

OURS = "harness.bench.contest.ours"
TORCH_PEER = Path(__file__).parent / "peers" / "torch_peer.py"


class Contest:
    """The contestants. Entering the contest as a context builds them, and leaving it ends them."""

    def __init__(self, entrants: Entrants) -> None:
        self.entrants = entrants
        self.machine, self.load = this_machine(), load_average()
        self.work = Work(entrants)
        self.unavailable = dict(self.work.unavailable)
        self.contestants: dict[str, Contestant] = {}
        self.peaks_bytes: dict[str, int | None] = {}

    def __enter__(self) -> "Contest":
        self._folder = tempfile.TemporaryDirectory(prefix="harness-bench-")
        try:
            self.write_files(Path(self._folder.name))
            for name in () if self.entrants.alone else self.work.names:
                self._build(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.contestants.values():
            one.end()
        self._folder.cleanup()

    def write_files(self, folder: Path) -> None:
        """Write what the contestants read."""
        self.files = self.work.write_files(folder)

    def _build(self, name: str) -> None:
        if name in self.entrants.peers and (reason := why_no_torch(self.work.settings)):
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
        if all(ours in self.unavailable for ours in self.work.overrides):
            raise ConfigError(
                "none of ours can train",
                slug="bench-nobody-trains",
                found="\n".join(f"{n}: {why}" for n, why in self.unavailable.items()),
            )

    def contestant(self, name: str) -> Contestant:
        """One of the names, not built yet."""
        work = self.work
        if name == LLMC:
            return self._llmc()
        common = {
            "batches": str(self.files.batches),
            "shape": work.batches.shape,
            "learning_rate": work.learning_rate,
        }
        if name in work.overrides:
            own = {"overrides": work.overrides[name], "vocab_size": work.model.vocab_size}
            return Child(name, sys.executable, OURS, {**common, **own}, self._environment(name))
        spec = {**common, **peer_spec(self, name)}
        return Child(name, self.entrants.python, str(TORCH_PEER), spec, os.environ)

    def _llmc(self) -> Contestant:
        work, files = self.work, self.files
        assert self.entrants.llmc is not None
        program, folder = self.entrants.llmc.resolve(), files.batches.parent / "llmc"
        if not work.on_device:
            return llmc.Llmc(program, files.weights, work.tokens, folder, work.threads)
        return llmc_cuda.LlmcCuda(
            program, files.bf16_weights, work.tokens, folder, work.settings, work.learning_rate
        )

    def _environment(self, name: str) -> dict[str, str]:
        """The environment of one of ours. With blas_kernel=library, BLAS chooses its own kernels."""
        environment = environment_with_harness()
        if self.work.configs[name].blas_kernel == "library":
            environment.pop(CORETYPE, None)
        return environment

    def run(self, turns: int) -> dict[str, Timing]:
        """Ten steps each for the losses, then turns of about TURN_S. Returns the seconds of a step."""
        fastest: dict[str, float] = {}
        for _ in range(COMPARED_LOSSES):
            for name, found in self._round(dict.fromkeys(self.contestants, 1)).items():
                fastest[name] = min([*found, fastest.get(name, found[0])])
        # A turn has one long step, or as many short ones as fit.
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
        """Give each contestant a turn. Returns the seconds of its steps."""
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
        """Train ours again from the start, with every half-op timed. The plain trainers are released."""
        return [
            waterfall_of(name, one.waterfall(steps), peaks)
            for name, one in self.contestants.items()
            if name in self.work.overrides and isinstance(one, Child)
        ]


def peer_spec(contest: Contest, name: str) -> dict[str, Any]:
    """What a PyTorch peer is told beside the batches; torch_peer.py reads it."""
    kind, threads = peer_and_threads(name)
    work = contest.work
    settings, layout = work.settings, Layout(work.model)
    rule = settings.optimizer.decay
    program, _ = build(core_ops(), work.model, 1, 1)
    return {
        **PEERS[kind],
        "device": "cuda" if work.on_device else "cpu",
        "threads": threads or work.threads,
        "model": asdict(work.model),
        "optimizer": asdict(settings.optimizer),
        "decayed": [
            p.name
            for p in program.parameters.values()
            if rule == "all" or (rule == "matrices" and p.decay)
        ],
        "micro_batch": settings.batch_size,
        "clip_norm": settings.clip_norm,
        "loss_gradient": settings.loss_gradient,
        "weights_file": str(contest.files.weights),
        "weights": {
            name: (HEADER_BYTES + 4 * layout.offset(name), shape)
            for name, shape in tensor_shapes(work.model).items()
        },
    }


def heading_of(contest: Contest) -> str:
    """The heading of a report: what is trained, on which machine, and by whom."""
    work = contest.work
    settings, model = work.settings, work.model
    batches = "; batches as llm.c takes them" if LLMC in work.names else ""
    rows = [
        f"{model.parameters:,} parameters: {model.layers} layers, {model.heads}"
        f" heads, {model.channels} channels, vocabulary {model.vocab_size:,};"
        f" {settings.gradient_accumulation} x {settings.batch_size} sequences of"
        f" {settings.sequence_length} tokens, {settings.precision.policy},"
        f" {settings.optimizer.name}, clip_norm {settings.clip_norm}{batches}",
        f"on {contest.machine}; {work.threads} threads each; load before {contest.load:.1f}",
        *(f"{one.name}: {one.what}" for one in contest.contestants.values()),
        *(f"{name}: not run ({reason})" for name, reason in contest.unavailable.items()),
    ]
    return "\n".join(rows)
