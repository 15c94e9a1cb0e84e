"""Time whole training steps beside PyTorch's, at two sizes and with both BLAS kernel settings.

    python -m experiments.train_speed [--turns N]

Each is `harness bench train` in a process of its own, because OpenBLAS reads OPENBLAS_CORETYPE once.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SIZES = {
    "gpt2_124m": ["model=gpt2_124m", "batch_size=4", "sequence_length=64", "data.tokenizer=bytes"],
    "tiny": ["model=tiny", "batch_size=12", "sequence_length=64"],
}
NO_CLIPPING = "clip_norm=null"
KERNELS = {"native": None, "haswell": "Haswell"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=12)
    arguments = parser.parse_args()
    for size, overrides in SIZES.items():
        for name, kernel in KERNELS.items():
            environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
            if kernel:
                environment["OPENBLAS_CORETYPE"] = kernel
            command = [sys.executable, "-m", "harness.cli", "bench", "train", *overrides]
            command += [NO_CLIPPING, "--turns", str(arguments.turns)]
            command += ["--report", str(HERE / f"{size}_{name}")]
            subprocess.run(command, env=environment, check=True)


if __name__ == "__main__":
    main()
