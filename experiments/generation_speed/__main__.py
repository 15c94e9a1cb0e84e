"""Time greedy generation: from a cache, by computing the text again, and by transformers.

    python -m experiments.generation_speed [--turns N] [--name NAME]

All have the same weights, drawn at random, and the record says whether they gave the same tokens. They
take turns in one process, each after a pause in which the others' threads fall asleep.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from experiments.generation_speed.peer import peer_of, why_not
from harness.bench import op_times
from harness.decoding.decoder import Decoder, NextToken, Recomputer
from harness.device import HOST
from harness.execution.parameters import Parameters
from harness.machine.provenance import versions
from harness.models.gpt2 import GPT2, build
from harness.plugins.dispatch import Dispatch
from harness.plugins.loading import all_ops
from harness.run.folder import write_json_atomically

HERE = Path(__file__).parent
MODEL = GPT2(layers=12, heads=12, channels=768, positions=1024, vocab_size=50257)
PROMPT, NEW = 16, 128
TRACED_STEPS = 48
COPIED = 40_000_000  # float32 numbers: five times the largest cache of such machines
PAUSE_S = 0.1

Generate = Callable[[], list[int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--name", default="record", help="of the record, without .json")
    arguments = parser.parse_args()
    ops = all_ops()
    parameters = Parameters(build(ops, MODEL, 1, 1, head="logits")[0], HOST)
    parameters.initialise(0)
    dispatch = Dispatch(ops, {"every_op": "numpy"})
    prompt = np.random.default_rng(0).integers(0, MODEL.vocab_size, PROMPT).tolist()

    def of(kind: type[NextToken], **options: Any) -> NextToken:
        return kind(MODEL, parameters, dispatch, capacity=PROMPT + NEW, **options)

    cached, recomputed = of(Decoder), of(Recomputer)
    sides: dict[str, Generate] = {
        "cached": lambda: greedy(cached, prompt),
        "recomputed": lambda: greedy(recomputed, prompt),
    }
    if why_not() is None:
        sides["transformers"] = peer_of(MODEL, parameters.to_host(), prompt, NEW)
    found = measure(sides, arguments.turns)
    traced = of(Decoder, wrappers=(op_times,))
    found |= {
        "prompt": PROMPT,
        "new_tokens": NEW,
        "turns": arguments.turns,
        "without_transformers": why_not(),
        "step": waterfall(traced, prompt),
        "copy_bytes_per_s": copy_bandwidth(),
        "load_average": os.getloadavg(),
        "command": "python -m experiments.generation_speed",
        "versions": versions(),
    }
    write_json_atomically(HERE / f"{arguments.name}.json", found)
    print(json.dumps({k: v for k, v in found.items() if k != "versions"}, indent=2))


def greedy(decoder: NextToken, prompt: list[int]) -> list[int]:
    """The likeliest token after a prompt, and so on."""
    logits_BV = decoder.start([prompt])
    tokens = [int(logits_BV[0].argmax())]
    while len(tokens) < NEW:
        logits_BV = decoder.step(tokens[-1:])
        tokens.append(int(logits_BV[0].argmax()))
    return tokens


def measure(sides: dict[str, Generate], turns: int) -> dict[str, Any]:
    """Seconds of each side in each turn, medians as tokens per second, and the ratios of medians."""
    tokens = {name: side() for name, side in sides.items()}  # also makes every plan
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, side in sides.items():
            time.sleep(PAUSE_S)
            begin = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - begin)
    medians = {name: median(found) for name, found in seconds.items()}
    return {
        "same_tokens": {name: found == tokens["cached"] for name, found in tokens.items()},
        "seconds": seconds,
        "tokens_per_s": {name: NEW / medians[name] for name in sides},
        "cached_is_faster_by": {
            name: medians[name] / medians["cached"]
            for name in ("recomputed", "transformers")
            if name in sides
        },
    }


def waterfall(decoder: NextToken, prompt: list[int]) -> dict[str, Any]:
    """Where the milliseconds of one step go, by op, and how fast its weights are read."""
    logits_BV = decoder.start([prompt])
    logits_BV = decoder.step(logits_BV.argmax(axis=1))
    op_times.spent.clear()
    steps_s = []
    for _ in range(TRACED_STEPS):
        begin = time.perf_counter()
        logits_BV = decoder.step(logits_BV.argmax(axis=1))
        steps_s.append(time.perf_counter() - begin)
    ms = {op: 1e3 * spent.seconds / TRACED_STEPS for op, spent in op_times.spent.items()}
    total_ms = 1e3 * sum(steps_s) / TRACED_STEPS
    read_bytes = 4 * (MODEL.parameters - MODEL.positions * MODEL.channels)
    return {
        "median_ms": 1e3 * median(steps_s),
        "mean_ms": total_ms,
        "by_op_ms": dict(sorted(ms.items(), key=lambda pair: -pair[1])),
        "outside_ops_ms": total_ms - sum(ms.values()),
        "weight_bytes": read_bytes,
        "weight_bytes_per_s": read_bytes / median(steps_s),
    }


def copy_bandwidth() -> float:
    """Bytes read and written in a second by np.copyto, which has one thread; the best of nine."""
    source, target = np.ones(COPIED, np.float32), np.empty(COPIED, np.float32)
    best_s = float("inf")
    for _ in range(9):
        begin = time.perf_counter()
        np.copyto(target, source)
        best_s = min(best_s, time.perf_counter() - begin)
    return 2 * source.nbytes / best_s


if __name__ == "__main__":
    main()
