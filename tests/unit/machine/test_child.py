"""A process that works for us: one that answers, hangs, dies, makes noise, is killed."""

import os
import signal
import sys
import time

import psutil
import pytest

import harness
from harness.machine.child import Child, environment_with_harness

ECHO = "import sys\nfor line in sys.stdin: print(line.strip() * 2, flush=True)"


@pytest.fixture
def child():
    made = []

    def make(code, environment=None, *, asks=True):
        made.append(Child([sys.executable, "-c", code], environment, asks=asks))
        return made[-1]

    yield make
    for one in made:
        one.end(0.0)


def test_it_answers_and_is_gone_when_it_is_ended(child):
    one = child(ECHO)
    assert [one.ask("a"), one.ask("b")] == ["aa", "bb"]
    one.end()
    assert one.process.returncode == 0
    assert not psutil.pid_exists(one.pid)


def test_one_that_hangs_is_noticed_after_its_time_and_killed(child):
    one = child("import time; time.sleep(15)")
    with pytest.raises(TimeoutError, match=r"within 0\.2 s"):
        one.ask("a", limit_s=0.2)
    begun = time.monotonic()
    one.end(0.1)
    assert time.monotonic() - begun < 5
    assert one.process.returncode == -signal.SIGKILL


def test_one_that_dies_says_nothing_more_and_how_it_ended(child):
    one = child("import sys; sys.stdin.readline(); sys.exit('no kernel for that')")
    assert one.ask("a") == ""
    assert one.wait() == "exit code 1"
    assert one.last_lines(1) == ["no kernel for that"]


def test_noise_on_standard_error_is_captured_and_does_not_block(child):
    one = child("import sys; sys.stderr.write('noise\\n' * 200_000); print('done', flush=True)")
    assert one.receive(30) == "done"
    assert one.last_lines(2) == ["noise", "noise"]


def test_one_that_is_killed_is_told_by_its_signal(child):
    one = child(ECHO)
    os.kill(one.pid, signal.SIGKILL)
    assert one.receive() == ""
    assert one.wait() == "signal SIGKILL"


def test_what_it_has_started_ends_with_it(child):
    one = child(
        "import subprocess, sys, time\n"
        "print(subprocess.Popen(['sleep', '15']).pid, flush=True); time.sleep(15)"
    )
    grandchild = int(one.receive(30))
    one.end(0.1)
    until = time.monotonic() + 5
    while psutil.pid_exists(grandchild) and time.monotonic() < until:
        if psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE:
            break  # killed; whoever adopted it has not collected it yet
        time.sleep(0.05)
    else:
        assert not psutil.pid_exists(grandchild)


def test_an_answer_that_came_with_another_is_not_lost(child):
    one = child("print('first\\nsecond\\nthi', end='', flush=True); input(); print('rd')")
    assert [one.receive(30), one.receive(30)] == ["first", "second"]
    with pytest.raises(TimeoutError):
        one.receive(0.0)
    assert one.ask("") == "third"


def test_what_is_sent_to_one_that_is_gone_has_no_answer(child):
    one = child("print('last words', flush=True)")
    one.process.wait()
    assert not one.send("a" * (1 << 17))
    assert one.ask("a") == ""
    assert one.receive(30) == "last words"


@pytest.fixture
def our_input():
    """Something to be read on our own standard input."""
    ours, (reads, writes) = os.dup(0), os.pipe()
    os.write(writes, b"ours")
    os.dup2(reads, 0)
    for one in (reads, writes):
        os.close(one)
    yield
    os.dup2(ours, 0)
    os.close(ours)


def test_one_that_is_not_asked_reads_nothing_and_all_its_output_is_captured(child, our_input):
    one = child("import sys; print(repr(sys.stdin.read())); sys.exit('the end')", asks=False)
    assert one.wait() == "exit code 1"
    assert sorted(one.last_lines(2)) == ["''", "the end"]


def test_one_that_is_terminated_may_clean_up(child):
    one = child(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('ready', flush=True)\n"
        "time.sleep(15)"
    )
    assert one.receive(30) == "ready"
    one.end(10.0, terminate=True)
    assert one.process.returncode == 7


def test_it_has_the_environment_that_it_is_given_and_no_other(child, monkeypatch):
    monkeypatch.setenv("OURS", "1")
    code = "import os; print(os.environ.get('OURS'), os.environ.get('ITS'))"
    assert child(code, {"ITS": "2"}).receive(30) == "None 2"
    assert child(code).receive(30) == "1 None"


def test_the_harness_and_what_else_is_on_the_path_is_found_from_anywhere(
    child, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    places = [str(harness.ROOT), "/somewhere/else"]
    # Of these alone: the harness may be installed in the Python that runs this, and not in another.
    code = f"import sys; print([place for place in sys.path if place in {places}])"
    assert child(code, environment_with_harness()).receive(30) == str(places)
