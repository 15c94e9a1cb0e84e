"""Say what a function is in compiled kernels, where it is another than in the simulator.

def exp(x): return np.exp(x)             the simulator calls this: an ordinary function

@compiled(exp)                           a GPU gets what this returns, for the types of the call
def _exp(x): return lambda x: math.exp(x)
"""

from importlib.util import find_spec

from numba import config

VARIABLE = "NUMBA_ENABLE_CUDASIM"
"""Of the environment: the simulator in the GPU's place."""

SIMULATED = bool(config.ENABLE_CUDASIM)
"""Whether kernels run in the simulator: NUMBA_ENABLE_CUDASIM=1, as it was when numba was imported."""


def compiled(function):
    """Mark the function that chooses an implementation of `function` by the types of a call."""
    if SIMULATED or find_spec("numba_cuda") is None:
        return lambda choose: choose  # nothing is compiled here
    from numba.cuda.extending import overload

    return overload(function, target="cuda")
