"""The first signal asks, the second Ctrl-C insists, and afterwards all is as before."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from harness.run.signals import StopRequest

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR2: 75}


@pytest.fixture(autouse=True)
def known_handlers():
    before = {number: signal.getsignal(number) for number in CODES}
    for number in CODES:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", CODES)
def test_a_signal_becomes_a_flag_with_its_exit_code(number, capfd):
    with StopRequest() as stop:
        assert (stop.signal, stop.exit_code) == (None, None)
        signal.raise_signal(number)
        assert (stop.signal, stop.exit_code) == (number, CODES[number])
    assert stop.exit_code == CODES[number]
    assert number.name in capfd.readouterr().err


def test_the_first_signal_decides():
    with StopRequest() as stop:
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
    assert stop.exit_code == 75


def test_a_second_interrupt_quits_at_once():
    with pytest.raises(KeyboardInterrupt), StopRequest():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_terminate_does_not():
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    assert stop.exit_code == 143


def test_the_handlers_before_are_back_afterwards():
    def mine(number, frame):
        pass

    signal.signal(signal.SIGTERM, mine)
    with pytest.raises(RuntimeError), StopRequest():
        assert signal.getsignal(signal.SIGTERM) != mine
        raise RuntimeError
    assert signal.getsignal(signal.SIGTERM) is mine
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_that_was_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
    assert stop.signal is None


def test_in_another_thread_it_does_nothing():
    results = []

    def work():
        with StopRequest() as stop:
            results.append((stop.signal, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [(None, signal.SIG_DFL)]


LOOP = """
import sys, time
from harness.run.signals import StopRequest
with StopRequest() as stop:
    print("ready", flush=True)
    while stop.signal is None:
        time.sleep(0.01)
    print("finished the step", flush=True)
    while len(sys.argv) > 1:
        time.sleep(0.01)
sys.exit(stop.exit_code)
"""


@pytest.mark.parametrize("number", CODES)
def test_a_process_ends_with_the_documented_code(number):
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.read() == "finished the step\n"
    assert process.returncode == CODES[number]


def test_a_process_in_a_long_step_quits_at_the_second_interrupt():
    command = [sys.executable, "-c", LOOP, "and hang"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "finished the step\n"
        began_s = time.perf_counter()
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(5) == -signal.SIGINT  # as the shell shows it: 130
        assert time.perf_counter() - began_s < 5
