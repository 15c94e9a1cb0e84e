"""Time whole training steps, ours beside PyTorch's and llm.c's, in turns: `harness bench train`.

Everyone starts from the same weights and sees the same batches. No time counts unless the first ten
losses agree. Then our step is timed half-op by half-op: where its time goes, what each half-op could
save, and what the harness itself costs. docs/bench-train.md says how to read it.

    entrants.py        who is to train, and whether they do the same work
    work.py            what everyone does: the same model, batches, learning rate, threads
    contest.py         the contestants, and their turns
    contestant.py      one of them: a process that trains when it is told to
    worker.py          that process; ours.py and peers/ are what it trains
    waterfall.py       a step of ours, half-op by half-op
    report.py          the results, as text and JSON
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import threadpoolctl  # type: ignore[import-untyped]

from harness.bench.contest.contest import Contest, heading_of
from harness.bench.contest.entrants import Entrants, peer_and_threads
from harness.bench.contest.report import Result
from harness.bench.report import write
from harness.config import command_line
from harness.errors import ConfigError, NumericsError
from harness.machine.device_peaks import AnyPeaks, device_peaks
from harness.machine.peaks import peaks as measured_peaks
from harness.plugins.dispatch import Dispatch
from harness.plugins.loading import all_ops

USUAL_PEERS = ("torch", "torch-compile")


def run_bench_train(
    overrides: Sequence[str] = (),
    backends: Sequence[str] = (),
    *,
    variants: Sequence[str] = (),
    turns: int = 10,
    threads: int | None = None,
    peers: Sequence[str] = USUAL_PEERS,
    peer_python: str = sys.executable,
    llmc: Path | None = None,
    keep_going: bool = False,
    report: Path | None = None,
    peaks: AnyPeaks | None = None,
    show: Callable[[str], None] = print,
) -> int:
    """Time training steps, print where their time goes, and return the exit code.

    overrides: as of `python -m harness.train`. backends: each is one of us; without any, the
    configuration's own. variants: more of us, each with more overrides: "ops.gelu=./mine.py". threads:
    for everyone. peers: names of entrants.PEERS. peer_python: a Python that has PyTorch. llmc: a built
    `train_gpt2`. keep_going: list who cannot train as not run. report: write REPORT.json and REPORT.md.
    Exit code 6 where the losses disagree.
    """
    if turns < 1:
        raise ConfigError(f"--turns {turns} must be at least 1", slug="value-too-small")
    for name in peers:
        peer_and_threads(name)
    entrants = Entrants(
        entries(overrides, backends, variants), peers, llmc, peer_python, threads, keep_going
    )
    contest = Contest(entrants)
    with threadpoolctl.threadpool_limits(contest.work.threads):
        peaks = peaks or _peaks_for(contest)
    with contest:
        show(heading_of(contest))
        timings = contest.run(turns)
        waterfalls = contest.waterfalls(peaks)
        result = Result(contest, timings, waterfalls, peaks)
    for line in result.lines():
        show(line)
    if report is not None:
        markdown = "```text\n" + "\n".join([heading_of(contest), *result.lines()]) + "\n```\n"
        files = write(report, result.record(), markdown)
        show("written: " + ", ".join(map(str, files)))
    return 0 if result.agrees else NumericsError.exit_code


def _peaks_for(contest: Contest) -> AnyPeaks:
    """The peaks to compare the first of ours with: those of its device, or of this machine."""
    if not contest.work.on_device:
        return measured_peaks()
    settings = contest.work.settings
    dispatch = Dispatch(all_ops(), settings.ops, settings.options)
    home = dispatch.choose(settings.optimizer.op).backend
    return device_peaks(home, settings.precision.policy) or measured_peaks()


def entries(
    overrides: Sequence[str], backends: Sequence[str], variants: Sequence[str]
) -> dict[str, list[str]]:
    """The name and overrides of each of ours."""
    own = [*overrides]
    named = {name: [*own, f"backend={name}"] for name in backends}
    if not named:
        named = {command_line.compose(own).backend: own}
    return named | {text: [*own, *text.split()] for text in variants}
