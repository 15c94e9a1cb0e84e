"""A plugin-based research harness for GPT-2: write one kernel, see it proved, timed and trained."""

from pluggy import HookimplMarker

__version__ = "0.1.0"

hookimpl = HookimplMarker("harness")
"""Marks a function as the implementation of the hook (a half-op, or a device hook) of its name."""

__all__ = ["__version__", "hookimpl"]
