"""Time whole training steps: ours on each backend, and PyTorch's, in turns: `harness bench train`.

Everyone starts from the same weights and sees the same batches. The first ten losses are compared
before a time is believed. Then, step by step with every half-op timed: where our time goes, what each
half-op could give back, and what the harness itself costs.
"""

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl  # type: ignore[import-untyped]

from harness import command_line
from harness.bench.machine import load_average, this_machine
from harness.bench.peaks import Peaks, as_record
from harness.bench.peaks import peaks as measured_peaks
from harness.bench.report import duration, figure, write
from harness.bench.roofline import Work, floor_of, work_of
from harness.bench.timing import Ratio, Timing, interleave, ratio
from harness.config import RunConfig, model_of, trainer_settings
from harness.data import Sequences
from harness.errors import ConfigError, NumericsError
from harness.models.gpt2 import GPT2
from harness.plugins import all_ops
from harness.run import load_data
from harness.trainer import Trainer, TrainerSettings

COMPARED_LOSSES = 10
LOSS_TOLERANCE = (
    1e-3  # relative: ten float32 steps, measured below 1e-5; a wrong kernel shows at 1e-2
)
TURN_S = 0.25
"""A turn is as many steps as fit; one step alone would be timed with the neighbour's cache."""

PAUSE_S = 0.05
"""Before each turn: the neighbour's BLAS threads spin for some milliseconds after their work."""

OP_TIMES = Path(__file__).with_name("op_times.py")


@dataclass
class Contestant:
    """One that trains. step: takes one optimizer step and returns its loss. what: for the report."""

    name: str
    step: Callable[[], float]
    what: str
    losses: list[float] = field(default_factory=list)

    def run(self, steps: int = 1) -> None:
        for _ in range(steps):
            self.losses.append(self.step())


@dataclass(frozen=True)
class OpShare:
    """A half-op's part in a step. could_save: seconds above its roofline floor.

    in_cache: each of its calls may find its bytes in the cache, so the floor is no lower bound.
    """

    hook: str
    backend: str
    calls: int
    seconds: float
    work: Work
    floor_s: float
    in_cache: bool

    @property
    def could_save_s(self) -> float:
        return max(0.0, self.seconds - self.floor_s)


@dataclass(frozen=True)
class Waterfall:
    """Where the time of a step goes. step_s: with the clocks in it, so a little above the plain one."""

    name: str
    step_s: float
    ops: tuple[OpShare, ...]

    @property
    def ops_s(self) -> float:
        return sum(op.seconds for op in self.ops)

    @property
    def outside_share(self) -> float:
        """What is not spent in ops: binding, copies, clocks. 0 to 1."""
        return 1 - self.ops_s / self.step_s


def run_bench_train(
    overrides: Sequence[str] = (),
    backends: Sequence[str] = (),
    *,
    variants: Sequence[str] = (),
    turns: int = 10,
    threads: int | None = None,
    peer: bool = True,
    report: Path | None = None,
    peaks: Peaks | None = None,
    show: Callable[[str], None] = print,
) -> int:
    """Time training steps, print what they are made of, and give the exit code.

    overrides: as of `python -m harness.train`. backends: each is one of us; without any, the
    configuration's own. variants: further ones, by more overrides: "ops.gelu=./mine.py". threads: of
    every BLAS. report: REPORT.json and REPORT.md are written.
    Exit code 6 where the losses disagree.
    """
    entries = {name: [f"backend={name}"] for name in backends} or {"": []}
    entries |= {text: text.split() for text in variants}
    configs = {
        name or config.backend: config
        for name, more in entries.items()
        for config in [command_line.compose([*overrides, *more])]
    }
    with threadpoolctl.threadpool_limits(threads or this_machine().threads):
        peaks = peaks or measured_peaks()
        contest = Contest(configs, peer)
        show(contest.heading())
        found = contest.run(turns)
        waterfalls = contest.waterfalls(peaks)
    result = Result(contest, found, waterfalls, peaks)
    for line in result.lines():
        show(line)
    if report is not None:
        markdown = "```text\n" + "\n".join([contest.heading(), *result.lines()]) + "\n```\n"
        files = write(report, result.record(), markdown)
        show("written: " + ", ".join(map(str, files)))
    return 0 if result.agrees else NumericsError.exit_code


