"""Loading a model takes little more memory than the model; converting one, little more than a tensor.

The whole process at GPT-2 124M's size: experiments/model_files.
"""

import tracemalloc

import pytest

from harness.contract import core_ops
from harness.device import HOST
from harness.execution.parameters import Parameters
from harness.interchange.huggingface.writing import write_huggingface
from harness.interchange.initial_model import InitialModel
from harness.interchange.llmc.model import write_llmc_model
from harness.interchange.model_folder import write_model_folder
from harness.interchange.opening import open_model
from harness.models.gpt2 import GPT2, build

# Half of it the token embedding, as for a reader that holds a tensor twice to show.
MODEL = GPT2(layers=2, heads=8, channels=256, positions=64, vocab_size=6_400)
BYTES = 4 * MODEL.parameters
MAX_TENSOR_BYTES = 4 * MODEL.vocab_size * MODEL.channels
WRITERS = {
    "llmc_fp32": lambda path, source: write_llmc_model(path, source),
    "llmc_bf16": lambda path, source: write_llmc_model(path, source, "bfloat16"),
    "huggingface": write_huggingface,
    "model_folder": write_model_folder,
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Kind -> a stored model."""
    folder = tmp_path_factory.mktemp("stored")
    for kind, write in WRITERS.items():
        write(folder / kind, InitialModel(MODEL))
    return folder


@pytest.fixture
def peak_of():
    """The most memory, in bytes, that a function holds at once beyond what there was."""

    def measure(function):
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            function()
            return tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()

    return measure


@pytest.mark.parametrize("kind", WRITERS)
def test_loading_peaks_below_1_3_times_the_float32_file(stored, peak_of, kind):
    program, _ = build(core_ops(), MODEL, 1, 1)

    def load():
        with open_model(stored / kind) as source:
            Parameters(program, HOST).load(source)

    peak = peak_of(load)
    assert BYTES < peak < 1.3 * BYTES


def test_a_reader_that_holds_a_tensor_twice_would_be_noticed(stored, peak_of):
    program, _ = build(core_ops(), MODEL, 1, 1)

    def load():
        with open_model(stored / "llmc_fp32") as source:
            values = Parameters(program, HOST)

            def twice(name, out):
                copy = out.copy()
                source.read_into(name, copy)
                out[...] = copy

            values.fill("parameter", twice)

    assert peak_of(load) > 1.3 * BYTES


@pytest.mark.parametrize("kind", WRITERS)
def test_exporting_holds_one_tensor_at_a_time(stored, peak_of, tmp_path, kind):
    def export():
        with open_model(stored / "llmc_fp32") as source:
            WRITERS[kind](tmp_path / kind, source)

    assert peak_of(export) < MAX_TENSOR_BYTES + (9 << 20)  # and blocks of at most 4 MiB on the way
