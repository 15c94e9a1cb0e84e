"""Ask backends for what their calls need in between, so that the plan can place it in the arena.

A backend that implements `scratch_bytes` and `lend_scratch` is asked once for each call of a plan, and
is lent that much before the call; one that implements neither looks after itself.
"""

from collections.abc import Callable, Mapping
from typing import Any

from harness.errors import PluginError
from harness.plugins.dispatch import Choice
from harness.plugins.loading import Backend

HOOKS = ("scratch_bytes", "lend_scratch")

MAX_BYTES = 64 << 20
"""What an op that can work in pieces keeps to, where no configuration says otherwise."""


def needed(choice: Choice, dims: Mapping[str, int], precision: str, most: int) -> int:
    """Bytes that a call is to be lent. Raises PluginError where the backend's answer is of no use."""
    if not lends(choice.backend):
        return 0
    nbytes = choice.backend.functions["scratch_bytes"](choice.hook, dict(dims), precision, most)
    if isinstance(nbytes, bool) or not isinstance(nbytes, int) or nbytes < 0:
        raise PluginError(
            f"backend '{choice.backend.name}' needs scratch of {nbytes!r} bytes for {choice.hook}",
            slug="scratch-not-bytes",
            where=choice.backend.where("scratch_bytes"),
            expected="a whole number of bytes, 0 where it needs none",
        )
    return nbytes


def lends(backend: Backend) -> bool:
    """Whether a backend takes part. Raises PluginError where it has one hook without the other."""
    there = [hook for hook in HOOKS if hook in backend]
    if len(there) == 1:
        (missing,) = set(HOOKS) - set(there)
        raise PluginError(
            f"backend '{backend.name}' ({backend.source}) implements {there[0]} and not {missing}",
            slug="scratch-incomplete",
            where=backend.where(there[0]),
            do="harness/device/hooks.py says what each must do",
        )
    return bool(there)


def lending(call: Callable[[], None], backend: Backend, memory: Any) -> Callable[[], None]:
    """A bound call that has this memory lent to it, and to no other. memory: of the home device."""
    lend, memory = backend.functions["lend_scratch"], backend.adapt(memory)

    def lent() -> None:
        lend(memory)
        try:
            call()
        finally:
            lend(None)

    return lent
