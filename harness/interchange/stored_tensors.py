"""A model's tensors in a safetensors file under the harness's own names: shapes, values, padding."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.contract import Shape
from harness.errors import NumericsError
from harness.files.checkpoint_names import damaged
from harness.files.nonfinite import first_nonfinite
from harness.interchange.safetensors_file import SafetensorsFile
from harness.models.gpt2 import GPT2
from harness.models.kinds import tensor_shapes

STORED = ("float32", "bfloat16")


def check_tensors(
    file: SafetensorsFile, model: GPT2, adapter: Mapping[str, Shape] | None = None
) -> np.dtype:
    """The dtype of the model's tensors; CheckpointError unless the file has all, and only these.

    adapter: tensors that must be there as well, with their shapes.
    """
    if model.layers > len(file.entries):  # before a list of so many names is made
        expected = f"tensors of {model.layers:,} layers"
        raise damaged(file.path, expected=expected, found=f"{len(file.entries):,} tensors")
    own = tensor_shapes(model)
    wanted = own | dict(adapter or {})
    for name in (*wanted, *file.entries):
        entry = file.entries.get(name)
        found = None if entry is None else (*entry.shape,)
        if found != wanted.get(name):
            raise damaged(
                file.path,
                expected=f"{name} {wanted.get(name, 'not there')}",
                found=str("nothing" if found is None else found),
            )
    dtypes = {file.entries[name].dtype for name in own}
    if len(dtypes) != 1 or not dtypes <= set(STORED):
        raise damaged(file.path, expected=" or ".join(STORED), found=", ".join(sorted(dtypes)))
    return np.dtype(np.float32) if "float32" in dtypes else _bfloat16()


def read_finite(file: SafetensorsFile, model: GPT2, name: str, out: np.ndarray, path: Path) -> None:
    """Fill out with a tensor, its vocabulary padding zero. Raises NumericsError for NaN and infinity."""
    file.read_into(name, out)
    if name == "wte":
        out[model.vocab_size :] = 0
    index = first_nonfinite(out)
    if index is not None:
        raise NumericsError(
            f"the stored model holds a value that is not finite: {name}",
            slug="model-not-finite",
            where=path,
            found=f"{out[index]} at {index}",
            effect="not loaded",
        )


def _bfloat16() -> np.dtype:
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)
