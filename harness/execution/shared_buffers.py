"""Memory that several executors of one model share: state, recast parameters, room for activations.

A plan for a long prompt and a plan for one token go over the same cache. Executors that are given the
same SharedBuffers find a tensor's buffer there by its name, and use one arena in turn.
"""

from typing import Any

import numpy as np

from harness.device import Device, aligned
from harness.planning.plan import Version

SHARED_KINDS = ("state", "parameter")


class SharedBuffers:
    """The buffers of tensors that outlive a call, zero at first, and an arena for each device.

    Executors with a common arena must run one after another, and be read before the next one runs.
    """

    def __init__(self) -> None:
        self._lasting: dict[tuple[str, str, np.dtype], tuple[tuple[int, ...], Any]] = {}
        self._arenas: dict[str, tuple[int, Any]] = {}

    def lasting(self, version: Version, device: Device) -> Any:
        """The memory of a state, or of a parameter's copy in another dtype or on another device."""
        key = (version.tensor.name, version.device, version.dtype)
        if key not in self._lasting:
            memory = device.empty(aligned(version.nbytes))
            device.zero(device.view(memory, 0, version.tensor.shape, version.dtype))
            self._lasting[key] = version.tensor.shape, memory
        shape, memory = self._lasting[key]
        assert shape == version.tensor.shape, f"{version} has shape {shape} in another plan"
        return memory

    def arena(self, device_name: str, device: Device, nbytes: int) -> Any:
        """At least nbytes for activations."""
        held, memory = self._arenas.get(device_name, (0, None))
        if memory is None or held < nbytes:
            # Executors keep the smaller ones they were bound to; growth by half makes these few.
            held = max(nbytes, held * 3 // 2)
            memory = device.empty(held)
            self._arenas[device_name] = held, memory
        return memory
