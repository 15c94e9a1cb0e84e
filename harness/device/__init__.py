"""What a run asks of a device, and what its backends share."""

from harness.device.hooks import ALIGNMENT, HOOKS, HOST, Device, aligned
from harness.device.readback import reading, reads_late
from harness.device.stream import Recorder, Stream, shared
from harness.device.workspace import Workspace, room

__all__ = [
    "ALIGNMENT",
    "HOOKS",
    "HOST",
    "Device",
    "Recorder",
    "Stream",
    "Workspace",
    "aligned",
    "reading",
    "reads_late",
    "room",
    "shared",
]
