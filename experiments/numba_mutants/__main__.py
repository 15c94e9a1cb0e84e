"""Judge mutants of the Numba kernels in the simulator, drawn in an order of their own, until time is up.

python -m experiments.numba_mutants [--minutes 10] [--seed 6] [FILE ...]
"""

import argparse
import time
from pathlib import Path

import numpy as np

from harness.mutation.mutate import draw, read_subject
from harness.mutation.report import write_report
from harness.mutation.workers import Worker, wait_for_any

HERE = Path(__file__).resolve().parent
FILES = (
    *("adamw.py", "cast.py", "clip_scale.py", "cross_entropy.py", "gelu.py", "guard.py"),
    *("layernorm.py", "residual.py", "sgd.py", "softmax.py", "squared_norm.py"),
)
"""Those whose half-ops the simulator judges in seconds; a matmul that survives takes minutes."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="*", default=FILES)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=6)
    arguments = parser.parse_args()
    subject = read_subject("numba_cuda")
    possible = [m for m in draw(subject, None, 0) if m.file in arguments.files]
    order = np.random.default_rng(arguments.seed).permutation(len(possible))
    until = time.monotonic() + 60 * arguments.minutes
    worker, fates = Worker(subject), []
    for i in order:
        worker.begin(possible[i])
        fate = None
        while fate is None and time.monotonic() < until:
            wait_for_any([worker], 0.2)
            fate = worker.fate()
        if fate is None:
            break
        fates.append(fate)
        print(fate.how or "survived", fate.mutation, flush=True)
    worker.stop()
    write_report(HERE, subject, fates, arguments.seed)


if __name__ == "__main__":
    main()
