"""An acceptance under way: part after part, within one budget, and the record after each."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.acceptance import record, report
from harness.acceptance.part import Part, Request
from harness.acceptance.worker import part_of
from harness.acceptance.workers import run_part

RESERVE_S = 12.0  # for ending the last part's processes, and the record


class Progress:
    """The record so far, and what is left to run.

    file, kept: the record. parts: those asked for, by name. begun: when the command began, by
    time.monotonic(). show: prints a line for the user.
    """

    def __init__(
        self,
        file: Path,
        kept: dict[str, Any],
        parts: Mapping[str, Part],
        begun: float,
        show: Callable[[str], None],
    ) -> None:
        self.file, self.kept, self.parts = file, kept, parts
        self.begun, self.show = begun, show
        self.spent_before_s: float = kept["seconds"]
        for name in parts:
            kept["parts"].setdefault(
                name, _part_record("not run", "the time was over before it", {})
            )

    @property
    def todo(self) -> list[str]:
        """The parts that are not done, in order."""
        unfinished = ("out of time", "not run")
        return [name for name in self.parts if self.kept["parts"][name]["status"] in unfinished]

    def save(self) -> None:
        """Write the record as it is now, and its page."""
        self.kept["seconds"] = self.spent_before_s + self._spent_s()
        self.kept["goals"] = report.goal_lines(self.kept)
        shown = {name: self.parts.get(name) or part_of(name) for name in self.kept["parts"]}
        record.write(self.file, self.kept, report.as_markdown(self.kept, shown))

    def run(self, request: Request, budget_s: float) -> None:
        """Run the parts that are not done. Each gets its share of the time that is left."""
        self.save()
        todo = self.todo
        for place, name in enumerate(todo):
            limit_s = self._limit_s(todo[place:], budget_s)
            if limit_s <= 1:
                self.show(f"{name}: not run, the time is over")
                continue
            self.show(f"{name}: {self.parts[name].question} ({limit_s:.0f} s at most)")
            self._run_part(name, request, limit_s)
            self.save()
            self.show(f"{name}: {self._outcome(name)}")

    def _limit_s(self, names: Sequence[str], budget_s: float) -> float:
        """The time for the first of these parts, which are all that are left."""
        left_s = budget_s - RESERVE_S - self._spent_s()
        shares = [self.parts[name].share for name in names]
        return left_s * shares[0] / sum(shares)

    def _run_part(self, name: str, request: Request, limit_s: float) -> None:
        """Run a part, and record what it finds while it finds it."""
        if not request.backends:
            self.kept["parts"][name] = _part_record("not run", "no backend can be opened", {})
            return
        earlier = self.kept["parts"][name]
        begun, before_s = time.monotonic(), earlier["seconds"]

        def keep(results: dict[str, Any], *, complete: bool) -> None:
            status, reason = record.status_of(results, complete=complete, on_cpu=request.rehearsal)
            seconds = before_s + time.monotonic() - begun
            self.kept["parts"][name] = _part_record(status, reason, results, seconds, limit_s)

        def tell(results: dict[str, Any]) -> None:
            keep(results, complete=False)
            self.save()

        found = run_part(self.parts[name], name, request, limit_s, earlier["lanes"], tell)
        keep(found.results, complete=found.complete)

    def _outcome(self, name: str) -> str:
        found, on = self.kept["parts"][name], self.kept["on"]
        status = found["status"] + (f" ({on})" if on == record.ON_CPU else "")
        reason = f": {found['reason']}" if found["reason"] else ""
        return f"{status}, {found['seconds']:.0f} s{reason}"

    def _spent_s(self) -> float:
        return time.monotonic() - self.begun


def _part_record(
    status: str, reason: str, results: dict[str, Any], seconds: float = 0.0, limit_s: float = 0.0
) -> dict[str, Any]:
    return {
        "status": status,
        "reason": reason,
        "seconds": seconds,
        "limit_s": limit_s,
        "lanes": results,
    }