class Contest:
    """Who trains, on what. The first of ours is what the others are compared with."""

    def __init__(self, configs: Mapping[str, RunConfig], peer: bool = True) -> None:
        self.machine, self.load = this_machine(), load_average()
        first = next(iter(configs.values()))
        self.configs = dict(configs)
        self.model: GPT2 = model_of(first, (data := load_data(first)).vocab_size)
        self.settings = {
            name: trainer_settings(config, self.model) for name, config in configs.items()
        }
        self._check_same_work()
        settings = next(iter(self.settings.values()))
        self.tokens_per_step = (
            settings.batch_size * settings.gradient_accumulation * settings.sequence_length
        )
        count = settings.batch_size * settings.gradient_accumulation
        sequences = Sequences(data.train, settings.sequence_length, settings.seed)
        self._batches = [sequences.take(i * count, count) for i in range(COMPARED_LOSSES)]
        self.learning_rate = first.optimizer.lr
        self.trainers = {name: Trainer(s, all_ops()) for name, s in self.settings.items()}
        self.contestants = [self._ours(name, trainer) for name, trainer in self.trainers.items()]
        self.absent: dict[str, str] = {}
        if peer:
            self._add_peer(settings)

    def _check_same_work(self) -> None:
        """Variants may choose other ops, and nothing that makes another step of it."""
        works = {
            name: asdict(replace(s, ops={}, wrappers=(), transfer=""))
            for name, s in self.settings.items()
        }
        (first, work), *others = works.items()
        for name, other in others:
            different = [key for key in work if work[key] != other[key]]
            if different:
                raise ConfigError(
                    f"{first} and {name} would not do the same work",
                    slug="bench-different-work",
                    differ=", ".join(different),
                    do="only backend=, ops.NAME= and transfer= may differ",
                )

    def _stream(self) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
        """The next batch, at each call; over and over the same ten."""
        position = -1

        def take() -> tuple[np.ndarray, np.ndarray]:
            nonlocal position
            position = (position + 1) % len(self._batches)
            return self._batches[position]

        return take

    def _ours(self, name: str, trainer: Trainer) -> Contestant:
        take, rate = self._stream(), self.learning_rate
        chosen = ", ".join(backend.name for backend in trainer.dispatch.backends)
        expanded = ", ".join(trainer.plan.expanded) or "none"
        return Contestant(
            name,
            lambda: trainer.step(*take(), rate).loss,
            f"{chosen}; fused ops expanded: {expanded}",
        )

    def _add_peer(self, settings: TrainerSettings) -> None:
        reason = why_no_peer(settings)
        if reason:
            self.absent["torch"] = reason
            return
        from harness.bench.peers import torch_gpt2

        torch_gpt2.set_threads(self.machine.threads)
        trainer = next(iter(self.trainers.values()))
        rule = settings.optimizer.decay
        decayed = [
            p.name
            for p in trainer.plan.program.parameters.values()
            if rule == "all" or (rule == "matrices" and p.decay)
        ]
        peer = torch_gpt2.TorchGPT2(
            self.model,
            trainer.parameters.to_host(),
            settings.optimizer,
            decayed,
            micro_batch=settings.batch_size,
            clip_norm=settings.clip_norm,
            loss_gradient=settings.loss_gradient,
        )
        take, rate = self._stream(), self.learning_rate
        self.contestants.append(
            Contestant("torch", lambda: peer.step(*take(), rate), torch_gpt2.describe())
        )

    def heading(self) -> str:
        """What is trained, by whom, on what."""
        settings = next(iter(self.settings.values()))
        rows = [
            f"{self.model.parameters:,} parameters: {self.model.layers} layers, {self.model.heads}"
            f" heads, {self.model.channels} channels, vocabulary {self.model.vocab_size:,};"
            f" {settings.gradient_accumulation} x {settings.batch_size} sequences of"
            f" {settings.sequence_length} tokens, {settings.precision.policy},"
            f" {settings.optimizer.name}",
            f"on {self.machine}; load before {self.load:.1f}",
            *(f"{one.name}: {one.what}" for one in self.contestants),
            *(f"{name}: not run ({reason})" for name, reason in self.absent.items()),
        ]
        return "\n".join(rows)

    def run(self, turns: int) -> dict[str, Timing]:
        """Ten steps of each, in turns, for the losses; then turns of about TURN_S. Seconds a step."""
        by_name = {one.name: one for one in self.contestants}
        first = interleave(
            {name: one.run for name, one in by_name.items()}, rounds=COMPARED_LOSSES, warmups=0
        )
        # Long steps need no more rounds than this many turns; short ones are taken by the dozen.
        steps = {n: max(1, int(TURN_S / min(t.seconds))) for n, t in first.items()}
        timings = interleave(
            {name: lambda o=one, n=steps[name]: o.run(n) for name, one in by_name.items()},  # type: ignore[misc]
            rounds=turns,
            setups={name: lambda: time.sleep(PAUSE_S) for name in by_name},
        )
        return {
            name: Timing(tuple(s / steps[name] for s in timing.seconds))
            for name, timing in timings.items()
        }

    def waterfalls(self, peaks: Peaks, steps: int = COMPARED_LOSSES) -> list[Waterfall]:
        """Each of ours again, from the start, with every half-op timed. The plain ones are let go."""
        self.contestants = [replace(one, step=_let_go) for one in self.contestants]
        self.trainers.clear()
        return [self._waterfall(name, peaks, steps) for name in self.settings]

    def _waterfall(self, name: str, peaks: Peaks, steps: int) -> Waterfall:
        settings = self.settings[name]
        settings = replace(settings, wrappers=(*settings.wrappers, str(OP_TIMES)))
        trainer = Trainer(settings, all_ops())
        times = trainer.wrappers[-1]
        if trainer.home.device != "host":
            times.synchronize = trainer.parameters.device.synchronize
        take = self._stream()
        trainer.step(*take(), self.learning_rate)  # the first touches all memory
        step_s, spent = [], []
        for _ in range(steps):
            times.spent.clear()
            start = time.perf_counter()
            trainer.step(*take(), self.learning_rate)
            step_s.append(time.perf_counter() - start)
            spent.append(dict(times.spent))
        # One whole step, the median one: medians of the parts would not add up.
        chosen = int(np.argsort(step_s)[len(step_s) // 2])
        works = works_of(trainer)
        ops = [
            OpShare(
                hook,
                trainer.dispatch.choose(hook).backend.name,
                total.calls,
                total.seconds,
                Work(sum(w.moved_bytes for w in works[hook]), sum(w.flops for w in works[hook])),
                sum(floor_of(w, peaks).seconds for w in works[hook]),
                all(floor_of(w, peaks).in_cache for w in works[hook]),
            )
            for hook, total in spent[chosen].items()
        ]
        ops.sort(key=lambda op: -op.seconds)
        return Waterfall(name, step_s[chosen], tuple(ops))


def _let_go() -> float:
    raise AssertionError("this contestant has been let go")


def why_no_peer(settings: TrainerSettings) -> str:
    """Why PyTorch cannot do the same work here; empty where it can."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    if settings.precision.policy != "fp32" or settings.precision.of_op:
        return "the peer computes in float32 only"
    if settings.optimizer.op != "adamw":
        return "the peer has AdamW only"
    if (settings.model.attention, settings.model.activation) != ("attention", "gelu"):
        return "the peer is a plain GPT-2"
    return ""


def works_of(trainer: Trainer) -> dict[str, list[Work]]:
    """Half-op -> the bytes and FLOPs of each of its calls in one optimizer step."""
    plan, settings = trainer.plan, trainer.settings
    steps = [*plan.gather, *plan.refresh]
    for _ in range(settings.gradient_accumulation):
        steps += [*plan.forward, *plan.backward]
    works: dict[str, list[Work]] = {}
    for step in steps:
        if step.choice is not None:
            works.setdefault(step.hook, []).append(Work(step.moved_bytes, step.flops))
    layout = trainer.parameters.layout
    decayed = {"matrices": layout.decayed, "all": layout.trained, "none": 0}
    split = decayed[settings.optimizer.decay]
    update = trainer.ops[settings.optimizer.op].forward
    works[update.name] = [
        work_of(update, {"P": size}) for size in (split, layout.trained - split) if size
    ]
    norm = trainer.ops["squared_norm"].forward
    works[norm.name] = [work_of(norm, {"P": layout.trained})]
    return works


@dataclass
class Result:
    """What the contest showed, in words and as JSON."""

    contest: Contest
    timings: dict[str, Timing]
    waterfalls: list[Waterfall]
    peaks: Peaks

    @property
    def first(self) -> str:
        return self.contest.contestants[0].name

    @property
    def differences(self) -> dict[str, float]:
        """Largest relative difference of the first losses from those of the first contestant."""
        losses = {
            one.name: np.array(one.losses[:COMPARED_LOSSES]) for one in self.contest.contestants
        }
        base = losses[self.first]
        return {
            name: float(np.max(np.abs(found - base) / np.abs(base)))
            for name, found in losses.items()
        }

    @property
    def agrees(self) -> bool:
        return all(difference <= LOSS_TOLERANCE for difference in self.differences.values())

    def ratio(self, name: str) -> Ratio:
        """How many times as long a step takes as the first contestant's."""
        return ratio(self.timings[name], self.timings[self.first])

    def tokens_per_s(self, name: str) -> float:
        return self.contest.tokens_per_step / self.timings[name].median_s

    def lines(self) -> list[str]:
        width = 2 + max(map(len, [*self.timings, *self.contest.absent]))
        text = ["", f"{'step':<{width}}{'median':>9}{'p10':>9}{'p90':>9}{'tokens/s':>11}"
                f"  times {self.first} (p10 to p90)"]  # fmt: skip
        for name, t in self.timings.items():
            text.append(
                f"{name:<{width}}{duration(t.median_s):>9}{duration(t.p10_s):>9}{duration(t.p90_s):>9}"
                f"{self.tokens_per_s(name):>11,.0f}  {self.ratio(name)}"
            )
        text += [
            f"{name:<{width}}not run ({reason})" for name, reason in self.contest.absent.items()
        ]
        text.append("")
        for name, difference in self.differences.items():
            if name == self.first:
                losses = self.contest.contestants[0].losses[:COMPARED_LOSSES]
                text.append(f"losses of {name}: " + " ".join(f"{loss:.4f}" for loss in losses))
                continue
            verdict = "agree" if difference <= LOSS_TOLERANCE else "DISAGREE"
            text.append(f"losses of {name} {verdict}: at most {difference:.1e} apart (relative)")
        for waterfall in self.waterfalls:
            text += ["", *self._waterfall_lines(waterfall)]
        return [*text, *self._effects()]

    def _waterfall_lines(self, waterfall: Waterfall) -> list[str]:
        step_s = waterfall.step_s
        text = [
            f"where a step of {waterfall.name} goes ({duration(step_s)} with the clocks in it)",
            f"  {'half-op':<32}{'backend':<10}{'calls':>6}{'time':>9}{'share':>8}"
            f"{'% roofline':>12}{'could save':>12}",
        ]
        for op in waterfall.ops:
            mark = " in cache" if op.in_cache else ""
            text.append(
                f"  {op.hook:<32}{op.backend:<10}{op.calls:>6}{duration(op.seconds):>9}"
                f"{100 * op.seconds / step_s:>7.1f}%{figure(100 * op.floor_s / op.seconds):>12}"
                f"{100 * op.could_save_s / step_s:>11.1f}%{mark}"
            )
        floor_s = sum(op.floor_s for op in waterfall.ops)
        text.append(
            f"  ops {duration(waterfall.ops_s)}; outside ops {100 * waterfall.outside_share:.2f}% of"
            f" the step; all ops at their roofline: {duration(floor_s)}"
        )
        return text

    def _effects(self) -> list[str]:
        """What a variant's half-ops promise for the step, beside what the step did."""
        if len(self.waterfalls) < 2:
            return []
        base = self.waterfalls[0]
        text = [""]
        for other in self.waterfalls[1:]:
            predicted = 1 + (other.ops_s - base.ops_s) / base.step_s
            text.append(
                f"{other.name} instead of {base.name}: the half-ops predict {figure(predicted)} times"
                f" the step; measured {self.ratio(other.name)}"
            )
        return text

    def record(self) -> dict[str, Any]:
        contest = self.contest
        return {
            "format": 1,
            "heading": contest.heading(),
            "peaks": as_record(self.peaks),
            "tokens_per_step": contest.tokens_per_step,
            "contestants": {
                name: {
                    "median_s": timing.median_s,
                    "p10_s": timing.p10_s,
                    "p90_s": timing.p90_s,
                    "turns": timing.rounds,
                    "tokens_per_s": self.tokens_per_s(name),
                    "times_first": asdict(self.ratio(name)),
                    "losses": next(
                        one.losses[:COMPARED_LOSSES]
                        for one in contest.contestants
                        if one.name == name
                    ),
                }
                for name, timing in self.timings.items()
            },
            "not_run": contest.absent,
            "loss_differences": self.differences,
            "waterfalls": [
                {**asdict(w), "outside_share": w.outside_share} for w in self.waterfalls
            ],
        }
