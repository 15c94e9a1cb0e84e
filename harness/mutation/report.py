"""Write down what became of each mutant, and keep a place to explain each survivor."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.conformance.report import machine
from harness.mutation.mutants import Mutation
from harness.mutation.mutated_package import Subject


@dataclass(frozen=True)
class Fate:
    """What became of a mutant.

    how: what noticed it: "quick" or "large" cases, "import", "crash", "timeout"; "" if it survived.
    by: the law that it broke, and the case.
    before, after: the first line of the statement that was changed.
    """

    mutation: Mutation
    how: str
    by: str = ""
    before: str = ""
    after: str = ""
    seconds: float = 0.0

    @property
    def survived(self) -> bool:
        return not self.how


def summary(fates: Sequence[Fate]) -> dict[str, Any]:
    """The counts of a run: all, survived, and noticed in which way and in which file."""
    files = dict.fromkeys(fate.mutation.file for fate in fates)

    def count(some: Iterable[Fate]) -> dict[str, int]:
        some = list(some)
        return {"mutants": len(some), "survived": sum(fate.survived for fate in some)}

    hows = sorted({fate.how for fate in fates if fate.how})
    return {
        **count(fates),
        "noticed": {how: sum(fate.how == how for fate in fates) for how in hows},
        "files": {name: count(f for f in fates if f.mutation.file == name) for name in files},
    }


def write_report(folder: Path, subject: Subject, fates: Sequence[Fate], seed: int) -> None:
    """record_mutants.json with every fate, and survivors.md with a place to explain each survivor."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "backend": subject.backend,
        "precisions": subject.precisions,
        "seed": seed,
        "machine": machine(),
        **summary(fates),
        "mutants_judged": [asdict(fate) for fate in fates],
    }
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    (folder / "record_mutants.json").write_text(text)
    (folder / "survivors.md").write_text(_survivors(subject, fates, folder / "survivors.md"))


UNEXPLAINED = "unexplained"


def _survivors(subject: Subject, fates: Sequence[Fate], old: Path) -> str:
    """The survivors by file, each with the explanation that the file had, if the mistake was in it."""
    known = read_explanations(old.read_text()) if old.is_file() else {}
    lines = [f"# What survived of backend `{subject.backend}`", ""]
    lines += ["An explanation stays with its mistake when the file is written again.", ""]
    for fate in fates:
        if fate.survived:
            title = f"{fate.mutation.file}: `{fate.before}` → `{fate.after}`"
            lines += [f"- {title}", f"  {known.get(title, UNEXPLAINED)}"]
    return "\n".join(lines) + "\n"


def read_explanations(text: str) -> dict[str, str]:
    """Title -> explanation, of a survivors.md."""
    lines = text.splitlines()
    return {
        line.removeprefix("- "): lines[i + 1].strip()
        for i, line in enumerate(lines[:-1])
        if line.startswith("- ")
    }
