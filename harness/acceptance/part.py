"""What a part is made of: workers, which are processes, each with checks, kept one by one."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.errors import HarnessError

Result = dict[str, Any]
Check = tuple[str, Callable[[], Result]]


@dataclass(frozen=True)
class Request:
    """What an acceptance is asked for.

    backends: name -> {"options": name -> values, "precisions": [...]}, as found on this machine.
    rehearsal: tiny shapes, on the CPU. llmc: a built train_gpt2cu. peer_python: that has PyTorch.
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

    share: of the budget. workers: their names. checks: those of a worker, given what it has found so
    far; called in its process. at_once: how many workers may run side by side; 1 for what is timed.
    alone: whether a worker has the device to itself even so. lines: what was found, as Markdown.
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

    `fresh` asks for a new process: after an error that nobody foresaw a device's context may be lost.
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
