"""cuBLASLt in NumPy: `nvmath.bindings.cublasLt`, as far as this backend uses it.

Names, arguments and numbers are the binding's own: descriptors are handles, attributes are bytes at an
address, matrices are column-major at an address. `products.py` multiplies them, or says why not.

calls: what was asked for, one dict each; forget() empties it. It never speaks for the library's speed.
"""

from enum import IntEnum
from itertools import count

import numpy as np

from backends.cupy_cuda.on_cpu.products import (
    COMPUTE_32F_FAST_TF32,
    INVALID_VALUE,
    NOT_SUPPORTED,
    Epilogue,
    column_major,
    numbers_at,
    operand,
    unsupported,
    with_epilogue,
)

MatmulDescAttribute = IntEnum(
    "MatmulDescAttribute",
    {
        "COMPUTE_TYPE": 0,
        "SCALE_TYPE": 1,
        "POINTER_MODE": 2,
        "TRANSA": 3,
        "TRANSB": 4,
        "EPILOGUE": 7,
        "BIAS_POINTER": 8,
        "EPILOGUE_AUX_POINTER": 11,
        "EPILOGUE_AUX_LD": 12,
        "EPILOGUE_AUX_DATA_TYPE": 22,
        "BIAS_DATA_TYPE": 26,
    },
)
MatmulPreferenceAttribute = IntEnum(
    "MatmulPreferenceAttribute",
    {
        "MAX_WORKSPACE_BYTES": 1,
        "REDUCTION_SCHEME_MASK": 3,
        "MIN_ALIGNMENT_A_BYTES": 5,
        "MIN_ALIGNMENT_B_BYTES": 6,
        "MIN_ALIGNMENT_C_BYTES": 7,
        "MIN_ALIGNMENT_D_BYTES": 8,
    },
)
ReductionScheme = IntEnum(
    "ReductionScheme", {"NONE": 0, "INPLACE": 1, "COMPUTE_TYPE": 2, "OUTPUT_TYPE": 4, "MASK": 7}
)
_WIDE = ("BIAS_POINTER", "EPILOGUE_AUX_POINTER", "EPILOGUE_AUX_LD")
DESCRIPTION = {a: np.int64 if a.name in _WIDE else np.int32 for a in MatmulDescAttribute}
DESCRIPTION[MatmulDescAttribute.EPILOGUE] = np.uint32
PREFERENCE = dict.fromkeys(MatmulPreferenceAttribute, np.uint32)
PREFERENCE[MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES] = np.uint64

# What an attribute is that nobody set; the library's own.
DESCRIBED = {"EPILOGUE": 1, "EPILOGUE_AUX_DATA_TYPE": -1, "BIAS_DATA_TYPE": -1}
PREFERRED = {"REDUCTION_SCHEME_MASK": 7}
PREFERRED.update({f"MIN_ALIGNMENT_{matrix}_BYTES": 256 for matrix in "ABCD"})

matmul_algo_dtype = np.dtype([("data_", "<u8", (8,))])
matmul_heuristic_result_dtype = np.dtype(
    [
        ("algo", matmul_algo_dtype),
        ("workspace_size", "<u8"),
        ("state", "<i4"),
        ("waves_count", "<f4"),
        ("reserved", "<i4", (4,)),
    ]
)

WORKSPACE_BYTES = 4096
"""That the second algorithm and each further one takes, if there is as much; it is filled with NaN."""

calls = []
refuse_everything = False
_objects = {}
_numbers = count(1)


class cuBLASLtError(Exception):  # noqa: N801 - as the binding calls it
    def __init__(self, status):
        self.status = status
        super().__init__({7: "INVALID_VALUE", 15: "NOT_SUPPORTED"}[status] + f" ({status})")


def forget():
    calls.clear()


def get_matmul_desc_attribute_dtype(attr):
    return DESCRIPTION[attr]


def get_matmul_preference_attribute_dtype(attr):
    return PREFERENCE[attr]


def create():
    return _keep("handle")


def destroy(light_handle):
    _drop(light_handle)


def matmul_desc_create(compute_type, scale_type):
    values = {a.name: DESCRIBED.get(a.name, 0) for a in MatmulDescAttribute}
    return _keep({**values, "COMPUTE_TYPE": compute_type, "SCALE_TYPE": scale_type})


def matmul_desc_destroy(matmul_desc):
    _drop(matmul_desc)


def matmul_desc_set_attribute(matmul_desc, attr, buf, size_in_bytes):
    _set(matmul_desc, MatmulDescAttribute, DESCRIPTION, attr, buf, size_in_bytes)


def matrix_layout_create(type, rows, cols, ld):
    return _keep({"type": type, "rows": rows, "cols": cols, "ld": ld})


