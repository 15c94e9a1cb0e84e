"""The stand-in for cuBLASLt: it computes what the library documents, and refuses what it refuses."""

import ctypes
import inspect
from enum import EnumMeta, IntEnum
from importlib.util import find_spec
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from backends.cupy_cuda import _cublas
from backends.cupy_cuda.on_cpu import cublas, products
from backends.cupy_cuda.on_cpu import cublaslt as lt
from harness.ops import gelu

BF16 = np.dtype(ml_dtypes.bfloat16)
TYPES = {np.dtype(np.float32): products.CUDA_R_32F, BF16: products.CUDA_R_16BF}

# What a library of CUDA 12.9 answers for a descriptor that nobody has set anything of.
DEFAULTS = {"EPILOGUE": (1, 4), "EPILOGUE_AUX_LD": (0, 8), "BIAS_DATA_TYPE": (-1, 4)}
PREFERRED = {"REDUCTION_SCHEME_MASK": (7, 4), "MIN_ALIGNMENT_A_BYTES": (256, 4)}


class Problem:
    """One product, as a program in C would ask for it: column-major, with room between columns."""

    def __init__(self, rng, how="nn", a=np.float32, d=None, m=5, n=7, k=11, spare=3):
        d = np.dtype(d or a)
        self.m, self.n, self.k = m, n, k
        transposed = [letter == "t" for letter in how]
        shapes = [(k, m) if transposed[0] else (m, k), (n, k) if transposed[1] else (k, n), (m, n)]
        self.A, self.B, self.D = (
            columns_first(rng, shape, dtype, spare)
            for shape, dtype in zip(shapes, (np.dtype(a), np.dtype(a), d), strict=True)
        )
        self.layouts = [
            lt.matrix_layout_create(TYPES[x.dtype], *x.shape, x.strides[1] // x.itemsize)
            for x in (self.A, self.B, self.D)
        ]
        self.desc = lt.matmul_desc_create(products.COMPUTE_32F, products.CUDA_R_32F)
        self.preference = lt.matmul_preference_create()
        for matrix in "ABCD":
            self.prefer(f"MIN_ALIGNMENT_{matrix}_BYTES", np.uint32(2))
        self.describe("TRANSA", np.int32(transposed[0]))
        self.describe("TRANSB", np.int32(transposed[1]))
        self.transposed = transposed
        self.handle = lt.create()

    def describe(self, name, value):
        value = np.array(value)
        attribute = lt.MatmulDescAttribute[name]
        lt.matmul_desc_set_attribute(self.desc, attribute, value.ctypes.data, value.nbytes)

    def prefer(self, name, value):
        value = np.array(value)
        attribute = lt.MatmulPreferenceAttribute[name]
        lt.matmul_preference_set_attribute(
            self.preference, attribute, value.ctypes.data, value.nbytes
        )

    def heuristic(self):
        self.results, count = np.zeros(4, lt.matmul_heuristic_result_dtype), np.zeros(1, np.int32)
        a, b, d = self.layouts
        addresses = self.results.ctypes.data, count.ctypes.data
        lt.matmul_algo_get_heuristic(
            self.handle, self.desc, a, b, d, d, self.preference, 4, *addresses
        )
        return count[0]

    def run(self, scale=1.0, beta=0.0, algorithm=0, workspace=None):
        self.heuristic()
        factors = np.array([scale, beta], np.float32)
        a, b, d = self.layouts
        address, nbytes = (
            (workspace.ctypes.data, workspace.nbytes) if workspace is not None else (0, 0)
        )
        lt.matmul(
            self.handle,
            self.desc,
            factors.ctypes.data,
            self.A.ctypes.data,
            a,
            self.B.ctypes.data,
            b,
            factors.ctypes.data + 4,
            self.D.ctypes.data,
            d,
            self.D.ctypes.data,
            d,
            self.results[algorithm : algorithm + 1].ctypes.data,
            address,
            nbytes,
            0,
        )
        return self.D.astype(np.float64)

    @property
    def product(self):
        """op(A) · op(B), by NumPy in float64."""
        A, B = (x.astype(np.float64) for x in (self.A, self.B))
        A, B = (x.T if t else x for x, t in zip((A, B), self.transposed, strict=True))
        return A @ B


def columns_first(rng, shape, dtype, spare):
    rows, columns = shape
    whole = rng.standard_normal((columns, rows + spare)).astype(dtype)
    return whole[:, :rows].T


@pytest.mark.parametrize("how", ["nn", "nt", "tn", "tt"])
@pytest.mark.parametrize("types", [(np.float32, np.float32), (BF16, BF16), (BF16, np.float32)])
def test_a_product_is_of_the_matrices_that_layouts_describe(rng, how, types):
    problem = Problem(rng, how, *types)
    before, expected = problem.D.astype(np.float64), problem.product
    between = problem.D.base.copy()
    out = problem.run(scale=0.5, beta=2.0)
    tolerance = 0.05 if types[1] == BF16 else 1e-5  # bfloat16 keeps 8 bits of numbers up to 12
    assert np.abs(out - (0.5 * expected + 2 * before)).max() < tolerance
    between[:, : problem.m] = problem.D.base[:, : problem.m]
    assert between.tobytes() == problem.D.base.tobytes(), "what lies between columns is not written"


def test_beta_of_zero_does_not_read_what_was_there(rng):
    problem = Problem(rng)
    problem.D[...] = np.nan
    assert np.isfinite(problem.run()).all()


def test_tf32_keeps_ten_bits_and_rounds_ties_away_from_zero():
    ulp = 2.0**-10
    numbers = np.array([[1 + ulp / 2, -1 - ulp / 2, 1 + 0.49 * ulp, np.inf, 3.0]], np.float32)
    rounded = products.operand(numbers, False, True)
    assert rounded.tolist() == [[1 + ulp, -1 - ulp, 1.0, np.inf, 3.0]]
    assert np.array_equal(products.operand(numbers, False, False), numbers)


def test_a_bias_is_one_number_for_each_row(rng):
    problem = Problem(rng, "tn")
    bias = rng.standard_normal(problem.m).astype(np.float32)
    problem.describe("EPILOGUE", np.uint32(lt.Epilogue.BIAS))
    problem.describe("BIAS_POINTER", np.int64(bias.ctypes.data))
    expected = problem.product + bias[:, None]
    assert np.abs(problem.run() - expected).max() < 1e-5


def test_gelu_leaves_what_it_was_taken_of_beside(rng):
    problem = Problem(rng, "tn", BF16, m=8)
    bias = rng.standard_normal(8).astype(BF16)
    aux = np.full((7, 16), np.nan, BF16)
    problem.describe("EPILOGUE", np.uint32(lt.Epilogue.GELU_AUX_BIAS))
    problem.describe("BIAS_POINTER", np.int64(bias.ctypes.data))
    problem.describe("EPILOGUE_AUX_POINTER", np.int64(aux.ctypes.data))
    problem.describe("EPILOGUE_AUX_LD", np.int64(16))
    pre = problem.product + bias.astype(np.float64)[:, None]
    out = problem.run()
    assert np.abs(aux[:, :8].T.astype(np.float64) - pre).max() < 0.05
    assert np.isnan(aux[:, 8:].astype(np.float32)).all(), "columns are a leading dimension apart"
    assert np.abs(out - gelu.reference_forward(pre)[0]).max() < 0.05


def test_gradients_of_gelu_and_bias_are_summed_over_columns(rng):
    problem = Problem(rng, "nn", BF16, m=8)
    sums, pre = np.zeros(8, BF16), rng.standard_normal((7, 8)).astype(BF16)
    problem.describe("EPILOGUE", np.uint32(lt.Epilogue.DGELU_BGRAD))
    problem.describe("BIAS_POINTER", np.int64(sums.ctypes.data))
    problem.describe("EPILOGUE_AUX_POINTER", np.int64(pre.ctypes.data))
    problem.describe("EPILOGUE_AUX_LD", np.int64(8))
    (expected,) = gelu.reference_backward(problem.product, pre.T.astype(np.float64))
    assert np.abs(problem.run() - expected).max() < 0.05
    assert np.abs(sums.astype(np.float64) - expected.sum(axis=1)).max() < 0.1


@pytest.mark.parametrize("side", ["A", "B"])
def test_a_bias_gradient_sums_an_operand_along_k(rng, side):
    problem = Problem(rng, "nt")
    sums = np.zeros(problem.m if side == "A" else problem.n, np.float32)
    problem.describe("EPILOGUE", np.uint32(lt.Epilogue[f"BGRAD{side}"]))
    problem.describe("BIAS_POINTER", np.int64(sums.ctypes.data))
    problem.run()
    summed = getattr(problem, side).astype(np.float64)
    assert np.abs(sums - summed.sum(axis=1)).max() < 1e-5


def refused(problem, status):
    with pytest.raises(lt.cuBLASLtError) as caught:
        problem.run()
    assert caught.value.status == status


@pytest.mark.parametrize("ld", [0, 4, 12])
def test_gelu_needs_an_auxiliary_leading_dimension_of_a_multiple_of_8(rng, ld):
    problem = Problem(rng, "tn", BF16, m=8)
    pre = np.zeros((7, 16), BF16)
    problem.describe("EPILOGUE", np.uint32(lt.Epilogue.GELU_AUX))
    problem.describe("EPILOGUE_AUX_POINTER", np.int64(pre.ctypes.data))
    problem.describe("EPILOGUE_AUX_LD", np.int64(ld))
    refused(problem, products.NOT_SUPPORTED)


def test_what_does_not_fit_together_is_refused(rng):
    refused(_misfit(rng, 1, 10), products.NOT_SUPPORTED)  # a column less than the other has rows
    refused(_misfit(rng, 0, 4), products.NOT_SUPPORTED)  # a leading dimension below the rows
    without = Problem(rng)
    without.describe("EPILOGUE", np.uint32(lt.Epilogue.BIAS))
    refused(without, products.NOT_SUPPORTED)
    narrower = Problem(rng, "nn", np.float32, BF16)
    refused(narrower, products.NOT_SUPPORTED)
    rounded = Problem(rng, "nn", BF16)
    rounded.describe("COMPUTE_TYPE", np.int32(products.COMPUTE_32F_FAST_TF32))
    refused(rounded, products.NOT_SUPPORTED)


def _misfit(rng, which, number):
    """A problem whose left matrix has one column less (1), or too small a leading dimension (0)."""
    problem = Problem(rng)
    shape = (5, number, 8) if which else (5, 11, number)
    problem.layouts[0] = lt.matrix_layout_create(products.CUDA_R_32F, *shape)
    return problem


def test_an_address_that_is_less_aligned_than_was_said_is_refused(rng):
    problem = Problem(rng)
    problem.prefer("MIN_ALIGNMENT_A_BYTES", np.uint32(1 << 20))
    refused(problem, products.INVALID_VALUE)


def test_an_algorithm_is_of_one_problem(rng):
    problem = Problem(rng, m=5)
    other = Problem(rng, m=6)
    other.heuristic()
    problem.heuristic = lambda: None
    problem.results = other.results
    refused(problem, products.INVALID_VALUE)


def test_a_workspace_must_be_there_and_is_spoilt(rng):
    problem, workspace = Problem(rng), np.zeros(2 * lt.WORKSPACE_BYTES, np.uint8)
    assert problem.heuristic() == 1, "without a workspace there is one algorithm"
    problem.prefer("MAX_WORKSPACE_BYTES", np.uint64(workspace.nbytes))
    assert problem.heuristic() == 3
    with pytest.raises(lt.cuBLASLtError):
        problem.run(algorithm=1)
    assert np.abs(problem.run(algorithm=1, workspace=workspace) - problem.product).max() < 1e-5
    assert workspace.tolist() == [0xFF] * lt.WORKSPACE_BYTES + [0] * lt.WORKSPACE_BYTES


@pytest.mark.parametrize("nbytes", [2, 8])
def test_an_attribute_of_another_size_is_refused(rng, nbytes):
    held = np.zeros(1, np.int64)
    with pytest.raises(lt.cuBLASLtError) as caught:
        lt.matmul_desc_set_attribute(Problem(rng).desc, 3, held.ctypes.data, nbytes)
    assert caught.value.status == products.INVALID_VALUE


def test_cublas_refuses_what_gemm_ex_does_not_take(rng):
    A, handle, factors = np.zeros((4, 4), np.float32), cublas.create(), np.ones(2, np.float32)

    def multiply(lda=4, types=(0, 0, 0), compute=68):
        a, b, c = ((A.ctypes.data, kind) for kind in types)
        alpha = factors.ctypes.data
        cublas.gemmEx(handle, 0, 0, 4, 4, 4, alpha, *a, lda, *b, 4, alpha + 4, *c, 4, compute, -1)

    multiply()
    for wrong in ({"lda": 3}, {"types": (0, 0, 14)}, {"types": (0, 14, 0)}, {"compute": 64}):
        with pytest.raises(cublas.CUBLASError):
            multiply(**wrong)


# -- against the binding itself, where it is installed ------------------------------------------


@pytest.fixture
def binding():
    return pytest.importorskip("nvmath.bindings.cublasLt", reason="nvmath-python is not installed")


def test_names_arguments_and_numbers_are_the_binding_s_own(binding):
    compared = 0
    for name, ours in vars(lt).items():
        if isinstance(ours, EnumMeta) and ours is not IntEnum:
            theirs = getattr(binding, name)
            assert {m: theirs[m].value for m in ours.__members__} == {m.name: m.value for m in ours}
        elif inspect.isfunction(ours) and hasattr(binding, name):
            theirs = inspect.signature(getattr(binding, name))
            assert list(inspect.signature(ours).parameters) == list(theirs.parameters), name
        else:
            continue
        compared += 1
    assert compared > 15
    for ours, theirs in (
        (lt.matmul_algo_dtype, binding.matmul_algo_dtype),
        (lt.matmul_heuristic_result_dtype, binding.matmul_heuristic_result_dtype),
    ):
        assert ours.descr == theirs.descr and ours.itemsize == theirs.itemsize
    assert issubclass(binding.cuBLASLtError, Exception)


def test_attributes_have_the_binding_s_types(binding):
    for attribute in lt.MatmulDescAttribute:
        theirs = binding.get_matmul_desc_attribute_dtype(binding.MatmulDescAttribute(attribute))
        assert np.dtype(theirs) == np.dtype(lt.DESCRIPTION[attribute]), attribute.name
    for attribute in lt.MatmulPreferenceAttribute:
        theirs = binding.get_matmul_preference_attribute_dtype(
            binding.MatmulPreferenceAttribute(attribute)
        )
        assert np.dtype(theirs) == np.dtype(lt.PREFERENCE[attribute]), attribute.name


def test_types_and_compute_types_are_cuda_s_own():
    nvmath = pytest.importorskip("nvmath", reason="nvmath-python is not installed")
    from nvmath.bindings import cublas as constants

    assert nvmath.CudaDataType.CUDA_R_32F == products.CUDA_R_32F
    assert nvmath.CudaDataType.CUDA_R_16BF == products.CUDA_R_16BF
    assert constants.ComputeType.COMPUTE_32F == products.COMPUTE_32F
    assert constants.ComputeType.COMPUTE_32F_FAST_TF32 == products.COMPUTE_32F_FAST_TF32


def test_cublas_has_cupy_s_names_and_arguments():
    try:
        from cupy_backends.cuda.libs import cublas as theirs
    except ImportError as error:
        pytest.skip(f"CuPy has no cuBLAS here: {error}")
    for name in ("create", "destroy", "setMathMode", "gemmEx"):
        signature = getattr(theirs, name).__doc__.split("(")[1].split(")")[0]
        names = [argument.split()[-1] for argument in signature.split(",") if argument]
        assert list(inspect.signature(getattr(cublas, name)).parameters) == names, name
    assert theirs.CUBLAS_GEMM_DEFAULT == _cublas.DEFAULT_ALGORITHM
    assert theirs.CUBLAS_COMPUTE_32F == products.COMPUTE_32F
    assert theirs.CUBLAS_COMPUTE_32F_FAST_TF32 == products.COMPUTE_32F_FAST_TF32


@pytest.fixture
def library():
    """The library itself, which answers for descriptors where there is neither GPU nor driver."""
    spec = find_spec("nvidia")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    found = [file for folder in folders for file in folder.glob("cublas/lib/libcublasLt.so.1?")]
    if not found:
        pytest.skip("libcublasLt is not installed")
    return ctypes.CDLL(str(found[0]))


def test_what_nobody_set_is_what_the_library_says(library):
    for prefix, attributes, defaults in (
        ("cublasLtMatmulDesc", lt.MatmulDescAttribute, DEFAULTS),
        ("cublasLtMatmulPreference", lt.MatmulPreferenceAttribute, PREFERRED),
    ):
        handle, written = ctypes.c_void_p(), ctypes.c_size_t()
        create = getattr(library, f"{prefix}Create")
        assert create(ctypes.byref(handle), *([68, 0] if "Desc" in prefix else [])) == 0
        for name, (value, nbytes) in defaults.items():
            held = (ctypes.c_int32 if nbytes == 4 else ctypes.c_int64)()
            get, arguments = getattr(library, f"{prefix}GetAttribute"), ctypes.byref(held)
            size = ctypes.c_size_t(nbytes)
            assert get(handle, int(attributes[name]), arguments, size, ctypes.byref(written)) == 0
            assert (held.value, written.value) == (value, nbytes), name


def test_the_stand_in_starts_from_the_same_defaults():
    described = lt._objects[lt.matmul_desc_create(products.COMPUTE_32F, products.CUDA_R_32F)]
    preferred = lt._objects[lt.matmul_preference_create()]
    for objects, defaults in ((described, DEFAULTS), (preferred, PREFERRED)):
        assert {name: objects[name] for name in defaults} == {
            n: v for n, (v, _) in defaults.items()
        }
