# ruff: noqa: F403 - the toy device, and what it cannot do.
"""The toy device with two more hooks: reading later, and recording calls.

An embedding of the token 39 is not finite. `asked` tells in which order things were asked for.
"""

import numpy as np

from harness import hookimpl
from tests.unit import toy_device
from tests.unit.toy_device import *

capturable = True
asked = []
POISON = 39


@hookimpl
def begin_read(buffer):
    asked.append("begin_read")
    copied = toy_device.inside(buffer).copy()

    def wait(array):
        asked.append("wait")
        np.copyto(array, copied, casting="no")

    return wait


@hookimpl
def to_host(array, buffer):
    asked.append("to_host")
    toy_device.to_host(array, buffer)


@hookimpl
def capture(calls):
    asked.append(f"capture {len(calls)}")

    def replay():
        asked.append("replay")
        for call in calls:
            call()

    return replay


@hookimpl
def embedding_forward(out_BTC, tokens_BT, position_B, wte_VC, wpe_XC):
    toy_device.embedding_forward(out_BTC, tokens_BT, position_B, wte_VC, wpe_XC)
    poisoned = toy_device.inside(tokens_BT) == POISON
    toy_device.inside(out_BTC)[poisoned] = np.nan
