"""llm.c's CUDA trainer is told the same work, and its lines are read as it prints them."""

import stat
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.bench.contest.contest import Contest
from harness.bench.contest.entrants import Entrants
from harness.bench.contest.peers import llmc, llmc_cuda
from harness.bench.contest.work import LLMC
from harness.config.command_line import compose
from harness.config.config import model_of, trainer_settings
from harness.contract.precision import Precision
from harness.data import write_token_file
from harness.errors import ResourceError
from harness.interchange.initial_model import InitialModel
from harness.interchange.llmc.model import write_llmc_model
from harness.models.lora import Lora
from harness.training.optimizer import OptimizerSettings

FAKE = Path(__file__).with_name("fake_llmc_cuda.py")
LINE = (
    b"step    3/100 | loss 4.123456 (+nanz)| norm 1.2345 (-0.10z)| lr 3.00e-04 | 45.21 ms"
    b" | 41.3% bf16 MFU | 123456 tok/s"
)


@pytest.fixture
def settings():
    config = compose(
        ["model=micro", "data=counting", "batch_size=2", "sequence_length=8", "precision=bf16"]
    )
    return trainer_settings(config, model_of(config, 256))


@pytest.fixture
def program(tmp_path):
    file = tmp_path / "train_gpt2cu"
    file.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


@pytest.fixture
def contestant(program, settings, tmp_path):
    weights = tmp_path / "weights.bin"
    write_llmc_model(weights, InitialModel(settings.model, 0), "bfloat16")
    tokens = np.random.default_rng(0).integers(0, 256, llmc_cuda.tokens_read(2, 8))
    one = llmc_cuda.LlmcCuda(program, weights, tokens, tmp_path / "llmc", settings, 3e-4)
    yield one
    one.end()


def test_a_line_of_a_step_is_read_and_no_other():
    found = llmc_cuda.STEP_LINE.match(LINE)
    assert (found[1], found[2], found[3]) == (b"3", b"4.123456", b"45.21")
    for other in (
        b"val loss 4.5",
        b"total average iteration time: 45.2 ms",
        b"step 3: train loss 4",
    ):
        assert llmc_cuda.STEP_LINE.match(other) is None


def test_it_takes_the_steps_it_is_told_to_on_our_files(contestant):
    assert contestant.build() == ""
    seconds = contestant.run(3) + contestant.run(2)
    assert len(contestant.losses) == len(seconds) >= 5
    assert all(0.015 < s < 0.025 for s in seconds[:3])
    tokens = np.asarray(contestant.tokens)
    assert contestant.losses[:2] == pytest.approx(
        [tokens[:16].mean(), tokens[16:32].mean()], abs=1e-5
    )
    assert contestant.bf16 and "bf16" in contestant.what


def test_its_flags_are_pairs_and_never_divide_by_nothing(contestant):
    words = contestant.command()[1:]
    flags = dict(zip(words[::2], words[1::2], strict=True))
    assert int(flags["-v"]) > 0
    assert (flags["-b"], flags["-t"], flags["-d"], flags["-s"]) == ("2", "8", "16", "0")
    assert float(flags["-l"]) == 3e-4


def test_one_that_dies_says_its_last_words(contestant, monkeypatch):
    monkeypatch.setenv("FAKE_LLMC", "dies")
    contestant.build()
    with pytest.raises(ResourceError, match="gave up after 3 steps") as caught:
        contestant.run(10)
    assert "CUDA error: out of memory" in caught.value.facts["found"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"precision": Precision("fp32")}, "precision=bf16"),
        ({"clip_norm": None}, "clip_norm=1.0"),
        ({"optimizer": OptimizerSettings(beta2=0.999)}, "optimizer.beta2=0.95"),
        ({"optimizer": OptimizerSettings(weight_decay=0.1, decay="all")}, "matrices alone"),
        ({"adapter": Lora(2, 4.0, ("q",))}, "no adapters"),
        ({"gradient_accumulation": 2}, "gradient_accumulation=1"),
    ],
)
def test_other_work_than_its_own_is_refused_with_the_reason(settings, change, reason):
    assert llmc_cuda.why_not_llmc_cuda(settings, 10**6) == ""
    assert reason in llmc_cuda.why_not_llmc_cuda(replace(settings, **change), 10**6)
    assert "it reads 321 tokens" in llmc_cuda.why_not_llmc_cuda(settings, 320)


def test_batches_of_any_size_come_in_the_order_of_its_generator():
    tokens = np.arange(20 * 16 + 1)
    x, y = llmc.batches(tokens, 3, 2, 8)[0]
    assert x[0, 0] == 16 * llmc.order()[0]
    assert np.array_equal(y, x + 1)


def test_on_a_device_the_contest_takes_its_cuda_trainer_and_tells_the_peers(program, tmp_path):
    file = tmp_path / "tokens.bin"
    write_token_file(file, np.random.default_rng(0).integers(0, 100, 1000))
    overrides = [
        "backend=cupy", "precision=bf16", "model=micro", "data=tokens", f"data.path={file}",
        "batch_size=2", "sequence_length=8",
    ]  # fmt: skip
    entrants = Entrants({"cupy": overrides}, ("torch-bf16",), llmc=program, alone=True)
    with Contest(entrants) as contest:
        assert contest.work.on_device
        one = contest.contestant(LLMC)
        assert isinstance(one, llmc_cuda.LlmcCuda)
        one.end()
        torch = contest.contestant("torch-bf16")
        assert torch.spec["device"] == "cuda"
        torch.end()
        assert contest.files.bf16_weights.is_file()
