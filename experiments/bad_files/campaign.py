"""Run mutants of a format through children, and count what became of them."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field

FAULTS = ("untyped", "too slow", "out of memory", "crashed")


@dataclass
class Tally:
    """What became of a format's mutants. faults: the first few that broke the promise."""

    outcomes: Counter = field(default_factory=Counter)
    slugs: Counter = field(default_factory=Counter)
    slowest_s: float = 0.0
    most_grown_kib: int = 0
    faults: list = field(default_factory=list)

    def add(self, record: dict) -> None:
        self.outcomes[record["outcome"]] += 1
        if "slug" in record:
            self.slugs[record["slug"]] += 1
        self.slowest_s = max(self.slowest_s, record.get("seconds", 0.0))
        self.most_grown_kib = max(self.most_grown_kib, record.get("grown_kib", 0))
        if record["outcome"] in FAULTS:
            self.faults.append(record)

    def record(self) -> dict:
        """For JSON; of the faults the first twenty."""
        return {
            "outcomes": dict(self.outcomes.most_common()),
            "errors": dict(self.slugs.most_common()),
            "slowest_s": self.slowest_s,
            "most_grown_kib": self.most_grown_kib,
            "faults": self.faults[:20],
        }


def run(name: str, seed: int, count: int, first: int = 0) -> Tally:
    """Mutants first .. first + count - 1 of a format; a child that dies is started again."""
    tally, at, end = Tally(), first, first + count
    while at < end:
        command = [sys.executable, "-m", "experiments.bad_files.child"]
        numbers = [str(number) for number in (seed, at, end)]
        done = subprocess.run([*command, name, *numbers], capture_output=True, text=True)
        for line in done.stdout.splitlines():
            tally.add(json.loads(line))
            at += 1
        if at < end:
            if done.returncode >= 0:
                raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
            tally.add({"number": at, "outcome": "crashed", "signal": -done.returncode})
            at += 1
    return tally
