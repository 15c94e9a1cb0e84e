"""A kernel with one mistake is noticed, and as it is it is accepted.

Three of what `python -m experiments.cuda_mutants` makes by the hundred.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

FILE = "residual.cu"
MISTAKES = (
    ("operator", "P / SIZE", "P * SIZE"),
    ("comparison", "if (i < P) out_P", "if (i >= P) out_P"),
    ("operator", "wide(a_P[i]) + wide", "wide(a_P[i]) - wide"),
)

JUDGE = """
import json, sys, tempfile
from pathlib import Path
from experiments.cuda_mutants.judging import TEXTS, accept_unchanged, compile_into, fate_of
from experiments.cuda_mutants.mutations import mutations_of

file, mistakes = json.loads(sys.argv[1])
text, hows = TEXTS[file], []
with tempfile.TemporaryDirectory() as folder:
    compile_into(Path(folder))
    usual_s = accept_unchanged(file)
    for kind, before, after in mistakes:
        chosen = next(
            m
            for m in mutations_of(file, text)
            if m.kind == kind and before in m.shown(text)[0] and after in m.shown(text)[1]
        )
        hows.append(fate_of(chosen, usual_s, judges=["conformance"]).how)
print(json.dumps(hows))
"""
"""In a process of its own, which forks, and whose kernels are others'."""


def test_a_kernel_with_one_mistake_is_noticed_and_accepted_without():
    done = subprocess.run(
        [sys.executable, "-c", JUDGE, json.dumps([FILE, MISTAKES])],
        cwd=ROOT,
        env={**os.environ, "HARNESS_CUDA_ON_CPU": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) <= {"conformance", "crash"}
