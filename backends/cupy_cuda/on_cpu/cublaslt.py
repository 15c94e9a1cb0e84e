"""cuBLASLt in NumPy: `nvmath.bindings.cublasLt`, as far as this backend uses it.

Names, arguments and numbers are the binding's own: descriptors are handles, attributes are bytes at an
address, matrices are column-major at an address. What the library refuses is refused here, and some of
what it only might: an epilogue or a combination of types that nobody is known to run. Numbers are
multiplied as the compute type says, summed in float32, and rounded once.

calls: what was asked for, one dict each; forget() empties it. It never speaks for the library's speed.
"""

import ctypes
from enum import IntEnum
from itertools import count

import ml_dtypes
import numpy as np

CUDA_R_32F, CUDA_R_16BF = 0, 14
COMPUTE_32F, COMPUTE_32F_FAST_TF32 = 68, 77
DTYPES = {CUDA_R_32F: np.dtype(np.float32), CUDA_R_16BF: np.dtype(ml_dtypes.bfloat16)}
INVALID_VALUE, NOT_SUPPORTED = 7, 15

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
Epilogue = IntEnum(
    "Epilogue",
    {
        "DEFAULT": 1,
        "BIAS": 4,
        "GELU_AUX": 160,
        "GELU_AUX_BIAS": 164,
        "DGELU": 192,
        "DGELU_BGRAD": 208,
        "BGRADA": 256,
        "BGRADB": 512,
    },
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
    if refuse_everything or _unsupported(description, *layouts):
        raise cuBLASLtError(NOT_SUPPORTED)
    spare = wanted["MAX_WORKSPACE_BYTES"] >= WORKSPACE_BYTES
    found = min(requested_algo_count, 3 if spare else 1)
    results = _at(heuristic_results_array, matmul_heuristic_result_dtype, requested_algo_count)
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
    _at(return_algo_count, np.int32, 1)[0] = found


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
    index, needs, *alignments, digest, mask = map(int, _at(algo, np.uint64, 8))
    if workspace_size_in_bytes < needs or digest != _digest(description, layouts):
        raise cuBLASLtError(INVALID_VALUE)
    addresses = (a, b, c, d)
    if any(not at or at % to for at, to in zip(addresses, alignments, strict=True)):
        raise cuBLASLtError(INVALID_VALUE)
    _at(workspace, np.uint8, needs)[:] = 0xFF  # NaN, in every type
    scale, share = (float(_at(factor, np.float32, 1)[0]) for factor in (alpha, beta))
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
        D[...] = _after(description, result, A, B, D.dtype)


def column_major(address, layout):
    """The matrix at an address, which can be written."""
    dtype, rows, cols, ld = DTYPES[layout["type"]], layout["rows"], layout["cols"], layout["ld"]
    numbers = _at(address, dtype, (cols - 1) * ld + rows)
    strides = (dtype.itemsize, ld * dtype.itemsize)
    return np.lib.stride_tricks.as_strided(numbers, (rows, cols), strides)


def operand(matrix, transposed, tf32):
    """The float32 numbers that are multiplied; tf32 keeps ten bits of them, ties away from zero."""
    matrix = (matrix.T if transposed else matrix).astype(np.float32)
    if not tf32:
        return matrix
    bits = np.ascontiguousarray(matrix).view(np.uint32)
    rounded = ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isfinite(matrix), rounded, matrix)


def _after(description, x, A, B, dtype):
    """The epilogue: what becomes of the float32 results, and what it writes beside."""
    epilogue = Epilogue(description["EPILOGUE"])
    rows, cols = x.shape
    bias = description["BIAS_POINTER"]
    if epilogue in (Epilogue.BIAS, Epilogue.GELU_AUX_BIAS):
        x = x + _at(bias, dtype, rows).astype(np.float32)[:, None]
    if epilogue in AUX:
        shape = {"rows": rows, "cols": cols, "ld": description["EPILOGUE_AUX_LD"]}
        type_of = {dtype: number for number, dtype in DTYPES.items()}
        aux = column_major(description["EPILOGUE_AUX_POINTER"], {**shape, "type": type_of[dtype]})
        if epilogue in (Epilogue.GELU_AUX, Epilogue.GELU_AUX_BIAS):
            aux[...] = x
            x = x * _share(x)
        else:
            x = x * _slope(aux.astype(np.float32))
    sums = {Epilogue.DGELU_BGRAD: x, Epilogue.BGRADA: A, Epilogue.BGRADB: B.T}.get(epilogue)
    if sums is not None:
        _at(bias, dtype, len(sums))[:] = sums.sum(axis=1)
    return x


