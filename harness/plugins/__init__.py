"""Find, check and bind backends.

discovery.py      what is installed, by its metadata, and the import of one plugin
listing.py        the same for people: `harness backends`
signatures.py     a plugin's functions, held to the specifications
loading.py        a module or a file as a checked Backend, with its settings
dispatch.py       which backend computes each half of an op, bound once
scratch.py        memory that a backend is lent for its calls
op_errors.py      which op of which plugin raised
compile_clock.py  the time that backends spend on compiling

The names below are imported when they are first used: `harness backends` imports no NumPy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.plugins.discovery import BACKENDS, OPS, WRAPPERS, all_ops, installed
    from harness.plugins.loading import (
        Backend,
        check,
        configure,
        load,
        load_file,
        load_reference,
        load_wrapper,
        require,
    )

__all__ = [
    "BACKENDS",
    "OPS",
    "WRAPPERS",
    "Backend",
    "all_ops",
    "check",
    "configure",
    "installed",
    "load",
    "load_file",
    "load_reference",
    "load_wrapper",
    "require",
]

_OF_DISCOVERY = ("BACKENDS", "OPS", "WRAPPERS", "all_ops", "installed")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "discovery" if name in _OF_DISCOVERY else "loading"
    return getattr(import_module(f"{__name__}.{home}"), name)
