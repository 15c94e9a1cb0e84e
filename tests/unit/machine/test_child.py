"""A process that works for us: one that answers, hangs, dies, makes noise, is killed."""

import os
import signal
import sys
import time

import psutil
import pytest

from harness.machine.child import Child

ECHO = "import sys\nfor line in sys.stdin: print(line.strip() * 2, flush=True)"


@pytest.fixture
def child():
    made = []

    def make(code, asks=True):
        made.append(Child([sys.executable, "-c", code], asks=asks))
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
    one = child("import time; time.sleep(60)")
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
        "print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
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
