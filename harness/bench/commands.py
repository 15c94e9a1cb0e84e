"""`harness bench peaks|ops|train`: the arguments of each."""

import argparse
import signal
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Run one of the benchmarks. Returns its exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.what == "peaks":
        return _peaks()
    return _ops(arguments) if arguments.what == "ops" else _train(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness bench", description="How close to this machine's limit?"
    )
    commands = parser.add_subparsers(title="benchmarks", dest="what", required=True)

    commands.add_parser("peaks", help="measure this machine again: copy bandwidth, matmul speed")

    ops = commands.add_parser("ops", help="each half-op, on each backend, at each shape")
    ops.add_argument("--backend", action="append", default=[], help="name or file (repeatable)")
    ops.add_argument("--op", action="append", default=[], help="op or half (repeatable)")
    shapes = ops.add_mutually_exclusive_group()
    shapes.add_argument("--small", action="store_const", dest="shapes", const="small")
    shapes.add_argument("--real", action="store_const", dest="shapes", const="real")
    ops.add_argument("--report", type=Path, metavar="STEM", help="write STEM.json and STEM.md")
    ops.add_argument("--precision", default="fp32", help="fp32 (the default), tf32 or bf16")
    ops.add_argument("--threads", type=int, help="of the BLAS library")
    ops.set_defaults(shapes="all")

    train = commands.add_parser("train", help="whole training steps, beside PyTorch's and llm.c's")
    train.add_argument("overrides", nargs="*", metavar="key=value")
    train.add_argument("--backend", action="append", default=[], help="name or file (repeatable)")
    train.add_argument(
        "--variant", action="append", default=[], metavar="'ops.NAME=...'",
        help="the same with these overrides as well (repeatable)",
    )  # fmt: skip
    train.add_argument("--turns", type=int, default=10, help="timed turns of each (10)")
    train.add_argument("--threads", type=int, help="of everyone (all cores)")
    peers = train.add_mutually_exclusive_group()
    peers.add_argument(
        "--peer", action="append", default=None, metavar="NAME",
        help="torch, torch-compile, torch-bf16, torch-bf16-compile; torch@1 with one thread"
        " (repeatable; the first two)",
    )  # fmt: skip
    peers.add_argument("--no-peer", action="store_const", dest="peer", const=[])
    train.add_argument(
        "--peer-python", default=sys.executable, metavar="PATH", help="the Python that has PyTorch"
    )
    train.add_argument("--llmc", type=Path, metavar="PATH", help="llm.c's CPU trainer, built")
    train.add_argument(
        "--keep-going", action="store_true", help="who cannot train is listed as not run"
    )
    train.add_argument("--report", type=Path, metavar="STEM", help="write STEM.json and STEM.md")
    return parser


def _peaks() -> int:
    from harness.machine.peaks import peaks

    print(peaks(again=True))
    return 0


def _ops(arguments: argparse.Namespace) -> int:
    from harness.bench.ops import run_bench_ops

    return run_bench_ops(
        arguments.backend,
        arguments.op,
        shapes=arguments.shapes,
        threads=arguments.threads,
        report=arguments.report,
        precision=arguments.precision,
    )


def _train(arguments: argparse.Namespace) -> int:
    from harness.bench.contest.command import USUAL_PEERS, run_bench_train

    # As after Ctrl-C: the contestants are ended with us.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    return run_bench_train(
        arguments.overrides,
        arguments.backend,
        variants=arguments.variant,
        turns=arguments.turns,
        threads=arguments.threads,
        peers=USUAL_PEERS if arguments.peer is None else arguments.peer,
        peer_python=arguments.peer_python,
        llmc=arguments.llmc,
        keep_going=arguments.keep_going,
        report=arguments.report,
    )
