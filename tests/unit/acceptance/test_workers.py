"""What hangs or crashes in a part loses only itself, and what was found is not asked again."""

import time

import pytest

from harness.acceptance.part import Request
from harness.acceptance.workers import environment_of, run_part
from harness.machine.nvidia_driver import CPU_VARIABLES
from tests.unit.acceptance import fake_part

MODULE = "tests.unit.acceptance.fake_part"
LIMIT_S = 20.0


@pytest.fixture
def run(tmp_path):
    def run(*workers, limit_s=LIMIT_S, known=None):
        request = Request({"fake": {"workers": list(workers), "folder": str(tmp_path)}})
        return run_part(fake_part.PART, MODULE, request, limit_s, known or {})

    return run


def test_every_check_of_every_worker_is_kept(run):
    found = run("fine", "elsewhere")
    assert found.complete
    assert [r["ok"] for r in found.results["fine"].values()] == [True, True]
    assert found.results["elsewhere"]["absent"] == {
        "ok": None,
        "reason": "there is none of it here",
    }


def test_a_crash_is_the_crashing_check_s_own_and_the_next_check_has_a_new_process(run):
    found = run("crashing")
    checks = found.results["crashing"]
    assert found.complete
    assert checks["crash"]["ok"] is False
    assert "SIGSEGV" in checks["crash"]["reason"]
    assert checks["right"]["ok"] and checks["right after"]["ok"]
    assert checks["right"]["process"] != checks["right after"]["process"]


def test_an_error_that_nobody_foresaw_is_kept_and_the_next_check_has_a_new_process(run):
    checks = run("wrong").results["wrong"]
    assert checks["raises"] == {"ok": False, "reason": "RuntimeError: an illegal address"}
    assert checks["right"]["process"] != checks["right after"]["process"]


def test_a_worker_that_cannot_be_set_up_says_why_and_is_not_tried_for_ever(run):
    found = run("broken")
    assert found.complete
    assert "no such library" in found.results["broken"]["setting up"]["reason"]


def test_what_hangs_is_ended_with_its_time_and_counts_as_not_done(run):
    begun = time.monotonic()
    found = run("hanging", limit_s=3.0)
    assert time.monotonic() - begun < 15
    assert not found.complete
    assert list(found.results["hanging"]) == ["right"]


def test_what_is_known_is_not_asked_again(run, tmp_path):
    known = {"fine": {"right": {"ok": True, "process": 0}}}
    found = run("fine", known=known)
    assert found.results["fine"]["right"]["process"] == 0
    assert found.results["fine"]["right too"]["process"] != 0
    assert not (tmp_path / "fine-right").exists()


def test_in_a_rehearsal_the_kernels_of_every_backend_run_on_the_cpu(monkeypatch):
    for name in CPU_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert all(environment_of(True)[name] == "1" for name in CPU_VARIABLES)
    assert not any(name in environment_of(False) for name in CPU_VARIABLES)
