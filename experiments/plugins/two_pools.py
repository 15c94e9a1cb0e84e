"""Do the threads of PyTorch and those of Numba fight in one process?

    python experiments/plugins/two_pools.py

A product by PyTorch, then a kernel by Numba over its result, as the mix `ops=cpu_bf16` has them. Each
setting runs in processes of its own, in turns. The lower quartile of each call is kept, and of the turns
the least: other programs on the machine only ever add time.
"""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SETTINGS: dict[str, dict[str, str]] = {
    "as they are": {},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "NUMBA_THREADING_LAYER=workqueue": {"NUMBA_THREADING_LAYER": "workqueue"},
    "PyTorch on one thread, two Python threads": {"SPLIT": "1"},
}
SHAPES = ((256, 768, 768), (256, 768, 3072), (768, 128, 128))
TURNS, REPEATS = 3, 40


def main() -> None:
    best: dict[str, dict[str, list[float]]] = {str(shape): {} for shape in SHAPES}
    for _ in range(TURNS):
        for name, extra in SETTINGS.items():
            command = [sys.executable, __file__, "measure"]
            output = subprocess.check_output(command, env={**os.environ, **extra}, text=True)
            for shape, found in json.loads(output).items():
                before = best[shape].get(name, found)
                best[shape][name] = [min(pair) for pair in zip(before, found, strict=True)]
    result = {"command": "python experiments/plugins/two_pools.py", "milliseconds": best}
    (Path(__file__).parent / "record_two_pools.json").write_text(
        json.dumps(result, indent=1) + "\n"
    )
    for shape, rows in best.items():
        print(f"{shape}: product, kernel alone; product, kernel in turns; both in turns (ms)")
        for name, (*times, both) in rows.items():
            print(f"  {name:<42}" + "".join(f"{t:8.3f}" for t in times) + f"{both:9.3f}")


def measure() -> None:
    import numba
    import numpy as np
    import torch

    @numba.njit(parallel=True, fastmath=True)
    def normalise(out_NC, x_NC):
        N, C = x_NC.shape
        for n in numba.prange(N):
            mean, square = np.float32(0), np.float32(0)
            for c in range(C):
                mean += x_NC[n, c]
            mean /= C
            for c in range(C):
                square += (x_NC[n, c] - mean) ** 2
            rstd = 1 / np.sqrt(square / C + np.float32(1e-5))
            for c in range(C):
                out_NC[n, c] = (x_NC[n, c] - mean) * rstd

    split = "SPLIT" in os.environ
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(1 if split else cores)
    numba.set_num_threads(cores)
    pool = ThreadPoolExecutor(1)
    found = {}
    for N, I, O in SHAPES:
        x_NI, weight_OI = torch.randn(N, I), torch.randn(O, I)
        out_NO = torch.empty(N, O)
        array_NO, normal_NO = out_NO.numpy(), np.empty((N, O), np.float32)

        def rows(part, x=x_NI, weight=weight_OI, out=out_NO):
            torch.mm(x[part], weight.T, out=out[part])

        def product(rows=rows, half=N // 2):
            if not split:
                return rows(slice(None))
            other = pool.submit(rows, slice(half))
            rows(slice(half, None))
            return other.result()

        def kernel(out=normal_NO, x=array_NO):
            normalise(out, x)

        alone = [timed([product])[0], timed([kernel])[0]]
        in_turns = timed([product, kernel])
        found[str((N, I, O))] = [*alone, *in_turns, sum(in_turns)]
    print(json.dumps(found))


def timed(calls) -> list[float]:
    """The lower quartile of each call, in milliseconds; the calls follow each other."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(REPEATS):
        for call, list_ in zip(calls, times, strict=True):
            begin = time.perf_counter()
            call()
            list_.append((time.perf_counter() - begin) * 1e3)
    return [sorted(each)[REPEATS // 4] for each in times]


if __name__ == "__main__":
    measure() if sys.argv[1:] == ["measure"] else main()
