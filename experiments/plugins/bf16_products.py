"""How fast are bfloat16 products on this processor, as PyTorch makes them and taken up to float32?

python experiments/plugins/bf16_products.py    (with harness-torch installed)
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

WAYS = ("bfloat16", "float32")
N, I, O = 256, 768, 2304
REPEATS = 7


def main() -> None:
    found = {}
    for way in WAYS:
        environment = {**os.environ, "HARNESS_TORCH_BF16": way}
        command = [sys.executable, __file__, "measure"]
        found[way] = json.loads(subprocess.check_output(command, env=environment, text=True))
        print(way, found[way])
    result = {"command": "python experiments/plugins/bf16_products.py", "shape": [N, I, O], **found}
    (Path(__file__).parent / "record_bf16_products.json").write_text(
        json.dumps(result, indent=1) + "\n"
    )


def measure() -> None:
    import torch
    from harness_torch import matmul
    from harness_torch._processor import describe

    x_NI, weight_OI, dout_NO = (
        torch.randn(*shape).to(torch.bfloat16) for shape in ((N, I), (O, I), (N, O))
    )
    out_NO, dx_NI = torch.empty_like(dout_NO), torch.empty_like(x_NI)
    dweight_OI = torch.zeros(O, I)

    def backward(dx, dweight):
        matmul.matmul_backward(dx, dweight, None, dout_NO, x_NI, weight_OI, False)

    calls = {
        "out = x · weightᵀ": lambda: matmul.matmul_forward(out_NO, x_NI, weight_OI, None),
        "dx = dout · weight": lambda: backward(dx_NI, None),
        "dweight = doutᵀ · x": lambda: backward(None, dweight_OI),
    }
    speeds = {name: round(2e-9 * N * I * O / seconds(call), 1) for name, call in calls.items()}
    print(json.dumps({"libraries": describe(), "gflops": speeds}))


def seconds(call) -> float:
    """The least of a few calls, after one that is not counted: other programs only add time."""
    call()
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


if __name__ == "__main__":
    measure() if sys.argv[1:] == ["measure"] else main()
