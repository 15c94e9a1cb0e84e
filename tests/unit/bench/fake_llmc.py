"""A program that reads and prints what llm.c's CPU trainer does; its loss is the mean token of a batch.

FAKE_LLMC: `dies` after its seventh step. A step takes 20 ms of the processor, and is told by the clock
on the wall, as llm.c tells it.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

STEPS, SIZE = 41, 256


def main():
    assert Path("gpt2_124M.bin").stat().st_size > 1024
    raw = Path("dev/data/tinyshakespeare/tiny_shakespeare_train.bin").read_bytes()
    assert np.frombuffer(raw[:8], "<i4").tolist() == [20240520, 1]
    tokens = np.frombuffer(raw[1024:], "<u2")
    assert Path("dev/data/tinyshakespeare/tiny_shakespeare_val.bin").read_bytes() == raw
    print("[GPT-2]\nmax_seq_len: 64")
    for step in range(STEPS):
        if step % 10 == 0:
            time.sleep(0.03)
            print(f"val loss {step}.5")
        if step == 20:
            sys.exit("twenty steps were promised")
        begin = time.monotonic()
        until = time.process_time() + 0.02
        while time.process_time() < until:
            pass
        if os.environ.get("FAKE_LLMC") == "dies" and step == 7:
            print("Error: must forward before backward", flush=True)
            sys.exit(3)
        loss = tokens[:SIZE].mean() + step
        took = 1000 * (time.monotonic() - begin)
        print(f"step {step}: train loss {loss:f} (took {took:f} ms)")


main()
