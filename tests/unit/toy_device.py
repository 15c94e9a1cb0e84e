"""A backend on a device of its own, for the tests: memory that NumPy cannot see into.

Every op is the float64 formula, on arrays that are wrapped; an array of another device, or of NumPy,
is refused as a GPU would refuse it. Copies between the toy and the host are counted.
"""

from collections import Counter

from harness import hookimpl
from harness.contract import core_ops
from harness.contract.reference import make_function
from harness.device import HOST

device = "toy"
arrays = "toy"
computes = {"fp32": "f64", "bf16": "f64"}

copies = Counter()


class ToyArray:
    """An array that only this file can read."""

    def __init__(self, host):
        self._host = host


def inside(buffer):
    assert type(buffer) is ToyArray, f"the toy device was given a {type(buffer).__name__}"
    return buffer._host


@hookimpl
def empty(nbytes):
    return ToyArray(HOST.empty(nbytes))


@hookimpl
def view(memory, offset, shape, dtype):
    return ToyArray(HOST.view(inside(memory), offset, shape, dtype))


@hookimpl
def from_host(buffer, array):
    copies["from_host"] += 1
    HOST.from_host(inside(buffer), array)


@hookimpl
def to_host(array, buffer):
    copies["to_host"] += 1
    HOST.to_host(array, inside(buffer))


@hookimpl
def zero(buffer):
    inside(buffer).fill(0)


@hookimpl
def synchronize():
    pass


def _on_the_toy(half):
    """The half-op's formula under its own name and arguments, which the contract insists on."""
    formula = make_function(half)
    buffers = {argument.name for argument in half.signature.buffers}

    def run(**given):
        formula(
            *(
                inside(value) if name in buffers and value is not None else value
                for name, value in given.items()
            )
        )

    names = ", ".join(half.signature.names)
    passed = ", ".join(f"{name}={name}" for name in half.signature.names)
    namespace = {"run": run}
    exec(f"def {half.name}({names}):\n    run({passed})", namespace)
    return namespace[half.name]


_OPS = core_ops()
for _hook in _OPS.hooks:
    globals()[_hook] = hookimpl(_on_the_toy(_OPS.half(_hook)))
