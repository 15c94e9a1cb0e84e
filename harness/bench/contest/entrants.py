"""Who trains in `harness bench train`, and whether all of them would do the same work."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harness.config.config import RunConfig
from harness.contract.precision import Precision
from harness.errors import ConfigError, HarnessError
from harness.plugins.dispatch import Dispatch
from harness.plugins.loading import all_ops
from harness.training.training_plan import TrainerSettings

PEERS = {
    "torch": {"compile": False, "bf16": False},
    "torch-compile": {"compile": True, "bf16": False},
    "torch-bf16": {"compile": False, "bf16": True},
    "torch-bf16-compile": {"compile": True, "bf16": True},
    "torch-tf32": {"compile": False, "bf16": False, "tf32": True},
    "torch-tf32-compile": {"compile": True, "bf16": False, "tf32": True},
}


@dataclass(frozen=True)
class Entrants:
    """Who is to train. ours: name -> its overrides; the first is what the others are compared with.

    peers: names of PEERS; `torch@1` has one thread. llmc: a built train_gpt2. python: the peers'.
    threads: everyone's, where an override or a peer's name does not say otherwise.
    keep_going: who cannot be built is listed as not run, and the others train.
    alone: nobody is built before its turn, which is then its only one: a device's memory is for one.
    """

    ours: Mapping[str, Sequence[str]]
    peers: Sequence[str] = ()
    llmc: Path | None = None
    python: str = sys.executable
    threads: int | None = None
    keep_going: bool = False
    alone: bool = False


def device_of(settings: TrainerSettings) -> str:
    """The device that a trainer's parameters live on; the host, where its backend cannot be loaded."""
    try:
        dispatch = Dispatch(all_ops(), settings.ops, settings.options)
        return dispatch.choose(settings.optimizer.op).backend.device
    except HarnessError:
        return "host"  # the contestant itself will say what is wrong


def check_same_work(
    settings: Mapping[str, TrainerSettings], configs: Mapping[str, RunConfig]
) -> None:
    """Raise ConfigError where entrants differ in more than how a step is computed."""
    free = {"ops": {}, "wrappers": (), "transfer": "", "precision": Precision(), "recompute": ""}
    free |= {"options": {}, "capture": ""}
    works = {}
    for name, one in settings.items():
        config = configs[name]
        work = asdict(replace(one, **free, scratch_bytes=0))  # type: ignore[arg-type]
        # The settings of all have the first one's vocabulary; the rest of the model is each one's own.
        own = {"model": asdict(config.model), "data": asdict(config.data)}
        works[name] = {**work, **own, "optimizer.lr": config.optimizer.lr}
    (first, work), *others = works.items()
    for name, other in others:
        different = [key for key in work if json.dumps(work[key]) != json.dumps(other[key])]
        if different:
            raise ConfigError(
                f"{first} and {name} would not do the same work",
                slug="bench-different-work",
                differ=", ".join(different),
                do="only backend=, ops.NAME=, precision=, recompute=, scratch_mib=, threads=, "
                "blas_kernel=, capture=, BACKEND.NAME= and transfer= may differ",
            )


def why_no_torch(settings: TrainerSettings) -> str:
    """Why PyTorch cannot do the same work; empty where it can."""
    if settings.optimizer.op != "adamw":
        return "the peer has AdamW only"
    if (settings.model.attention, settings.model.activation) != ("attention", "gelu"):
        return "the peer is a plain GPT-2"
    if settings.adapter is not None:
        return "the peer has no adapters"
    return ""


def peer_and_threads(name: str) -> tuple[str, int | None]:
    """The peer and its own number of threads: `torch@1`. Raises ConfigError for an unknown peer."""
    kind, at, threads = name.partition("@")
    if kind not in PEERS or (at and not (threads.isdecimal() and int(threads) > 0)):
        raise ConfigError(
            f"no peer is called '{name}'",
            slug="bench-unknown-peer",
            there_are=", ".join(PEERS),
            do="torch@1 for one of them with threads of its own",
        )
    return kind, int(threads) if at else None
