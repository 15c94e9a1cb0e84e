"""What a GPU can lack is said in one way for both backends, each by its name."""

from types import SimpleNamespace

import pytest

from harness.device import gpu

DO = "do without"


@pytest.mark.parametrize("backend", ["cupy", "numba_cuda"])
def test_a_gpu_that_is_not_there_or_too_old_is_refused_by_the_name_of_the_backend(backend):
    none = gpu.no_gpu(backend, "there is no NVIDIA driver", DO)
    old = gpu.gpu_too_old(backend, "GTX 1080", (6, 1), DO)
    assert (none.slug, old.slug) == ("no-gpu", "gpu-too-old")
    for error in (none, old):
        assert error.headline.startswith(f"backend '{backend}' ") and error.facts["do"] == DO
    assert old.facts["expected"] == "compute capability 7.0 or later"
    assert old.facts["found"] == "6.1"


def test_a_precision_that_is_too_new_says_what_it_needs_and_what_there_is():
    error = gpu.precision_needs_newer_gpu("bf16", (8, 0), "Tesla V100", (7, 0))
    assert error.headline == "precision=bf16 needs compute capability 8.0 or later"
    assert error.facts["found"] == "Tesla V100, 7.0"


def test_memory_that_is_too_small_says_what_is_wanted_and_what_is_free():
    full = SimpleNamespace(name="NVIDIA H100", free_bytes=lambda: 1000)
    error = gpu.out_of_memory(full, 2000)
    assert error.headline == "2,000 bytes are wanted on NVIDIA H100, and 1,000 are free"


def test_memory_that_is_taken_in_a_capture_says_how_much():
    assert gpu.memory_in_capture(4096).facts["found"] == "4,096 bytes"


def test_versions_of_cuda_are_shown_as_people_write_them():
    assert gpu.dotted(12090) == "12.9"
    assert gpu.dotted(13000) == "13.0"
