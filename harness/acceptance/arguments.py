"""`harness gpu-acceptance`: its arguments."""

import argparse
from pathlib import Path

from harness.acceptance.command import BACKENDS, BUDGET_S, INTO, run_gpu_acceptance
from harness.acceptance.parts import MODULES


def main(argv: list[str] | None = None) -> int:
    """Run an acceptance. Returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_gpu_acceptance(
        _words(arguments.parts),
        budget_s=arguments.budget_s,
        resume=arguments.resume,
        backends=_words(arguments.backends),
        into=arguments.into,
        llmc=arguments.llmc,
        peer_python=arguments.peer_python,
        rehearse=arguments.rehearse,
    )


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness gpu-acceptance", description="Prove a GPU backend on its GPU."
    )
    parser.add_argument(
        "--parts", default="", metavar="NAME,...", help=f"of {', '.join(MODULES)} (all of them)"
    )
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, help="for everything (540)")
    parser.add_argument(
        "--resume", action="store_true", help="go on with what today's record does not have yet"
    )
    parser.add_argument("--backends", default=",".join(BACKENDS), metavar="NAME,...")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help=f"of the record ({INTO})")
    parser.add_argument("--llmc", type=Path, metavar="PATH", help="llm.c's train_gpt2cu, built")
    parser.add_argument("--peer-python", metavar="PATH", help="the Python that has PyTorch")
    parser.add_argument(
        "--rehearse", action="store_true",
        help="try the machinery with kernels on the CPU; proves nothing, and records nothing",
    )  # fmt: skip
    return parser
