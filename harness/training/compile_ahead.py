"""Compile what a training step calls before the first one, where a backend can (`compile_ahead`)."""

from collections.abc import Callable, Iterator

from harness.planning.plan import View
from harness.plugins import compile_clock
from harness.plugins.compile_clock import Call, Shaped
from harness.training.trainer import Trainer


def compile_ahead(
    trainer: Trainer, show: Callable[[str, int, int], None], stopped: Callable[[], bool]
) -> dict[str, float]:
    """Compile the kernels of forward, backward and update. Returns backend -> seconds spent."""
    return compile_clock.compile_ahead(_calls(trainer), show, stopped)


def _calls(trainer: Trainer) -> Iterator[Call]:
    for step in trainer.plan.calls.steps:
        if step.choice is not None:
            yield step.choice.backend, step.hook, [_shaped(x) for x in step.arguments.values()]
    for choice, arguments in trainer.optimizer.calls(_shaped(trainer.plan.calls.results[0])):
        yield choice.backend, choice.hook, arguments


def _shaped(argument: object) -> object:
    if isinstance(argument, View):
        return Shaped(tuple(argument.shape), argument.version.dtype)
    return argument
