"""What a run computes with, for its header and record: threads, libraries, and what slows them."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from harness.machine import pinned, reexec
from harness.machine.blas import describe
from harness.machine.threads import Threads, asked_by_environment

if TYPE_CHECKING:
    from harness.plugins.loading import Backend


@dataclass(frozen=True)
class ComputedWith:
    """libraries: backend -> what it computes with. warnings: each with a remedy in its last line."""

    threads: Threads
    libraries: dict[str, str]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    def lines(self, width: int = 10) -> Iterator[str]:
        """The lines of a header, their labels in a column of this width."""
        yield f"{'threads':<{width}}{self.threads}"
        for name, text in self.libraries.items():
            yield f"{'library':<{width}}{name}: {text}"
        for note in self.notes:
            yield f"{'note':<{width}}{note}"
        for warning in self.warnings:
            what, *remedies = warning.splitlines()
            yield f"{'warning':<{width}}{what}"
            yield from (f"{'':<{width}}do: {remedy}" for remedy in remedies)

    def record(self) -> dict[str, Any]:
        return {**asdict(self), "threads": self.threads.count, "cores": self.threads.cores}


def computed_with(
    threads: Threads, backends: Iterable["Backend"], blas_kernel: str = "environment"
) -> ComputedWith:
    """Describe what there is now; call it after threads are set. blas_kernel: as configured."""
    backends = tuple(backends)
    known = pinned.facts()
    found = pinned.pins(known)
    warnings = [str(pin) for pin in found if pin.is_slower]
    notes = [str(pin).replace("\n", ": ") for pin in found if not pin.is_slower]
    left_out = reexec.left_out()
    if left_out is not None:
        notes.insert(0, f"started again without {left_out} (blas_kernel=library)")
    if blas_kernel == "library" and known.environment.get(reexec.CORETYPE):
        warnings.append(_no_effect(left_out))
    if threads.warning:
        warnings.append(threads.warning)
    numba_has = asked_by_environment().get("NUMBA_NUM_THREADS", threads.count)
    if "numba" in known.present and numba_has < threads.count:
        warnings.append(
            f"NUMBA_NUM_THREADS={numba_has}: Numba has no more, whatever threads= says\n"
            "env -u NUMBA_NUM_THREADS COMMAND"
        )
    return ComputedWith(threads, _libraries(backends), tuple(warnings), tuple(notes))


def _libraries(backends: Iterable["Backend"]) -> dict[str, str]:
    """Each backend's own words, or NumPy's BLAS where it takes NumPy's arrays and says nothing."""
    found = {}
    for backend in backends:
        hook = backend.functions.get("describe_libraries")
        if hook is not None:
            found[backend.name] = _in_words(hook)
        elif backend.device == "host" and backend.arrays == "numpy":
            found[backend.name] = describe("numpy")
    return found


def _in_words(hook: Any) -> str:
    """A description never ends a run."""
    try:
        return " ".join(str(hook()).split())
    except Exception as error:
        return f"unknown ({type(error).__name__}: {error})"


def _no_effect(left_out: str | None) -> str:
    why = "only the commands of the harness start again, and this process is not one of them"
    if left_out is not None:
        why = "something sets it again when the interpreter starts"
    return f"blas_kernel=library had no effect: {why}\nenv -u {reexec.CORETYPE} COMMAND"