def matrix_layout_destroy(mat_layout):
    _drop(mat_layout)


def matmul_preference_create():
    return _keep({a.name: PREFERRED.get(a.name, 0) for a in MatmulPreferenceAttribute})


def matmul_preference_destroy(pref):
    _drop(pref)


def matmul_preference_set_attribute(pref, attr, buf, size_in_bytes):
    _set(pref, MatmulPreferenceAttribute, PREFERENCE, attr, buf, size_in_bytes)


def matmul_algo_get_heuristic(
    light_handle,
    operation_desc,
    adesc,
    bdesc,
    cdesc,
    ddesc,
    preference,
    requested_algo_count,
    heuristic_results_array,
    return_algo_count,
):
    assert _objects[light_handle] == "handle"
    description, wanted = _objects[operation_desc], _objects[preference]
    layouts = [_objects[layout] for layout in (adesc, bdesc, cdesc, ddesc)]
    if refuse_everything or unsupported(description, *layouts):
        raise cuBLASLtError(NOT_SUPPORTED)
    spare = wanted["MAX_WORKSPACE_BYTES"] >= WORKSPACE_BYTES
    found = min(requested_algo_count, 3 if spare else 1)
    results = numbers_at(
        heuristic_results_array, matmul_heuristic_result_dtype, requested_algo_count
    )
    alignments = [wanted[f"MIN_ALIGNMENT_{matrix}_BYTES"] for matrix in "ABCD"]
    for index, result in enumerate(results[:found]):
        result["workspace_size"] = WORKSPACE_BYTES * (index > 0)
        # An algorithm is of one problem: another one cannot be done with it.
        result["algo"]["data_"] = [
            index,
            result["workspace_size"],
            *alignments,
            _digest(description, layouts),
            wanted["REDUCTION_SCHEME_MASK"],
        ]
    numbers_at(return_algo_count, np.int32, 1)[0] = found


def matmul(
    light_handle,
    compute_desc,
    alpha,
    a,
    adesc,
    b,
    bdesc,
    beta,
    c,
    cdesc,
    d,
    ddesc,
    algo,
    workspace,
    workspace_size_in_bytes,
    stream,
):
    assert _objects[light_handle] == "handle"
    description = _objects[compute_desc]
    layouts = [_objects[layout] for layout in (adesc, bdesc, cdesc, ddesc)]
    index, needs, *alignments, digest, mask = map(int, numbers_at(algo, np.uint64, 8))
    if workspace_size_in_bytes < needs or digest != _digest(description, layouts):
        raise cuBLASLtError(INVALID_VALUE)
    addresses = (a, b, c, d)
    if any(not at or at % to for at, to in zip(addresses, alignments, strict=True)):
        raise cuBLASLtError(INVALID_VALUE)
    numbers_at(workspace, np.uint8, needs)[:] = 0xFF  # NaN, in every type
    scale, share = (float(numbers_at(factor, np.float32, 1)[0]) for factor in (alpha, beta))
    calls.append(
        {
            "left": {**layouts[0], "transposed": bool(description["TRANSA"]), "pointer": a},
            "right": {**layouts[1], "transposed": bool(description["TRANSB"]), "pointer": b},
            "out": {**layouts[3], "pointer": d},
            "epilogue": Epilogue(description["EPILOGUE"]).name,
            "compute": description["COMPUTE_TYPE"],
            "scale": scale,
            "beta": share,
            "algorithm": index,
            "reductions": mask,
            "alignments": tuple(alignments),
        }
    )
    A, B, C, D = map(column_major, addresses, layouts)
    tf32 = description["COMPUTE_TYPE"] == COMPUTE_32F_FAST_TF32
    A, B = operand(A, description["TRANSA"], tf32), operand(B, description["TRANSB"], tf32)
    with np.errstate(all="ignore"):
        result = np.float32(scale) * (A @ B)
        if share:
            result += np.float32(share) * C.astype(np.float32)
        D[...] = with_epilogue(description, result, A, B, D.dtype)


def _digest(description, layouts):
    """What makes a problem: the description less its addresses, and the layouts."""
    fixed = [value for name, value in description.items() if not name.endswith("_POINTER")]
    shapes = [tuple(layout.values()) for layout in layouts]
    return hash((tuple(fixed), tuple(shapes))) & (2**63 - 1)


def _set(handle, attributes, dtypes, attr, buf, size_in_bytes):
    if attr not in set(attributes) or size_in_bytes != np.dtype(dtypes[attr]).itemsize:
        raise cuBLASLtError(INVALID_VALUE)
    _objects[handle][attributes(attr).name] = int(numbers_at(buf, dtypes[attr], 1)[0])


def _keep(thing):
    number = next(_numbers)
    _objects[number] = thing
    return number


def _drop(number):
    del _objects[number]
