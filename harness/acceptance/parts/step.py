"""How long does a whole step take, beside what a user would pick instead? GPT-2 124M, T=1024.

Each trains alone on the device, in a process of its own: 10 steps to warm up, 30 timed. First ours, then
PyTorch eager and compiled, then llm.c where a built trainer is given. Ours once more at the end shows
whether the device itself changed. All have the same weights, tokens, optimizer and clipping, and their
first ten losses are compared.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from harness.acceptance.goals import PROMISED, mfu
from harness.acceptance.part import Check, Part, Request, Result, Unavailable
from harness.acceptance.parts.ops import peaks_in, rates
from harness.acceptance.parts.training import gpt2_124m, relative_difference, small
from harness.bench.contest.alone import take_turn, waterfall
from harness.bench.contest.contest import Contest
from harness.bench.contest.entrants import Entrants
from harness.bench.contest.peers.llmc_cuda import tokens_read
from harness.bench.contest.report import BF16_TOLERANCE, LOSS_TOLERANCE
from harness.bench.contest.work import LLMC
from harness.bench.report import duration
from harness.data import write_token_file
from harness.errors import HarnessError

T = 1024
BATCHES = (("bf16", 32), ("bf16", 64), ("bf16", 4), ("bf16", 16), ("tf32", 32))
"""The goals' own sizes first, so that a budget that is too short still answers them."""

PEERS = {
    "bf16": ("torch-bf16", "torch-bf16-compile"),
    "tf32": ("torch-tf32", "torch-tf32-compile"),
}
WARM, TIMED = 10, 30
AGAIN = " again"
TF32_TOLERANCE = 5e-3
TOLERANCES = {"fp32": LOSS_TOLERANCE, "tf32": TF32_TOLERANCE, "bf16": BF16_TOLERANCE}
TOO_LARGE = ("memory-too-small", "device-memory-too-small")
TYPICAL = 3
"""The power that makes small ids frequent, as words are: rows of an embedding then collide."""


def workers(request: Request) -> list[str]:
    """Of the first backend: the others are its parts, or too slow for a whole step."""
    found = []
    for name in list(request.backends)[:1]:
        sizes = [(p, B) for p, B in BATCHES if p in request.backends[name]["precisions"]]
        found += (
            [f"{name} {sizes[0][0]} tiny"]
            if request.rehearsal
            else [f"{name} {p} B={B}" for p, B in sizes]
        )
    return found


def checks(request: Request, worker: str, found: Mapping[str, Result]) -> Iterator[Check]:
    name, precision, batch = worker.split()
    B = 0 if request.rehearsal else int(batch.removeprefix("B="))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harness-step-")))
        contest = stack.enter_context(Contest(_entrants(request, name, precision, B, folder)))
        peers = list(contest.entrants.peers)
        llmc = [LLMC] if contest.entrants.llmc is not None else []
        steps = (2, 3) if request.rehearsal else (WARM, TIMED)
        yield "rates", partial(rates, name, precision, tuple(request.backends))
        for who in (name, *peers, *llmc):
            yield who, partial(turn, contest, who, name, steps, found)
        yield name + AGAIN, partial(turn, contest, name, name, steps, found)
        if not request.rehearsal:
            yield "where a step goes", partial(where_it_goes, contest, name, found)


def _entrants(request: Request, name: str, precision: str, B: int, folder: Path) -> Entrants:
    own = [f"backend={name}", f"precision={precision}", "optimizer.lr=3e-4"]
    if request.rehearsal:
        return Entrants({name: [*small(request), "data=counting", *own]}, (), alone=True)
    file = folder / "tokens.bin"
    count = int(1.2 * tokens_read(B, T))
    ids = 50257 * np.random.default_rng(0).random(count) ** TYPICAL
    write_token_file(file, ids.astype(np.uint16))
    overrides = [*gpt2_124m(B, T), "data=tokens", f"data.path={file}", *own]
    return Entrants(
        {name: overrides},
        PEERS[precision] if request.peer_python else (),
        llmc=Path(request.llmc) if request.llmc else None,
        python=request.peer_python or "",
        alone=True,
    )


