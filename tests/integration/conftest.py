"""`train(...)`: a training run in this process, in a folder of its own, as the command would do it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

TEXT = "The quick brown fox jumps over the lazy dog.\n" * 60
SMALL = [
    *("backend=numpy", "model=micro", "data=text", "data.path=text.txt", "steps=3"),
    *("batch_size=2", "sample.every=0", "baselines=false", "validate_every=0"),
    "checkpoint_every=0",
]


@dataclass(frozen=True)
class Outcome:
    """What a run left: its exit code, what it printed, its folders (oldest first)."""

    code: int
    out: str
    err: str
    folders: list[Path]

    @property
    def folder(self) -> Path:
        (folder,) = self.folders
        return folder

    def records(self, kind: str = "step") -> list[dict]:
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        return [record for record in map(json.loads, lines) if record["kind"] == kind]

    @property
    def losses(self) -> list[str]:
        return [float(record["loss"]).hex() for record in self.records()]

    def weights(self, step: int) -> str:
        """The sha256 of a checkpoint's weights, as its manifest says it."""
        path = self.folder / "checkpoints" / f"step-{step:08d}" / "manifest.json"
        return json.loads(path.read_text())["files"]["model.safetensors"]["sha256"]


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """An empty folder with text.txt, to run in; peaks that someone measured are not found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path


@pytest.fixture
def small() -> list[str]:
    """What a run is here unless it says otherwise."""
    return SMALL


@pytest.fixture
def train(workplace, capfd) -> Callable[..., Outcome]:
    """Run with overrides that are added to SMALL; small=False: with the overrides alone."""
    from harness.config import command_line
    from harness.errors import HarnessError, report
    from harness.train import run_one

    def run(*overrides: str, small: bool = True, runs_dir: str = "runs") -> Outcome:
        capfd.readouterr()
        try:
            (config,) = command_line.check([*(SMALL if small else ()), *overrides])
            code = run_one(config)
        except HarnessError as error:
            code = report(error)
        found = capfd.readouterr()
        folders = sorted(
            Path(runs_dir).glob("*/run.json"), key=lambda path: path.stat().st_mtime_ns
        )
        return Outcome(code, found.out, found.err, [path.parent for path in folders])

    return run


@pytest.fixture
def faulty(workplace) -> Callable[..., str]:
    """Write a file backend: NumPy's function of a hook, and then `statement` from call `first` on."""

    def write(hook: str, statement: str, first: int, last: int = 10**9) -> str:
        import inspect

        from harness.plugins.loading import all_ops

        names = ", ".join(inspect.signature(all_ops().half(hook).spec).parameters)
        path = workplace / f"faulty_{hook}.py"
        path.write_text(
            "import os, signal\n"
            "from backends.numpy_cpu import plugin\n"
            "from harness import hookimpl\n"
            "computes = plugin.computes\n"
            "calls = 0\n\n\n"
            "@hookimpl\n"
            f"def {hook}({names}):\n"
            "    global calls\n"
            f"    plugin.{hook}({names})\n"
            "    calls += 1\n"
            f"    if {first} <= calls <= {last}:\n"
            f"        {statement}\n"
        )
        return f"./{path.name}"

    return write
