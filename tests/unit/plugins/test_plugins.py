"""A backend is found by its name, checked against the contract, and explained where it fails.

The distributions are made up in a temporary folder; the same is expected under pluggy 1.6 and 1.7.
"""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from harness.errors import OpNotImplemented, PluginError
from harness.plugins import all_ops, installed, load, load_wrapper, require
from harness.plugins import loading as plugins

GOOD = """
import numpy as np

@hookimpl
def gelu_forward(out_NF, x_NF):
    out_NF[...] = x_NF
"""


def refused(name, ops):
    with pytest.raises(PluginError) as caught:
        load(name, ops)
    return caught.value


def test_a_backend_is_loaded_by_the_name_of_its_entry_point(install, ops):
    install("toy", "1.2", GOOD, backends=["toy"])
    backend = load("toy", ops)
    assert set(backend.functions) == {"gelu_forward"}
    assert backend.source == "toy 1.2"
    assert (backend.device, backend.arrays) == ("host", "numpy")
    out, x = np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32)
    backend.call("gelu_forward", out, x)
    assert (out == x).all()


def test_a_half_op_says_where_it_is_written(install, ops):
    path = install("toy", "1.2", GOOD, backends=["toy"])
    where = load("toy", ops).where("gelu_forward")
    assert where == f"{path}:{path.read_text().splitlines().index('@hookimpl') + 1}"


def test_listing_imports_nothing(install):
    install("toy", "1.0", "raise RuntimeError('imported')", backends=["toy"])
    assert "toy" in installed()
    assert "toy_plugin" not in sys.modules


def test_an_unmarked_function_is_not_part_of_a_backend(install, ops):
    install("toy", "1.0", "def gelu_forward(wrong): ...", backends=["toy"])
    assert "gelu_forward" not in load("toy", ops)


ARGUMENTS = "mean_N, rstd_N, x_NC, weight_C, bias_C, eps"
WRONG_ARGUMENTS = {
    "left out": "out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C",
    "reordered": "out_NC, rstd_N, mean_N, x_NC, weight_C, bias_C, eps",
    "renamed": "out, mean_N, rstd_N, x_NC, weight_C, bias_C, eps",
    "one more": f"out_NC, {ARGUMENTS}, stream",
    "a default": f"out_NC, {ARGUMENTS}=0.5",
    "*args": f"out_NC, {ARGUMENTS}, *args",
    "**kwargs": f"out_NC, {ARGUMENTS}, **kwargs",
    "keyword-only": f"out_NC, *, {ARGUMENTS}",
    "positional-only": f"out_NC, /, {ARGUMENTS}",
}


@pytest.mark.parametrize("arguments", WRONG_ARGUMENTS.values(), ids=WRONG_ARGUMENTS)
def test_arguments_that_differ_from_the_specification_are_refused(install, ops, arguments):
    source = f"@hookimpl\ndef layernorm_forward({arguments}): ..."
    path = install("toy", "1.2", source, backends=["toy"])
    error = refused("toy", ops)
    assert error.slug == "plugin-refused"
    assert error.headline.startswith("layernorm_forward of backend 'toy' (toy 1.2) is refused")
    assert error.facts["where"] == f"{path}:2"
    assert error.facts["expected"] == f"layernorm_forward(out_NC, {ARGUMENTS})"
    assert error.facts["found"] == f"layernorm_forward({arguments})"


def test_an_unknown_hook_is_refused_with_the_nearest_name(install, ops):
    install("toy", "1.0", "@hookimpl\ndef layernom_forward(x_NC): ...", backends=["toy"])
    error = refused("toy", ops)
    assert "layernom_forward of backend 'toy'" in error.headline
    assert "no op has a half of this name" in error.headline
    assert error.facts["nearest"] == "layernorm_forward"


NOT_FUNCTIONS = {
    "callable object": """
        class Kernel:
            def __call__(self, out_NF, x_NF): ...
        gelu_forward = hookimpl(Kernel())
        """,
    "partial": """
        from functools import partial
        gelu_forward = hookimpl(partial(lambda out_NF, x_NF: None))
        """,
    "class": """
        @hookimpl
        class gelu_forward:
            def __init__(self, out_NF, x_NF): ...
        """,
}


@pytest.mark.parametrize("source", NOT_FUNCTIONS.values(), ids=NOT_FUNCTIONS)
def test_a_marked_object_that_is_no_plain_function_is_refused(install, ops, source):
    install("toy", "1.0", source, backends=["toy"])
    error = refused("toy", ops)
    assert "not a plain function" in error.headline
    assert error.facts["do"] == "mark a plain function that calls it"


