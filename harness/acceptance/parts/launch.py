"""What does a launch cost the host? A launch that computes next to nothing is timed many times in a row.

A half-op of one element is called as in a run: through the backend's own function, on the harness's
stream. Then the same launches are replayed as one graph, and what remains is the device's own time.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from harness.acceptance.part import Check, Part, Request, Result, Unavailable
from harness.plugins.loading import all_ops, configure, load

HOOK = "gelu_forward"
LAUNCHES, ROUNDS = 500, 20
"""Of one round, few enough that the driver's queue has room for all; the median of the rounds counts."""

REHEARSED = (5, 2)


def workers(request: Request) -> list[str]:
    return list(request.backends)


def checks(request: Request, worker: str, found: Mapping[str, Result]) -> Iterator[Check]:
    launches, rounds = REHEARSED if request.rehearsal else (LAUNCHES, ROUNDS)
    yield HOOK, partial(launched, worker, launches, rounds)


def launched(name: str, launches: int, rounds: int) -> Result:
    """Seconds of a launch by the host's clock, not waited for; and within a graph, waited for."""
    ops = all_ops()
    backend = load(name, ops)
    if HOOK not in backend:
        raise Unavailable(f"the backend has no {HOOK}")
    configure(backend, {})
    device = backend.open_device()
    out, x = (_one_element(backend, device) for _ in range(2))
    call = partial(backend.function(HOOK, "fp32"), out, x)
    calls = [call] * launches
    asked_s = _median_s(lambda: [one() for one in calls], device.synchronize, rounds)
    result: dict[str, Any] = {
        "ok": True,
        "launches": launches,
        "host_s": asked_s / launches,
        "graph_s": None,
    }
    if backend.capturable and "capture" in backend:
        replay = backend.functions["capture"](calls)
        if replay is not None:
            result["graph_s"] = _median_s(_waited(replay, device), lambda: None, rounds) / launches
    return result


def _one_element(backend: Any, device: Any) -> Any:
    array = np.ones((1, 1), np.float32)
    buffer = device.view(device.empty(array.nbytes), 0, array.shape, array.dtype)
    device.from_host(buffer, array)
    return backend.adapt(buffer)


def _waited(replay: Callable[[], None], device: Any) -> Callable[[], None]:
    def run() -> None:
        replay()
        device.synchronize()

    return run


def _median_s(run: Callable[[], Any], settle: Callable[[], None], rounds: int) -> float:
    """The median time of a call, from idle to idle. The first call compiles and does not count."""
    seconds = []
    for _ in range(rounds + 1):
        settle()
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    settle()
    return statistics.median(seconds[1:])


def lines(found: Mapping[str, Mapping[str, Result]]) -> list[str]:
    text = ["| backend | launches | by the host, each | in a replayed graph, each |"]
    text += ["|---|---:|---:|---:|"]
    for worker, results in found.items():
        for check, r in results.items():
            if "host_s" not in r:
                text.append(f"| {worker} {check} | {r.get('reason', '')} | | |")
                continue
            graph = "no graph" if r["graph_s"] is None else f"{1e6 * r['graph_s']:.2f} us"
            host = f"{1e6 * r['host_s']:.2f} us"
            text.append(f"| {worker} {check} | {r['launches']} | {host} | {graph} |")
    return text


PART = Part("launch", "What does a launch cost the host?", 0.03, workers, checks, lines)
