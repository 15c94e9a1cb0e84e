import json
from dataclasses import asdict, replace

import pytest

from harness.machine import peaks as module
from harness.machine.processor import UNKNOWN_CACHE_BYTES, last_level_cache_bytes, this_machine


@pytest.fixture
def measured(monkeypatch, machine, peaks):
    """How often the machine was measured; the machine may be replaced by `measured.machine`."""

    class Measured(list):
        now = machine

    log = Measured()

    def measure(machine):
        log.append(machine)
        return replace(peaks, machine=machine)

    monkeypatch.setattr(module, "measure_peaks", measure)
    monkeypatch.setattr(module, "this_machine", lambda: log.now)
    return log


def test_a_machine_is_measured_once(tmp_path, measured):
    first = module.peaks(tmp_path)
    assert module.peaks(tmp_path) == first
    assert len(measured) == 1


def test_asked_again_it_is_measured_again(tmp_path, measured):
    module.peaks(tmp_path)
    module.peaks(tmp_path, again=True)
    assert len(measured) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"cpu": "another"},
        {"cores": 3},
        {"system": "Darwin arm64"},
        {"numpy": "2.5.0"},
        {"blas": "openblas 0.4"},
        {"blas_kernel": "SkylakeX"},
        {"openblas_coretype": "Haswell"},
        {"threads": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_the_numbers_makes_it_another_machine(tmp_path, measured, machine, change):
    module.peaks(tmp_path)
    measured.now = replace(machine, **change)
    module.peaks(tmp_path)
    assert measured == [machine, measured.now]
    assert len(list(tmp_path.glob("*.json"))) == 2


def test_every_field_of_the_machine_is_tried_above(machine):
    assert len(asdict(machine)) == 8


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace("copy_bytes_per_s", "copied"),
        lambda text: text.replace("10000000000.0", "-1"),
        lambda text: text.replace('"format": 1', '"format": 99'),
    ],
    ids=["empty", "torn", "another kind", "a key renamed", "a rate below zero", "another format"],
)
def test_a_damaged_file_is_measured_again_and_replaced(tmp_path, measured, damage):
    first = module.peaks(tmp_path)
    (file,) = tmp_path.glob("*.json")
    damaged = damage(file.read_text())
    assert damaged != file.read_text()
    file.write_text(damaged)
    assert module.peaks(tmp_path) == first
    assert len(measured) == 2
    assert module.peaks(tmp_path) == first
    assert len(measured) == 2


def test_a_file_of_another_machine_under_this_name_is_not_believed(tmp_path, measured):
    module.peaks(tmp_path)
    (file,) = tmp_path.glob("*.json")
    record = json.loads(file.read_text())
    record["machine"]["cpu"] = "moved here by hand"
    file.write_text(json.dumps(record))
    assert module.peaks(tmp_path).machine == measured.now
    assert len(measured) == 2


def test_a_folder_that_cannot_be_written_costs_a_warning_only(tmp_path, measured, peaks, capsys):
    (tmp_path / "file").write_text("not a folder")
    assert module.peaks(tmp_path / "file") == peaks
    assert "are not kept" in capsys.readouterr().err


def test_a_peak_is_the_better_of_one_thread_and_all(peaks):
    assert peaks.best.copy_bytes_per_s == 10e9
    assert peaks.best.cached_copy_bytes_per_s == 40e9
    assert peaks.best.matmul_flops_per_s == 100e9


def test_what_is_measured_is_positive_and_names_this_machine():
    machine = replace(this_machine(), threads=1)
    found = module.measure_peaks(machine, budget_s=0.0)
    assert all(rate > 0 for rate in asdict(found.best).values())
    assert machine.cpu in str(found)


def test_the_last_level_cache_is_the_largest_that_the_system_tells(tmp_path):
    for i, size in enumerate(["32K", "1024K", "32M"]):
        (tmp_path / f"index{i}").mkdir()
        (tmp_path / f"index{i}" / "size").write_text(size + "\n")
    assert last_level_cache_bytes(tmp_path) == 32 << 20


def test_without_an_answer_the_cache_is_taken_to_be_large(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.machine.processor.sysctl", lambda name: "")
    assert last_level_cache_bytes(tmp_path) == UNKNOWN_CACHE_BYTES


def test_cached_peaks_are_those_measured_or_none(tmp_path, measured):
    assert module.cached_peaks(tmp_path) is None
    assert module.peaks(tmp_path) == module.cached_peaks(tmp_path)
    assert len(measured) == 1
