"""A checkpoint of each format version that was ever written still loads; golden/ is never rewritten."""

from pathlib import Path

import ml_dtypes
import numpy as np

from harness import checkpoint

GOLDEN = Path(__file__).parent / "golden"


def test_version_1_loads():
    found, ignored = checkpoint.newest(GOLDEN / "version-1")
    assert ignored == []
    assert found.step == 3
    assert found.state == {"data_position": 96, "loss_window": [4.25, 4.125], "seed": 1337}
    model, optimizer = found.tensors("model"), found.tensors("optimizer")
    np.testing.assert_array_equal(
        model["wte"], np.arange(6, dtype=np.float32).reshape(2, 3) / 4, strict=True
    )
    np.testing.assert_array_equal(model["bias"], np.array([1, -2], ml_dtypes.bfloat16), strict=True)
    np.testing.assert_array_equal(optimizer["step"], np.array(3, np.int64), strict=True)
