"""Every format that may come from a stranger: how a small whole one is made, and how it is read.

`make` writes it into a folder and returns what `read` takes; `read` reads all of it. `damaged` says
which files are mutated in turn.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.interchange.initial_model import InitialModel
from harness.models.gpt2 import GPT2
from harness.models.kinds import tensor_shapes
from harness.models.lora import Lora
from harness.tokenizers import get

MODEL = GPT2(layers=2, heads=2, channels=8, positions=8, vocab_size=300)
TEXT = "It was the best of times, it was the worst of times. " * 8


def itself(target: Path) -> list[Path]:
    return [target]


def files_inside(target: Path) -> list[Path]:
    return sorted(path for path in target.rglob("*") if path.is_file())


@dataclass(frozen=True)
class Format:
    make: Callable[[Path], Any]
    read: Callable[[Path], None]
    damaged: Callable[[Path], list[Path]] = itself


def tensors() -> dict[str, np.ndarray]:
    return {name: tensor(name) for name in tensor_shapes(MODEL)}


def tensor(name: str) -> np.ndarray:
    values = np.empty(tensor_shapes(MODEL)[name], np.float32)
    InitialModel(MODEL).read_into(name, values)
    return values


def read_model(path: Path) -> None:
    """All of a stored model: its shape, tokenizer and tensors."""
    from harness.interchange.opening import open_model

    with open_model(path) as source:
        if source.model.parameters > 100 * MODEL.parameters:
            raise AssertionError("a small file promised a model too large for it")
        for name, shape in tensor_shapes(source.model).items():
            source.read_into(name, np.empty(shape, np.float32))


def _llmc_model(dtype):
    def make(folder):
        from harness.interchange.llmc.model import write_llmc_model

        write_llmc_model(folder / "model.bin", InitialModel(MODEL), dtype)
        return folder / "model.bin"

    return make


def _read_llmc_model(path):
    from harness.interchange.llmc.model import LlmcModel

    with LlmcModel(path) as source:
        source.check()


def _make_debug_state(folder):
    from harness.interchange.llmc.debug_state import write_debug_state

    rng = np.random.default_rng(0)
    x_BT = rng.integers(0, 300, (2, 4)).astype(np.int32)
    logits_BTV = rng.standard_normal((2, 4, 300)).astype(np.float32)
    path = folder / "state.bin"
    write_debug_state(path, MODEL, x_BT, x_BT, logits_BTV, 5.7, tensor)
    return path


def _read_debug_state(path):
    from harness.interchange.llmc.debug_state import LlmcDebugState

    with LlmcDebugState(path, MODEL) as state:
        state.check()


def _make_llmc_tokenizer(folder):
    from harness.interchange.llmc.tokenizer import write_llmc_tokenizer

    pieces = [bytes([byte]) for byte in range(256)] + [b"the ", b"times, ", b"<|endoftext|>"]
    write_llmc_tokenizer(folder / "tokenizer.bin", pieces, 258)
    return folder / "tokenizer.bin"


def _read_llmc_tokenizer(path):
    from harness.interchange.llmc.tokenizer import read_llmc_tokenizer

    read_llmc_tokenizer(path)


def _make_optimizer_state(folder):
    from harness.interchange.llmc.optimizer import RankState, write_optimizer_state

    path = folder / "state.bin"
    write_optimizer_state([path], MODEL, 3, lambda moment, name: tensor(name), ranks=[RankState()])
    return path


def _read_optimizer_state(path):
    from harness.interchange.llmc.optimizer import LlmcOptimizerState

    with LlmcOptimizerState([path], MODEL) as state:
        state.check()


def _make_huggingface(folder):
    from harness.interchange.huggingface.writing import write_huggingface

    write_huggingface(folder / "hf", InitialModel(MODEL, tokenizer=None))
    return folder / "hf"


def _make_sharded(folder):
    """The same in two files and an index, as large models come."""
    from safetensors.numpy import load_file, save_file

    target = _make_huggingface(folder)
    whole = target / "model.safetensors"
    arrays, shards = load_file(whole), ({}, {})
    for number, (name, array) in enumerate(sorted(arrays.items())):
        shards[number % 2][name] = array
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, target / name, metadata={"format": "pt"})
    places = {k: n for n, shard in zip(names, shards, strict=True) for k in shard}
    total = sum(array.nbytes for array in arrays.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (target / "model.safetensors.index.json").write_text(json.dumps(index))
    whole.unlink()
    return target


def _make_model_folder(folder):
    from harness.interchange.model_folder import write_model_folder

    write_model_folder(folder / "model", InitialModel(MODEL, tokenizer=get("bytes")))
    return folder / "model"


LORA = Lora(rank=2, alpha=4.0, targets=("q", "v", "fc"))


def _make_adapter(folder):
    from harness.interchange.huggingface.peft import save_peft

    shapes = LORA.shapes(MODEL)
    rng = np.random.default_rng(0)
    arrays = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    save_peft(folder / "adapter", LORA, MODEL, arrays.__getitem__)
    return folder / "adapter"


def _read_adapter(path):
    from harness.interchange.huggingface.peft import load_peft

    load_peft(path, MODEL)


def _make_tokenizer_file(folder):
    from harness.data.tokenizer_file import write_tokenizer_file
    from harness.tokenizers.bpe_training import train_bpe

    write_tokenizer_file(folder / "tokenizer.json", train_bpe([TEXT], 280))
    return folder / "tokenizer.json"


def _read_tokenizer_file(path):
    from harness.data.tokenizer_file import read_tokenizer_file

    read_tokenizer_file(path).encode(TEXT)


def _make_token_file(folder):
    from harness.data import write_token_file

    write_token_file(folder / "tokens.bin", np.arange(700) % 300)
    return folder / "tokens.bin"


def _read_token_file(path):
    from harness.data import check_token_ids, read_token_file

    check_token_ids(read_token_file(path), 300, where=str(path))


def _make_safetensors(folder):
    from harness.files.disk import write_file
    from harness.files.tensor_file import encode

    write_file(folder / "model.safetensors", encode(tensors()))
    return folder / "model.safetensors"


def _read_safetensors(path):
    from harness.files.tensor_file import read

    read(path)


def _make_checkpoint(folder):
    from harness import checkpoint

    state = {"fingerprint": {}, "updates": 3, "tokenizer": get("bytes").to_dict()}
    return checkpoint.save(folder / "checkpoints", 3, {"model": tensors()}, state, 1)


def _read_checkpoint(path):
    from harness import checkpoint

    found = checkpoint.load(path)
    for group in found.groups:
        found.tensors(group)


FORMATS: dict[str, Format] = {
    "llmc_model_fp32": Format(_llmc_model("float32"), _read_llmc_model),
    "llmc_model_bf16": Format(_llmc_model("bfloat16"), _read_llmc_model),
    "llmc_debug_state": Format(_make_debug_state, _read_debug_state),
    "llmc_tokenizer": Format(_make_llmc_tokenizer, _read_llmc_tokenizer),
    "llmc_optimizer": Format(_make_optimizer_state, _read_optimizer_state),
    "llmc_tokens": Format(_make_token_file, _read_token_file),
    "huggingface": Format(_make_huggingface, read_model, files_inside),
    "huggingface_sharded": Format(_make_sharded, read_model, files_inside),
    "model_folder": Format(_make_model_folder, read_model, files_inside),
    "adapter": Format(_make_adapter, _read_adapter, files_inside),
    "tokenizer": Format(_make_tokenizer_file, _read_tokenizer_file),
    "safetensors": Format(_make_safetensors, _read_safetensors),
    "checkpoint": Format(_make_checkpoint, _read_checkpoint, files_inside),
}
