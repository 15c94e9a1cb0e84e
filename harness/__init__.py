"""A plugin-based research harness for GPT-2: write one kernel, see it proved, timed and trained."""

from pathlib import Path

from pluggy import HookimplMarker

__version__ = "0.1.0"

ROOT = Path(__file__).resolve().parents[1]
"""The folder that `harness` and `backends` are imported from: a checkout, or site-packages."""

hookimpl = HookimplMarker("harness")
"""Marks a function as the implementation of the hook (a half-op, or a device hook) of its name."""

__all__ = ["ROOT", "__version__", "hookimpl"]
