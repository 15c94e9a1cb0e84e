"""Read a number of the device now, or begin to and wait for it later, by what the device can do."""

from collections.abc import Callable
from typing import Any

import numpy as np

from harness.device.hooks import Device


def reads_late(device: Device) -> bool:
    """Whether what a buffer holds now can be waited for after more was asked of the device."""
    return hasattr(device, "begin_read")


def reading(
    device: Device, buffer: Any, array: np.ndarray, number: Callable[[np.ndarray], float]
) -> Callable[[], float]:
    """A call that gives `number` of what the buffer holds now; it may wait.

    array: where the buffer's values go on the host; it may be that of other readings.
    """
    if not reads_late(device):
        device.to_host(array, buffer)
        value = number(array)
        return lambda: value
    fill: Callable[[np.ndarray], None] = device.begin_read(buffer)  # type: ignore[attr-defined]

    def wait() -> float:
        fill(array)
        return number(array)

    return wait
