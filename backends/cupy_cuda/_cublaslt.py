"""Products by cuBLASLt: what a product needs is planned once, and then done with one call.

A plan holds descriptors and algorithms, in the order of the library's own heuristic. Its first is taken,
the same in every run; `cupy.algorithm=fastest` times the first few where a plan is first used, and a
difference of a per cent may then change which one a run takes, and with it the last bits of its results.

Bits are the same from call to call: where an algorithm cuts the sum into parts, their float32 sums meet
in the workspace in a fixed order. What adds them in the output itself, at its precision, is not allowed.
"""

from functools import cache

import numpy as np

from backends.cupy_cuda._launch import BFLOAT16
from backends.cupy_cuda._machine import machine
from backends.cupy_cuda._options import chosen
from harness.errors import PluginError

CUDA_R_32F, CUDA_R_16BF = 0, 14  # of cudaDataType_t
TYPES = {np.dtype(np.float32): CUDA_R_32F, BFLOAT16: CUDA_R_16BF}

# Of cublasComputeType_t. 32F is IEEE float32 here, whatever a cuBLAS handle's math mode says.
COMPUTE_32F, COMPUTE_32F_FAST_TF32 = 68, 77

ALGORITHMS = 8
"""Asked of the heuristic, and timed under cupy.algorithm=fastest."""

TRIALS = 5
"""Of each algorithm when it is timed; the fastest counts, and the first warms up."""

_plans = {}


def multiply(call, workspace):
    """Do a `Call` of _products.py; its plan is made first where there is none."""
    key = call, workspace.nbytes
    plan = _plans.get(key)
    if plan is None:
        plan = _plans[key] = Plan(call, workspace.nbytes)
    if not plan.timed and not call.beta and chosen("algorithm") == "fastest":
        plan.time(call, workspace)
    machine().call(lambda: plan.run(call, workspace))


@cache
def _library():
    """The module, and the one handle of this process."""
    library = machine().library("cublaslt")
    return library, library.create()


class Plan:
    """Descriptors and algorithms for a call, and for all that are equal to it.

    timed: whether its algorithms are in the order of their times. Only a call that overwrites its output
    may be timed, as it is done many times: one that adds takes what stands first until then.
    """

    def __init__(self, call, workspace_bytes):
        self.timed = False
        self.library, self.handle = lt, _ = _library()
        self._attribute = lt.MatmulDescAttribute
        self._pointer = np.zeros(1, np.int64)
        self._pointer_at = self._pointer.ctypes.data
        compute = COMPUTE_32F_FAST_TF32 if call.tf32 else COMPUTE_32F
        self.description = lt.matmul_desc_create(compute, CUDA_R_32F)
        self._describe("TRANSA", np.int32(call.left.transposed))
        self._describe("TRANSB", np.int32(call.right.transposed))
        self._describe("EPILOGUE", np.uint32(lt.Epilogue[call.epilogue]))
        if call.aux:
            self._describe("EPILOGUE_AUX_LD", np.int64(call.out.leading))
        self.left, self.right, self.out = map(self._layout, (call.left, call.right, call.out))
        self._point(call)
        self.algorithms = self._algorithms(call, workspace_bytes)
        self.first = self.algorithms.ctypes.data

    def run(self, call, workspace):
        """Put it on the stream. Addresses of a bias and the like belong to the description."""
        self._point(call)
        self._run(call, workspace, self.first)

    def time(self, call, workspace):
        """Put the fastest algorithm first. Not while a graph is captured: before, steps have run."""
        self.timed = True
        size = self.algorithms.itemsize
        addresses = [self.algorithms.ctypes.data + i * size for i in range(len(self.algorithms))]
        self._point(call)

        def seconds(algorithm):
            def run():
                self._run(call, workspace, algorithm)

            return min([machine().device_seconds(run) for _ in range(TRIALS)][1:])

        self.first = min(addresses, key=seconds)

    def _run(self, call, workspace, algorithm):
        out = call.out.pointer
        self.library.matmul(
            self.handle,
            self.description,
            _factor(call.scale)[0],
            call.left.pointer,
            self.left,
            call.right.pointer,
            self.right,
            _factor(call.beta)[0],
            out,
            self.out,
            out,
            self.out,
            algorithm,
            workspace.data.ptr,
            workspace.nbytes,
            machine().stream,
        )

    def _point(self, call):
        if call.bias:
            self._point_to(self._attribute.BIAS_POINTER, call.bias)
        if call.aux:
            self._point_to(self._attribute.EPILOGUE_AUX_POINTER, call.aux)

    def _point_to(self, attribute, address):
        self._pointer[0] = address
        self.library.matmul_desc_set_attribute(self.description, attribute, self._pointer_at, 8)

    def _describe(self, name, value):
        held = np.array(value)
        attribute = int(self._attribute[name])
        self.library.matmul_desc_set_attribute(
            self.description, attribute, held.ctypes.data, held.nbytes
        )

    def _layout(self, operand):
        shape = operand.rows, operand.columns, operand.leading
        return self.library.matrix_layout_create(TYPES[operand.dtype], *shape)

    def _algorithms(self, call, workspace_bytes):
        """What the heuristic proposes, best first. The results are kept: algorithms stand in them."""
        lt = self.library
        results = np.zeros(ALGORITHMS, lt.matmul_heuristic_result_dtype)
        count = np.zeros(1, np.int32)
        preference = self._preference(call, workspace_bytes)
        try:
            lt.matmul_algo_get_heuristic(
                self.handle,
                self.description,
                self.left,
                self.right,
                self.out,
                self.out,
                preference,
                ALGORITHMS,
                results.ctypes.data,
                count.ctypes.data,
            )
        except lt.cuBLASLtError as error:
            raise _nothing(call, error) from error
        finally:
            lt.matmul_preference_destroy(preference)
        usable = results[: count[0]]
        usable = np.ascontiguousarray(usable[usable["state"] == 0])
        if not len(usable):
            raise _nothing(call, "the heuristic knows none")
        return usable

    def _preference(self, call, workspace_bytes):
        lt = self.library
        preference, names = lt.matmul_preference_create(), lt.MatmulPreferenceAttribute
        settings = {
            "MAX_WORKSPACE_BYTES": np.uint64(workspace_bytes),
            # Beside none: partial sums as float32 in the workspace.
            "REDUCTION_SCHEME_MASK": np.uint32(lt.ReductionScheme.COMPUTE_TYPE),
            "MIN_ALIGNMENT_A_BYTES": np.uint32(call.left.alignment),
            "MIN_ALIGNMENT_B_BYTES": np.uint32(call.right.alignment),
            "MIN_ALIGNMENT_C_BYTES": np.uint32(call.out.alignment),
            "MIN_ALIGNMENT_D_BYTES": np.uint32(call.out.alignment),
        }
        for name, value in settings.items():
            held = np.array(value)
            attribute = int(names[name])
            lt.matmul_preference_set_attribute(preference, attribute, held.ctypes.data, held.nbytes)
        return preference


@cache
def _factor(value):
    """Where a float32 stands in the host's memory, and that memory: the library takes the address."""
    held = np.array(value, np.float32)
    return held.ctypes.data, held


def _nothing(call, reason):
    left, right = (
        f"{operand.dtype} {operand.rows} x {operand.columns}{' transposed' * operand.transposed}"
        for operand in (call.left, call.right)
    )
    return PluginError(
        f"cuBLASLt has no algorithm for a product of {left} with {right}",
        slug="no-matmul-algorithm",
        reason=reason,
        epilogue=call.epilogue,
        do="cupy.matmul=cublas",
    )