BROKEN = {
    "raises": ("1 / 0", "ZeroDivisionError: division by zero"),
    "lacks a dependency": (
        "import no_such_gpu_library",
        "ModuleNotFoundError: No module named 'no_such_gpu_library'",
    ),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "does not parse": ("def", "SyntaxError"),
}


@pytest.mark.parametrize(("source", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_backend_that_cannot_be_imported_gives_its_own_reason(install, ops, source, reason):
    install("toy", "1.0", source, backends=["toy"])
    error = refused("toy", ops)
    assert error.slug == "plugin-import-failed"
    assert error.headline == "the backend 'toy' of toy 1.0 cannot be imported"
    assert error.facts["reason"].startswith(reason)


def test_an_entry_point_that_is_no_module_is_refused(install, ops):
    install("toy", "1.0", "class Backend: ...", backends=["toy"], target=":Backend")
    error = refused("toy", ops)
    assert error.slug == "plugin-not-a-module"
    assert error.facts["found"] == "toy_plugin:Backend is a type"


def test_an_entry_point_to_nothing_is_refused(install, ops):
    install("toy", "1.0", "", backends=["toy"], target=":Backend")
    assert "AttributeError" in refused("toy", ops).facts["reason"]


def test_a_broken_plugin_harms_no_other(install, ops):
    install("broken", "1.0", "raise SystemExit(3)", backends=["broken"])
    install("toy", "1.0", GOOD, backends=["toy"])
    assert "gelu_forward" in load("toy", ops)
    assert "toy" in plugins.who_implements("gelu_forward", ops)
    assert "broken" not in plugins.who_implements("gelu_forward", ops)


def test_a_name_that_two_distributions_declare_is_refused(install, ops):
    install("toy", "1.0", GOOD, backends=["toy"])
    install("rival", "2.0", GOOD, backends=["toy"])
    error = refused("toy", ops)
    assert error.slug == "plugin-ambiguous"
    assert error.facts["found"] == "rival 2.0, toy 1.0"


def test_an_unknown_backend_names_the_nearest_and_what_is_installed(install, ops):
    install("toy", "1.0", GOOD, backends=["toy"])
    error = refused("toi", ops)
    assert error.headline == "no backend is called 'toi'"
    assert error.facts["nearest"] == "toy"
    assert {"python", "reference", "toy"} <= set(error.facts["installed"].split(", "))


def test_a_missing_op_is_worded_as_the_house_style_has_it(install, ops):
    install("toy", "1.0", GOOD, backends=["toy"])
    with pytest.raises(OpNotImplemented) as caught:
        require(load("toy", ops), "layernorm_backward", "ops.layernorm", ops)
    headline, *facts = str(caught.value).splitlines()
    assert headline == (
        "backend 'toy' does not implement layernorm_backward (chosen by ops.layernorm)"
    )
    implemented, choose, write = (fact.split("  ") for fact in facts)
    assert implemented[1] == "implemented by"
    assert {"python", "reference"} <= set(implemented[-1].split(", "))
    assert [word.strip() for word in choose if word] == [
        "choose one",
        "ops.layernorm_backward=NAME",
    ]
    assert [word.strip() for word in write if word] == [
        "or write it",
        "harness/ops/layernorm.py says what it must do",
    ]


def test_a_file_is_a_backend_and_its_sha256_is_recorded(backend_file, ops):
    path = backend_file("mine", GOOD)
    backend = load(path, ops)
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    assert backend.source == f"sha256 {digest[:16]}"
    assert "gelu_forward" in backend


def test_the_path_of_a_backend_file_is_made_absolute(backend_file, ops, tmp_path, monkeypatch):
    path = backend_file("mine", GOOD)
    monkeypatch.chdir(tmp_path)
    assert load("./mine.py", ops).name == path


def test_a_changed_backend_file_is_loaded_anew_even_within_the_same_second(
    backend_file, ops, monkeypatch
):
    """Same size and same time of change: what Python's own cache would take for unchanged."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    sources, results = {}, []
    for factor in ("2", "3"):
        path = backend_file("mine", GOOD.replace("x_NF\n", f"{factor} * x_NF\n"))
        os.utime(path, (1e9, 1e9))
        backend = load(path, ops)
        sources[backend.source] = path
        out = np.zeros((1, 3), np.float32)
        backend.call("gelu_forward", out, np.ones_like(out))
        results.append(out[0, 0])
    assert len(sources) == 2
    assert results == [2, 3]


def test_a_missing_half_of_a_file_names_the_override(backend_file, ops):
    backend = load(backend_file("mine", GOOD), ops)
    with pytest.raises(OpNotImplemented) as caught:
        require(backend, "gelu_backward", "ops.gelu", ops)
    assert caught.value.facts["choose one"] == "ops.gelu_backward=NAME"


def test_a_backend_file_that_is_not_there_is_an_error_with_its_path(tmp_path, ops):
    error = refused(str(tmp_path / "absent.py"), ops)
    assert error.slug == "backend-file-missing"
    assert error.facts["where"] == str(tmp_path / "absent.py")


def test_a_backend_file_that_raises_gives_its_reason(backend_file, ops):
    error = refused(backend_file("mine", "raise SystemExit(1)"), ops)
    assert error.facts["reason"] == "SystemExit: 1"


def test_an_unknown_kind_of_array_is_refused(backend_file, ops):
    error = refused(backend_file("mine", "arrays = 'tensor'"), ops)
    assert error.slug == "unknown-array-kind"
    assert error.facts["the host has"] == "numpy, memoryview"


def test_a_device_of_its_own_needs_all_of_its_hooks(backend_file, ops):
    source = "device = 'toy'\n@hookimpl\ndef zero(buffer): ..."
    backend = load(backend_file("mine", source), ops)
    with pytest.raises(PluginError) as caught:
        backend.open_device()
    assert caught.value.slug == "device-incomplete"
    assert caught.value.headline.endswith("empty, view, from_host, to_host, synchronize")


def test_the_reference_has_every_half_op(ops):
    reference = load("reference", ops)
    assert all(hook in reference for hook in ops.hooks)
    assert "layernom_forward" not in reference


WRAPPER = """
@hookimpl
def wrap_op(op, backend, call):
    return None
"""


def test_a_wrapper_is_an_entry_point_or_a_file(install, backend_file, ops):
    install("tracer", "1.0", WRAPPER, wrappers=["tracer"])
    assert load_wrapper("tracer", ops).wrap_op("gelu_forward", "numpy", print) is None
    path = backend_file("mine", WRAPPER)
    assert load_wrapper(path, ops).wrap_op("gelu_forward", "numpy", print) is None


def test_a_wrapper_without_wrap_op_is_refused(install, backend_file, ops):
    install("tracer", "1.0", WRAPPER.replace("@hookimpl", ""), wrappers=["tracer"])
    for name in ("tracer", backend_file("mine", GOOD)):
        with pytest.raises(PluginError, match="does not implement wrap_op"):
            load_wrapper(name, ops)


def test_a_wrapper_with_other_arguments_is_refused(install, ops):
    install("tracer", "1.0", "@hookimpl\ndef wrap_op(call): ...", wrappers=["tracer"])
    with pytest.raises(PluginError, match="its arguments differ from the specification"):
        load_wrapper("tracer", ops)


def test_an_unknown_wrapper_says_what_is_installed(install, ops):
    install("tracer", "1.0", WRAPPER, wrappers=["tracer"])
    with pytest.raises(PluginError, match="no wrapper is called 'trace'") as caught:
        load_wrapper("trace", ops)
    assert caught.value.facts["nearest"] == "tracer"


def test_a_broken_op_plugin_harms_no_run_that_does_not_name_it(install):
    install("cells", "1.0", "raise ImportError('no')", ops=["minimal_gru"])
    ops = all_ops()
    assert "gelu" in ops and "minimal_gru" in ops
    with pytest.raises(PluginError, match=r"the op 'minimal_gru' of cells 1\.0 cannot be imported"):
        ops["minimal_gru"]


def test_importing_the_harness_imports_no_numpy():
    code = "import sys, harness; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    modules = set(done.stdout.split())
    assert "harness" in modules
    heavy = {"numpy", "ml_dtypes", "hydra", "omegaconf", "pytest", "rich", "tiktoken"}
    assert modules & heavy == set()
    # Only pluggy, and what Python itself brings; each line of -X importtime names one module.
    assert not any(line.endswith(" numpy") for line in done.stderr.splitlines())


OWNER = """
device, arrays, slow = "toy", "toys", "it is done by hand"

@hookimpl
def empty(nbytes): ...
@hookimpl
def view(memory, offset, shape, dtype): ...
@hookimpl
def adapt(buffer): ...
@hookimpl
def from_host(buffer, array): ...
@hookimpl
def to_host(array, buffer): ...
@hookimpl
def zero(buffer): ...
@hookimpl
def synchronize(): ...
"""


@pytest.mark.parametrize(
    ("stated", "slowness"),
    [
        ('device, arrays = "toy", "toys"', "it is done by hand"),
        ('device, arrays, slow = "toy", "toys", "and so is this"', "and so is this"),
        ("", ""),
    ],
    ids=["on that device", "by its own word", "on the host"],
)
def test_a_file_is_as_slow_as_the_backend_whose_device_it_is_on(
    install, backend_file, ops, stated, slowness
):
    install("toys", "1.0", OWNER, backends=["toys"])
    assert load("toys", ops).slowness == "it is done by hand"
    assert load(backend_file("mine", stated + GOOD), ops).slowness == slowness
