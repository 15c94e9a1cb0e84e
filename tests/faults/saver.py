"""Save checkpoints in child processes that are killed on the way, and check what is left each time.

    python saver.py FOLDER random SECONDS      SIGKILL after a random time
    python saver.py FOLDER calls               SIGKILL at each system call of a save, ours counted
    python saver.py FOLDER strace CALL FIRST   the same, strace counts: it kills at the FIRST-th CALL

One process imports everything, then forks a child for each death, so that a death costs milliseconds.
The last line printed is `deaths N, checked N`; anything wrong is a traceback and exit code 1.
"""

import mmap
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from harness import checkpoint

CALLS = ("open", "write", "fsync", "close", "mkdir", "rename", "unlink", "rmdir")
KEEP = 2
NO_DESCRIPTOR = 1_000_000

# The step of the last save that returned, in memory that the children share.
ACKNOWLEDGED = mmap.mmap(-1, 8)


def tensors(step):
    rng = np.random.default_rng(step)
    return {
        "model": {"wte": rng.standard_normal((64, 48)).astype(np.float32)},
        "optimizer": {"m": rng.standard_normal(5000), "v": rng.standard_normal(5000)},
    }


def check(folder):
    """The newest checkpoint is whole, is what was saved, and nothing listed is half-written."""
    at_least = int.from_bytes(ACKNOWLEDGED[:], "little")
    found, ignored = checkpoint.newest(folder)
    assert ignored == [], ignored
    for path in checkpoint.listed(folder):
        checkpoint.load(path)
    assert found is not None, os.listdir(folder)
    assert found.step >= at_least, (found.step, at_least)
    assert found.state == {"position": found.step * 1024}
    for group, arrays in tensors(found.step).items():
        read = found.tensors(group)
        assert read.keys() == arrays.keys()
        assert all(np.array_equal(read[name], arrays[name]) for name in arrays)
    return found.step


def save(folder, step):
    checkpoint.save(folder, step, tensors(step), {"position": step * 1024}, KEEP)
    ACKNOWLEDGED[:] = step.to_bytes(8, "little")


def save_some(folder, last):
    """From the checkpoint of step `last`: one more, the same again, and two more."""
    for step in (last + 1, last + 1, last + 2, last + 3):
        save(folder, step)


def in_a_child(work):
    """Run work in a child that ends with it; its process id."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            print("child:", repr(error), file=sys.stderr)
            os._exit(9)
        os._exit(0)
    return pid


def wait(pid):
    """Whether the child was killed; it must not have failed."""
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def kill_at_random(folder, seconds):
    deaths, last, rng = 0, 0, random.Random(1)

    def save_for_ever():
        step = last
        while True:
            save_some(folder, step)
            step += 3

    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        pid = in_a_child(save_for_ever)
        time.sleep(rng.uniform(0, 0.06))
        os.kill(pid, signal.SIGKILL)
        assert wait(pid)
        deaths += 1
        last = check(folder)
    return deaths


def kill_at_each_call(folder):
    def work():
        die_at_call(deaths)
        save_some(folder, last)

    deaths, last = 0, 0
    while wait(in_a_child(work)):
        deaths += 1
        last = check(folder)
    return deaths


def die_at_call(number):
    """Die at the call of this number, counted over all of CALLS; a write, after half of it."""
    left = [number]

    def wrap(name):
        call = getattr(os, name)

        def counted(*arguments, **settings):
            left[0] -= 1
            if left[0] < 0:
                if name == "write":
                    call(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **settings)

        setattr(os, name, counted)

    for name in CALLS:
        wrap(name)


def kill_by_strace(folder, name, first):
    """strace kills a process at its FIRST-th call; child i makes all but i of those beforehand."""
    use_up = {
        "write": lambda: os.write(NO_DESCRIPTOR, b""),
        "fsync": lambda: os.fsync(NO_DESCRIPTOR),
        "rename": lambda: os.rename("", ""),
        "mkdir": lambda: os.mkdir(""),
    }[name]

    def work():
        for _ in range(first - 1 - deaths):
            try:
                use_up()
            except OSError:
                pass
            else:
                raise AssertionError("this call must fail, and change nothing")
        save_some(folder, last)

    deaths, last = 0, 0
    while wait(in_a_child(work)):
        deaths += 1
        last = check(folder)
        assert deaths < first - 1, "more calls in a save than FIRST"
    return deaths


def main(folder, how, *arguments):
    folder = Path(folder)
    save(folder, 0)
    if how == "random":
        deaths = kill_at_random(folder, float(arguments[0]))
    elif how == "calls":
        deaths = kill_at_each_call(folder)
    else:
        deaths = kill_by_strace(folder, arguments[0], int(arguments[1]))
    print(f"deaths {deaths}, checked {deaths}")


if __name__ == "__main__":
    main(*sys.argv[1:])
