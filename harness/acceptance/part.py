"""A part of an acceptance: it has workers, which are processes, and each worker has checks."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.errors import HarnessError

Result = dict[str, Any]
Check = tuple[str, Callable[[], Result]]


@dataclass(frozen=True)
class Request:
    """What an acceptance is to prove, and with what.

    backends: name -> {"options": name -> values, "precisions": [...]}, as found on this machine.
    rehearsal: tiny shapes, on the CPU. llmc: a built train_gpt2cu. peer_python: one that has PyTorch.
    """

    backends: Mapping[str, Mapping[str, Any]]
    rehearsal: bool = False
    llmc: str | None = None
    peer_python: str | None = None

    def record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Part:
    """One question to the device.

    share: of the budget. workers: their names. checks: those of a worker, given its results so far;
    called in the worker's process. at_once: how many workers may run side by side; 1 where times are
    taken. alone: whether a worker needs the device to itself all the same. lines: the results, as
    Markdown.
    """

    name: str
    question: str
    share: float
    workers: Callable[[Request], list[str]]
    checks: Callable[[Request, str, Mapping[str, Result]], Iterator[Check]]
    lines: Callable[[Mapping[str, Mapping[str, Result]]], list[str]]
    at_once: int = 1
    alone: Callable[[str], bool] = lambda worker: False


class Unavailable(Exception):  # noqa: N818 - no error: what cannot be asked on this machine
    """Raised by a check that this machine cannot answer, with the reason."""


def attempt(run: Callable[[], Result]) -> Result:
    """A check's result, whatever happens in it.

    `fresh` asks for a new process: an unforeseen error may have lost the device's context.
    """
    try:
        return run()
    except Unavailable as unavailable:
        return {"ok": None, "reason": str(unavailable)}
    except HarnessError as error:
        facts = "; ".join(f"{label} {text}" for label, text in error.facts.items())
        reason = f"[{error.slug}] {error.headline}" + (f" ({facts})" if facts else "")
        return {"ok": False, "reason": reason, "fresh": True}
    except Exception as error:
        return {"ok": False, "reason": f"{type(error).__name__}: {error}", "fresh": True}
