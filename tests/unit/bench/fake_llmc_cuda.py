"""A program that reads and prints what llm.c's CUDA trainer does; its loss is the mean token of a batch.

Its flags are those of train_gpt2.cu, two words each, no other. FAKE_LLMC: `dies` after its third.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

KNOWN = set("ijeonybtdluqcxvmsgafwzrhk") | {"lg", "ge"}


def main():
    words = sys.argv[1:]
    flags = dict(zip(words[::2], words[1::2], strict=True))
    assert {flag[1:] for flag in flags} <= KNOWN, flags
    header = np.frombuffer(Path(flags["-e"]).read_bytes()[:1024], "<i4")
    assert header[:2].tolist() == [20240326, 5]  # bfloat16
    B, T, steps = int(flags["-b"]), int(flags["-t"]), int(flags["-x"])
    assert int(flags["-d"]) == B * T
    assert header[2] >= T
    tokens = np.frombuffer(Path(flags["-i"]).read_bytes()[1024:], "<u2")
    assert len(tokens) == 20 * B * T + 1
    Path(flags["-j"]).read_bytes()
    print("| micro batch size B    | 4 |\nnum_parameters: 12 => bytes: 24")
    for step in range(steps + 1):
        if step % int(flags["-v"]) == 0 or step == steps:  # 0 ends it, as it ends the original
            print("val loss 4.5")
        if step == steps:
            break
        if os.environ.get("FAKE_LLMC") == "dies" and step == 3:
            print("CUDA error: out of memory", flush=True)
            sys.exit(1)
        time.sleep(0.02)
        loss = tokens[step * B * T : (step + 1) * B * T].mean()
        z = "+nan" if step < 2 else "-0.52"
        print(
            f"step {step + 1:4d}/{steps} | loss {loss:7.6f} ({z}z)| norm 1.2345 ({z}z)| lr"
            f" {float(flags['-l']):.2e} | {20 + step % 3:.2f} ms | 41.3% bf16 MFU | 123456 tok/s"
        )
        if step == 1:
            print("                  compute 99.0% | memory: 5.0% | fan:  0% | 1980 MHz / 1980 MHz")


main()