def _share(x):
    u = np.float32(0.7978845608028654) * (x + np.float32(0.044715) * x**3)
    return np.float32(0.5) * (1 + np.tanh(u))


def _slope(x):
    s = _share(x)
    return s + x * 2 * s * (1 - s) * np.float32(0.7978845608028654) * (
        1 + np.float32(3 * 0.044715) * x * x
    )


AUX = (Epilogue.GELU_AUX, Epilogue.GELU_AUX_BIAS, Epilogue.DGELU, Epilogue.DGELU_BGRAD)
READS_OR_WRITES_A_VECTOR = (
    Epilogue.BIAS,
    Epilogue.GELU_AUX_BIAS,
    Epilogue.DGELU_BGRAD,
    Epilogue.BGRADA,
    Epilogue.BGRADB,
)


def _unsupported(description, A, B, C, D):
    """Why a product is refused, or None."""
    if description["COMPUTE_TYPE"] not in (COMPUTE_32F, COMPUTE_32F_FAST_TF32):
        return "compute type"
    if description["SCALE_TYPE"] != CUDA_R_32F or description["POINTER_MODE"] != 0:
        return "scale type or pointer mode"
    if A["type"] != B["type"] or A["type"] not in DTYPES or C["type"] != D["type"]:
        return "types of A and B, or of C and D"
    if D["type"] not in (A["type"], CUDA_R_32F):
        return "type of D"
    if description["COMPUTE_TYPE"] == COMPUTE_32F_FAST_TF32 and A["type"] != CUDA_R_32F:
        return "TF32 of numbers that are not float32"
    if any(layout["ld"] < layout["rows"] or layout["cols"] < 1 for layout in (A, B, C, D)):
        return "leading dimension"
    m, k = (A["rows"], A["cols"])[:: -1 if description["TRANSA"] else 1]
    other_k, n = (B["rows"], B["cols"])[:: -1 if description["TRANSB"] else 1]
    if k != other_k or (D["rows"], D["cols"]) != (m, n) or (C["rows"], C["cols"]) != (m, n):
        return "shapes"
    return _unsupported_epilogue(description, A, D)


def _unsupported_epilogue(description, A, D):
    epilogue = description["EPILOGUE"]
    if epilogue not in set(Epilogue):
        return "epilogue"
    if epilogue in READS_OR_WRITES_A_VECTOR and not description["BIAS_POINTER"]:
        return "no bias pointer"
    if description["BIAS_DATA_TYPE"] not in (-1, D["type"]):
        return "bias of another type than D"
    if epilogue in AUX:
        ld = description["EPILOGUE_AUX_LD"]
        if not description["EPILOGUE_AUX_POINTER"] or ld < D["rows"] or ld % 8:
            return "auxiliary pointer or leading dimension"
        if D["type"] != CUDA_R_16BF or description["EPILOGUE_AUX_DATA_TYPE"] not in (-1, D["type"]):
            return "GELU of float32"  # not promised: no project is known to run it
    if epilogue == Epilogue.BGRADA and description["TRANSA"]:
        return "sums of a transposed A"  # as it is used for gradients of weights
    if epilogue == Epilogue.BGRADB and not description["TRANSB"]:
        return "sums of a B that is not transposed"
    return None


def _digest(description, layouts):
    """What makes a problem: the description less its addresses, and the layouts."""
    fixed = [value for name, value in description.items() if not name.endswith("_POINTER")]
    shapes = [tuple(layout.values()) for layout in layouts]
    return hash((tuple(fixed), tuple(shapes))) & (2**63 - 1)


def _set(handle, attributes, dtypes, attr, buf, size_in_bytes):
    if attr not in set(attributes) or size_in_bytes != np.dtype(dtypes[attr]).itemsize:
        raise cuBLASLtError(INVALID_VALUE)
    _objects[handle][attributes(attr).name] = int(_at(buf, dtypes[attr], 1)[0])


def _keep(thing):
    number = next(_numbers)
    _objects[number] = thing
    return number


def _drop(number):
    del _objects[number]


def _at(address, dtype, size):
    """So many numbers at an address, which can be written."""
    dtype = np.dtype(dtype)
    if not address or not size:
        assert not size, "a null pointer"
        return np.empty(0, dtype)
    memory = (ctypes.c_char * (int(size) * dtype.itemsize)).from_address(address)
    return np.frombuffer(memory, dtype)
