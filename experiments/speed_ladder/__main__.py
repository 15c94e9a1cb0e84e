"""Climb the ladder: time whole training steps of ours beside PyTorch's and llm.c's, rung by rung.

    python -m experiments.speed_ladder [RUNG ...] [--llmc PATH] [--peer-python PATH] [--turns N]

Without names: the rungs that have no record yet, so that a ladder that was stopped goes on. With names:
these, anew. OpenBLAS reads OPENBLAS_CORETYPE once, so each rung is a command of its own.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from experiments.speed_ladder.rungs import RUNGS, Rung
from harness.machine.reexec import CORETYPE

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rungs", nargs="*", metavar="RUNG", help=", ".join(RUNGS))
    parser.add_argument("--llmc", type=Path, help="llm.c's CPU trainer, built")
    parser.add_argument("--peer-python", default=sys.executable, help="the Python with PyTorch")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--list", action="store_true", help="print the commands, and run nothing")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.rungs if name not in RUNGS]
    if unknown:
        parser.error(f"no rung is called {unknown[0]}; there are {', '.join(RUNGS)}")
    chosen = arguments.rungs or [n for n in RUNGS if not (HERE / f"record_{n}.json").exists()]
    failed = []
    for name in chosen:
        command = command_of(name, RUNGS[name], arguments)
        print(f"\n== {name}: {' '.join(command[2:])}", flush=True)
        if arguments.list:
            continue
        code = subprocess.run(command, env=environment_of(RUNGS[name])).returncode
        if code:
            failed.append(f"{name} (exit code {code})")
    if failed:
        print(f"\nnot on record as it should be: {', '.join(failed)}")
    return 1 if failed else 0


def command_of(name: str, rung: Rung, arguments: argparse.Namespace) -> list[str]:
    """The rung as a command line."""
    command = [sys.executable, "-m", "harness.cli", "bench", "train", *rung.overrides]
    for option, values in {
        "--backend": rung.backends,
        "--variant": rung.variants,
        "--peer": rung.peers,
    }.items():
        command += [word for value in values for word in (option, value)]
    command += [] if rung.peers else ["--no-peer"]
    if rung.llmc and arguments.llmc is not None:
        command += ["--llmc", str(arguments.llmc)]
    command += ["--threads", str(rung.threads), "--turns", str(arguments.turns), "--keep-going"]
    return [
        *command,
        "--peer-python",
        arguments.peer_python,
        "--report",
        str(HERE / f"record_{name}"),
    ]


def environment_of(rung: Rung) -> dict[str, str]:
    """As it is, but for OPENBLAS_CORETYPE, which is the rung's."""
    environment = {name: value for name, value in os.environ.items() if name != CORETYPE}
    return environment if rung.coretype is None else {**environment, CORETYPE: rung.coretype}


if __name__ == "__main__":
    sys.exit(main())