def turn(
    contest: Contest, who: str, ours: str, steps: tuple[int, int], found: Mapping[str, Result]
) -> Result:
    """One contestant's times. `ok` is False where its first losses are not ours."""
    try:
        alone = take_turn(contest, who, *steps)
    except HarnessError as error:
        # A peer that dies has no bearing on ours, and a size that does not fit is no wrong result.
        if who != ours or error.slug in TOO_LARGE:
            raise Unavailable(f"{error.headline}: {error.facts.get('found', '')}") from error
        raise
    if alone.unavailable or alone.timing is None:
        raise Unavailable(alone.unavailable)
    base = found.get(ours, {}).get("losses") or alone.losses
    count = min(len(base), len(alone.losses))
    apart = relative_difference(alone.losses[:count], base[:count])
    allowed = TOLERANCES[contest.work.settings.precision.policy]
    result: dict[str, Any] = {
        "ok": apart <= allowed,
        "reason": "" if apart <= allowed else f"losses {apart:.1e} from ours, {allowed:g} allowed",
        "what": alone.what,
        "median_s": alone.timing.median_s,
        "p10_s": alone.timing.p10_s,
        "p90_s": alone.timing.p90_s,
        "steps": alone.timing.rounds,
        "first_step_s": alone.first_step_s,
        "tokens_per_s": contest.work.tokens_per_step / alone.timing.median_s,
        "device_bytes": alone.device_bytes,
        "host_bytes": alone.host_bytes,
        "losses": list(alone.losses),
        "losses_apart": apart,
    }
    model = contest.work.settings.model
    policy = contest.work.settings.precision.policy
    reached = found.get("rates", {}).get("peaks", {}).get("rates", {})
    measured = reached.get(f"{policy}_flops_per_s")
    result["mfu"] = mfu(
        model,
        contest.work.settings.sequence_length,
        result["tokens_per_s"],
        PROMISED[policy],
        measured,
    )
    return result


def where_it_goes(contest: Contest, name: str, found: Mapping[str, Result]) -> Result:
    """A step of ours, half-op by half-op. It waits for each, so it takes a little longer."""
    shown = waterfall(contest, name, peaks_in(found), steps=5)
    return {"ok": True, "step_s": shown.step_s, "lines": shown.lines()}


def lines(found: Mapping[str, Mapping[str, Result]]) -> list[str]:
    text: list[str] = []
    for worker, results in found.items():
        ours = worker.split()[0]
        base = results.get(ours, {}).get("median_s")
        how = (
            f"T={T}: warm {WARM}, {TIMED} timed, one after another"
            if "B=" in worker
            else "rehearsed"
        )
        text += ["", f"**{worker}**, {how}", ""]
        text += [
            "| | median | p10 | p90 | tokens/s | MFU llm.c | MFU nanoGPT | of the measured rate "
            "| device memory | times ours | losses apart |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for who, r in results.items():
            if who in ("rates", "where a step goes"):
                continue
            if "median_s" not in r:
                text.append(f"| {who} | not run: {r.get('reason', '')} |" + " |" * 9)
                continue
            held = r["device_bytes"]
            cells = [
                who,
                *(duration(r[f"{key}_s"]) for key in ("median", "p10", "p90")),
                f"{r['tokens_per_s']:,.0f}",
                *(_percent(r["mfu"][key]) for key in ("llm.c", "nanoGPT", "measured")),
                "not said" if held is None else f"{held / 2**20:,.0f} MiB",
                "" if base is None else f"{r['median_s'] / base:.3f}",
                f"{r['losses_apart']:.1e}" + ("" if r["ok"] else " WRONG"),
            ]
            text.append(f"| {' | '.join(cells)} |")
        if "lines" in results.get("where a step goes", {}):
            text += ["", "```text", *results["where a step goes"]["lines"], "```"]
    return text


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


PART = Part("step", "How long does a whole step take, beside others?", 0.31, workers, checks, lines)
