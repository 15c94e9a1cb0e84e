"""The results of a contest, as text and JSON: times, ratios, memory, and whether the losses agree."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harness.bench.contest.contest import Contest, heading_of
from harness.bench.contest.contestant import Contestant
from harness.bench.contest.work import COMPARED_LOSSES
from harness.bench.report import duration, figure, peaks_record
from harness.bench.timing import Ratio, Timing, ratio
from harness.bench.waterfall import Waterfall
from harness.machine.device_peaks import AnyPeaks

LOSS_TOLERANCE = (
    1e-3  # relative: ten float32 steps, measured below 1e-5; a wrong kernel shows at 1e-2
)
BF16_TOLERANCE = 2e-2  # 8 bits of mantissa: each activation is off by up to 2e-3, over ten steps
BUSY_SHARE = 0.05
"""Processor time of one that waits, of one core; above it, it takes from the others."""


@dataclass
class Result:
    """The results of a contest."""

    contest: Contest
    timings: dict[str, Timing]
    waterfalls: list[Waterfall]
    peaks: AnyPeaks

    @property
    def _all(self) -> list[Contestant]:
        return list(self.contest.contestants.values())

    @property
    def ours(self) -> list[str]:
        return [name for name in self.contest.work.overrides if name in self.contest.contestants]

    @property
    def first(self) -> str:
        return self.ours[0]

    @property
    def differences(self) -> dict[str, float]:
        """Largest relative difference of the first losses from those of the first contestant."""
        losses = {one.name: np.array(one.losses[:COMPARED_LOSSES]) for one in self._all}
        base = losses[self.first]
        return {
            name: float(np.max(np.abs(found - base) / np.abs(base)))
            for name, found in losses.items()
        }

    def tolerance(self, name: str) -> float:
        """How far the losses of one may be from those of the first."""
        bf16 = any(self.contest.contestants[n].bf16 for n in (name, self.first))
        return BF16_TOLERANCE if bf16 else LOSS_TOLERANCE

    @property
    def agrees(self) -> bool:
        return all(found <= self.tolerance(name) for name, found in self.differences.items())

    def ratio(self, name: str, ours: str) -> Ratio:
        """How many times as long its step takes as a step of that one of ours."""
        return ratio(self.timings[name], self.timings[ours])

    def tokens_per_s(self, name: str) -> float:
        return self.contest.work.tokens_per_step / self.timings[name].median_s

    def lines(self) -> list[str]:
        text = [*self._times(), "", *self._ratios(), "", *self._losses(), *self._busy()]
        for waterfall in self.waterfalls:
            text += ["", *waterfall.lines()]
        return [*text, *self._effects()]

    @property
    def _width(self) -> int:
        return 2 + max(map(len, [*self.timings, *self.contest.unavailable, "a step takes"]))

    def _times(self) -> list[str]:
        width = self._width
        text = ["", f"{'step':<{width}}{'median':>9}{'p10':>9}{'p90':>9}{'tokens/s':>11}"
                f"{'first step':>12}{'peak':>11}{'of the model':>14}"]  # fmt: skip
        for name, t in self.timings.items():
            one = self.contest.contestants[name]
            text.append(
                f"{name:<{width}}{duration(t.median_s):>9}{duration(t.p10_s):>9}{duration(t.p90_s):>9}"
                f"{self.tokens_per_s(name):>11,.0f}{duration(one.first_step_s):>12}"
                f"{_mib(self.contest.peaks_bytes[name]):>11}{_mib(self.increase(name)):>14}"
            )
        text += [
            f"{n:<{width}}not run ({reason})" for n, reason in self.contest.unavailable.items()
        ]
        return text

    def increase(self, name: str) -> int | None:
        """The peak of the process's memory, beyond what it held before its model was built."""
        peak, before = self.contest.peaks_bytes[name], self.contest.contestants[name].before
        return None if peak is None or before is None else peak - before

    def _ratios(self) -> list[str]:
        """How many times as long a step of each takes as one of each of ours."""
        width = self._width
        columns = [max(len(ours) + 2, 24) for ours in self.ours]
        heads = "".join(f"{o:>{c}}" for o, c in zip(self.ours, columns, strict=True))
        text = [f"{'a step takes':<{width}}times that of (p10 to p90)", f"{'':<{width}}{heads}"]
        for name in self.timings:
            cells = [
                f"{'1' if name == ours else str(self.ratio(name, ours)):>{column}}"
                for ours, column in zip(self.ours, columns, strict=True)
            ]
            text.append(f"{name:<{width}}{''.join(cells)}")
        return text

    def _losses(self) -> list[str]:
        text = []
        for name, difference in self.differences.items():
            if name == self.first:
                losses = self.contest.contestants[name].losses[:COMPARED_LOSSES]
                text.append(f"losses of {name}: " + " ".join(f"{loss:.4f}" for loss in losses))
                continue
            tolerance = self.tolerance(name)
            verdict = "agree" if difference <= tolerance else "DISAGREE"
            text.append(
                f"losses of {name} {verdict}: at most {difference:.1e} apart (relative; {tolerance:g}"
                f" allowed{', bf16' if tolerance == BF16_TOLERANCE else ''})"
            )
        return text

    def _busy(self) -> list[str]:
        """Contestants that computed while another was timed. Such times cannot be trusted."""
        shares = {one.name: one.busy_s / one.waited_s for one in self._all if one.waited_s}
        return [
            f"{name} kept {100 * share:.0f}% of a core busy while it was not its turn"
            for name, share in shares.items()
            if share > BUSY_SHARE
        ]

    def _effects(self) -> list[str]:
        """How much faster a variant's half-ops should make the step, beside what was measured."""
        if len(self.waterfalls) < 2:
            return []
        base = self.waterfalls[0]
        text = [""]
        for other in self.waterfalls[1:]:
            predicted = 1 + (other.ops_s - base.ops_s) / base.step_s
            text.append(
                f"{other.name} instead of {base.name}: the half-ops predict {figure(predicted)} times"
                f" the step; measured {self.ratio(other.name, base.name)}"
            )
        return text

    def record(self) -> dict[str, Any]:
        contest = self.contest
        return {
            "format": 2,
            "heading": heading_of(contest),
            "machine": asdict(contest.machine),
            "peaks": peaks_record(self.peaks),
            "threads": contest.work.threads,
            "tokens_per_step": contest.work.tokens_per_step,
            "ours": self.ours,
            "contestants": {name: self._one(name) for name in self.timings},
            "not_run": contest.unavailable,
            "loss_differences": self.differences,
            "waterfalls": [
                {**asdict(w), "outside_share": w.outside_share} for w in self.waterfalls
            ],
        }

    def _one(self, name: str) -> dict[str, Any]:
        timing, one = self.timings[name], self.contest.contestants[name]
        return {
            "what": one.what,
            "median_s": timing.median_s,
            "p10_s": timing.p10_s,
            "p90_s": timing.p90_s,
            "turns": timing.rounds,
            "tokens_per_s": self.tokens_per_s(name),
            "first_step_s": one.first_step_s,
            "peak_bytes": self.contest.peaks_bytes[name],
            "model_bytes": self.increase(name),
            "device_bytes": one.device_bytes,
            "times": {ours: asdict(self.ratio(name, ours)) for ours in self.ours},
            "losses": one.losses[:COMPARED_LOSSES],
            "loss_tolerance": self.tolerance(name),
            "busy_share": one.busy_s / one.waited_s if one.waited_s else 0.0,
        }


def _mib(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 2**20:,.0f} MiB"
