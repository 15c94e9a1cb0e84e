# ruff: noqa: N802 - a fake of the driver has the names of the driver.
"""Without a GPU the command says so and nothing else; a rehearsal is never taken for the real thing."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness import cli
from harness.acceptance import command, progress
from harness.acceptance.command import run_gpu_acceptance
from harness.errors import ConfigError, ResourceError
from harness.machine import nvidia_driver as driver
from harness.machine.nvidia_driver import Gpu

FAKE = "tests.unit.acceptance.fake_part"
CARD = Gpu("NVIDIA H100 80GB HBM3", "550.54", "12.4", 80 << 30, 9, 0, 132, 50 << 20, 1, 1)
DAY = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.fixture
def card(monkeypatch):
    """As if there were a GPU, and nothing ran on the CPU."""
    monkeypatch.setattr(driver, "gpus", lambda: ([CARD], ""))
    monkeypatch.setattr(driver, "computed_on_cpu", lambda: "")


@pytest.fixture
def accept(tmp_path, monkeypatch):
    def accept(*workers, **options):
        said = {"fake": {"workers": workers, "folder": str(tmp_path), "describe": "a fake"}}
        monkeypatch.setattr(
            command, "_probe", lambda backends, rehearse: (said, {"gone": "is not"})
        )
        (tmp_path / "records").mkdir(exist_ok=True)
        shown = []
        code = run_gpu_acceptance(
            [FAKE], into=tmp_path / "records", show=shown.append, now=lambda: DAY,
            **{"budget_s": 40.0, **options},
        )  # fmt: skip
        return code, sorted((tmp_path / "records").glob("*.json")), "\n".join(shown)

    return accept


def test_without_a_gpu_it_is_one_error_that_says_not_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(driver, "gpus", lambda: ([], "no driver: nowhere"))
    monkeypatch.setattr(driver, "computed_on_cpu", lambda: "")
    assert cli.main(["gpu-acceptance", "--parts", "capture"]) == 7
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("error[") == 1
    assert "error[no-gpu] gpu-acceptance was not run" in said.err
    assert "no driver: nowhere" in said.err
    assert "HARNESS_CUDA_ON_CPU=1 harness check cupy" in said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variable", driver.CPU_VARIABLES)
def test_kernels_on_the_cpu_are_not_taken_for_a_gpu_even_where_there_is_one(monkeypatch, variable):
    for name in driver.CPU_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(driver, "gpus", lambda: ([CARD], ""))
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ResourceError, match="not run") as caught:
        run_gpu_acceptance()
    assert (caught.value.slug, caught.value.exit_code) == ("no-gpu", 7)
    assert variable in caught.value.facts["found"]


@pytest.mark.parametrize("into", [None, Path("experiments/gpu_acceptance"), Path("experiments")])
def test_a_rehearsal_is_not_written_among_the_experiments(into):
    with pytest.raises(ConfigError) as caught:
        run_gpu_acceptance(rehearse=True, into=into)
    assert caught.value.slug == "rehearsal-is-no-record"


def test_an_unknown_part_is_an_error_that_lists_them():
    with pytest.raises(ConfigError, match="captures") as caught:
        run_gpu_acceptance(["captures"])
    assert "capture, losses" in caught.value.facts["there are"]


def test_a_record_says_what_ran_where(card, accept):
    code, (file,), shown = accept("fine", "elsewhere")
    record = json.loads(file.read_text())
    part = record["parts"][FAKE]
    assert code == 0
    assert file.name == "2026-01-31-nvidia-h100-80gb-hbm3.json"
    assert (part["status"], record["on"]) == ("passed", CARD.name)
    assert "there is none of it here" in part["reason"]
    assert record["machine"]["driver"] == "550.54"
    assert record["absent"] == {"gone": "is not"}
    assert len(record["sources"]) == 16 and "commit" in record
    page = file.with_suffix(".md").read_text()
    assert "| passed |" in page and "gone: not run (is not)" in page and "* fine: 2 checks" in page
    assert "passed" in shown


def test_a_rehearsal_says_so_everywhere_and_passes_nothing(accept):
    code, (file,), shown = accept("fine", rehearse=True)
    record, page = json.loads(file.read_text()), file.with_suffix(".md").read_text()
    assert code == 0
    assert record["parts"][FAKE]["status"] == "rehearsed"
    assert record["on"] == "CUDA on the CPU" and "cuda-on-the-cpu" in file.name
    assert record["goals"] == ["not run: CUDA on the CPU"]
    for text in (file.read_text(), page, shown):
        assert "passed" not in text
    assert "Nothing here ran on a GPU" in page
    assert "rehearsed (CUDA on the CPU)" in page and "rehearsed (CUDA on the CPU)" in shown


def test_what_was_not_done_is_continued_and_what_was_done_is_kept(card, accept, tmp_path):
    code, (file,), _ = accept("fine", "hanging", budget_s=progress.RESERVE_S + 4)
    part = json.loads(file.read_text())["parts"][FAKE]
    assert (code, part["status"]) == (7, "out of time")
    # The next one hangs no longer.
    (tmp_path / "records").joinpath(file.name).write_text(
        file.read_text().replace('"hanging"', '"crashing"')
    )
    code, files, shown = accept("fine", "crashing", resume=True)
    part = json.loads(file.read_text())["parts"][FAKE]
    assert files == [file] and "continuing" in shown
    assert (code, part["status"]) == (6, "failed")
    assert "SIGSEGV" in part["reason"]
    counted = {f.name: f.read_text() for f in tmp_path.glob("*-*") if f.is_file()}
    assert counted["fine-right"] == counted["fine-right too"] == "x"  # once, of both runs
    code, _, shown = accept("fine", "crashing", resume=True)
    assert "nothing is missing" in shown and code == 6


def test_a_record_of_another_machine_is_not_continued(card, accept, monkeypatch):
    accept("fine")
    other = Gpu(**{**CARD.record(), "driver": "560.1"})
    monkeypatch.setattr(driver, "gpus", lambda: ([other], ""))
    with pytest.raises(ConfigError, match="another machine"):
        accept("fine", resume=True)


def test_no_backend_is_not_run(card, accept, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "_probe", lambda backends, rehearse: ({}, {"cupy": "no CuPy"}))
    code = run_gpu_acceptance([FAKE], into=tmp_path / "r", show=lambda line: None)
    (file,) = (tmp_path / "r").glob("*.json")
    assert code == 7
    assert json.loads(file.read_text())["parts"][FAKE]["status"] == "not run"


def test_the_driver_is_asked_without_cupy(monkeypatch):
    found, reason = driver.gpus()
    assert bool(found) != bool(reason)


class FakeDriver:
    """libcuda's functions, which fill what they are given."""

    def __init__(self, starts=0, count=1):
        self.starts, self.count = starts, count

    def cuInit(self, flags):
        return self.starts

    def cuDeviceGetCount(self, count):
        count._obj.value = self.count

    def cuDeviceGet(self, device, ordinal):
        device._obj.value = ordinal

    def cuDeviceGetName(self, name, length, device):
        name.value = b"NVIDIA H200"

    def cuDeviceTotalMem_v2(self, memory, device):
        memory._obj.value = 141 << 30

    def cuDriverGetVersion(self, version):
        version._obj.value = 12040

    def cuDeviceGetAttribute(self, value, number, device):
        value._obj.value = {75: 9, 76: 0, 16: 132}.get(number, 1)


def test_what_the_driver_says_of_a_card_is_kept(monkeypatch, tmp_path):
    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\n")
    monkeypatch.setattr(driver, "VERSION_FILE", version)
    monkeypatch.setattr(driver, "_library", FakeDriver)
    ((gpu,), reason) = driver.gpus()
    assert (gpu.name, gpu.cuda, gpu.driver, reason) == ("NVIDIA H200", "12.4", "550.54.15", "")
    assert (gpu.major, gpu.minor, gpu.multiprocessors, gpu.memory_bytes) == (9, 0, 132, 141 << 30)
    assert gpu.slug == "nvidia-h200"


@pytest.mark.parametrize(
    ("fake", "reason"),
    [
        (None, "no driver"),
        (FakeDriver(starts=100), "cuInit says 100"),
        (FakeDriver(count=0), "no device"),
    ],
)
def test_why_there_is_no_gpu_is_said(monkeypatch, fake, reason):
    monkeypatch.setattr(driver, "_library", lambda: fake)
    found, said = driver.gpus()
    assert found == [] and reason in said
