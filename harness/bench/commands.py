"""`harness bench peaks|ops|train`: the arguments, and who gets them."""

import argparse
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
    ops.add_argument("--threads", type=int, help="of the BLAS library")
    ops.set_defaults(shapes="all")

    train = commands.add_parser("train", help="whole training steps, beside PyTorch's")
    train.add_argument("overrides", nargs="*", metavar="key=value")
    train.add_argument("--backend", action="append", default=[], help="name or file (repeatable)")
    train.add_argument(
        "--variant", action="append", default=[], metavar="'ops.NAME=...'",
        help="the same with these overrides as well (repeatable)",
    )  # fmt: skip
    train.add_argument("--turns", type=int, default=10, help="timed turns of each (10)")
    train.add_argument("--threads", type=int, help="of every BLAS, PyTorch's too")
    train.add_argument("--no-peer", action="store_true", help="without PyTorch")
    train.add_argument("--report", type=Path, metavar="STEM", help="write STEM.json and STEM.md")
    return parser


def _peaks() -> int:
    from harness.bench.peaks import peaks

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
    )


def _train(arguments: argparse.Namespace) -> int:
    from harness.bench.train import run_bench_train

    return run_bench_train(
        arguments.overrides,
        arguments.backend,
        variants=arguments.variant,
        turns=arguments.turns,
        threads=arguments.threads,
        peer=not arguments.no_peer,
        report=arguments.report,
    )
