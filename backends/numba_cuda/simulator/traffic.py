"""Count what kernels load and store, element by element.

    from backends.numba_cuda import counted

    with counted() as traffic:
        layernorm_forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, 1e-5)
    traffic.loads["x_NC"]                         elements of it, by the argument's name
    traffic.loaded_bytes, traffic.stored_bytes    of global memory
    traffic.kernels["_forward"].loads["x_NC"]     the same for one kernel
    traffic.shared.loads["partial"]               shared memory, which is not among the others

An atomic operation is a load and a store. There are no caches here: an element that is read twice counts
twice.
"""

from contextlib import contextmanager

from backends.numba_cuda._compiled import SIMULATED
from backends.numba_cuda.simulator.counting import Traffic, active
from harness.errors import ConfigError


@contextmanager
def counted():
    """Count the traffic of the kernels that run inside. Only in the simulator."""
    from backends.numba_cuda.simulator.mode import VARIABLE, mode

    if not SIMULATED or mode().word == "stock":
        raise ConfigError(
            "loads and stores are counted in the harness's CUDA simulator alone",
            slug="counted-in-the-simulator",
            found=f"{VARIABLE}=stock" if SIMULATED else "kernels that are compiled for a GPU",
            do=f"set NUMBA_ENABLE_CUDASIM=1, and leave {VARIABLE}=stock away",
        )
    from backends.numba_cuda.simulator.blocks import install

    install()
    traffic = Traffic()
    active.append(traffic)
    try:
        yield traffic
    finally:
        active.remove(traffic)
