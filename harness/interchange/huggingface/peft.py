"""A LoRA adapter alone, as the library peft keeps it: adapter_model.safetensors and its config.

    PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained("gpt2"), folder)

peft knows the packed attention weight as one module, `attn.c_attn`. The pairs of q, k and v become one
pair for it, of rank slices x r: A stacked, B with a block for each slice and zeros elsewhere. Its alpha
grows with its rank, so that alpha / rank is what it was.

    A = [a_q; a_v]        B = [b_q   0 ]  q
                              [ 0    0 ]  k        B · A  =  b_q · a_q in the rows of q, b_v · a_v in v's
                              [ 0   b_v]  v

Source: peft 0.21, LoraConfig and get_peft_model_state_dict.
"""

import itertools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from harness.errors import CheckpointError, ResourceError
from harness.files.checkpoint_names import damaged
from harness.files.disk import write_file
from harness.files.nonfinite import FLOATS
from harness.files.staging import whole_folder
from harness.interchange.huggingface.peft_config import (
    ADAPTER_CONFIG,
    PeftConfig,
    config_of,
    read_config,
)
from harness.interchange.safetensors_file import SafetensorsFile, write_safetensors
from harness.models.gpt2 import GPT2
from harness.models.lora import (
    ALPHAS,
    SLICES,
    TARGETS,
    Lora,
    check_pairs,
    inputs_of,
    is_alpha,
    pair_names,
)

ADAPTER_WEIGHTS = "adapter_model.safetensors"
MODULES = {
    "qkv": "attn.c_attn",
    "attproj": "attn.c_proj",
    "fc": "mlp.c_fc",
    "fcproj": "mlp.c_proj",
}
"""Kind of linear layer -> peft's name of it, within `transformer.h.3.`"""


def save_peft(
    folder: Path,
    lora: Lora,
    model: GPT2,
    read: Callable[[str], np.ndarray],
    base_model_name: str | None = None,
) -> None:
    """Write an adapter. After a failure there is the old folder or the new, whole.

    read: the adapter's parameter name -> its values. base_model_name: what the config says that the
        adapter was trained beside, a name on the hub or a folder; peft does not insist on it.
    Raises CheckpointError where arrays do not fit, NumericsError where they are not finite,
    ResourceError where the folder cannot be written or holds something else.
    """
    check_pairs(lora, model, read)
    tensors, arrays = [], []
    for layer in range(model.layers):
        for kind, module in MODULES.items():
            if not lora.adapts(kind):
                continue
            for half, values in zip("AB", packed(lora, model, kind, layer, read), strict=True):
                tensors.append((tensor_name(layer, module, half), "float32", values.shape))
                arrays.append(values)
    config = json.dumps(config_of(lora, MODULES, base_model_name), indent=2) + "\n"
    # What blocks of zeros cannot tell: in which slices a pair stands that is zero itself.
    metadata = {"format": "pt", "targets": ",".join(lora.targets)}
    pieces = (values.reshape(-1).view(np.uint8).data for values in arrays)
    try:
        _check_folder(folder)
        with whole_folder(folder) as stage:
            write_safetensors(stage / ADAPTER_WEIGHTS, tensors, pieces, metadata)
            write_file(stage / ADAPTER_CONFIG, [config.encode()])
    except OSError as error:
        raise ResourceError(
            f"the adapter can't be written: {folder}", slug="adapter-not-written", found=error
        ) from error


def tensor_name(layer: int, module: str, half: str) -> str:
    """peft's name of half of a pair. half: A or B."""
    return f"base_model.model.transformer.h.{layer}.{module}.lora_{half}.weight"


def packed(
    lora: Lora, model: GPT2, kind: str, layer: int, read: Callable[[str], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of a kind of layer as one: A (slices x r, in) and B (out, slices x r), float32."""
    targets = lora.of_kind(kind)
    r = lora.rank
    _, outputs = TARGETS[kind].rows(model)
    A = np.empty((len(targets) * r, inputs_of(kind, model)), "<f4")
    B = np.zeros((outputs, len(targets) * r), "<f4")
    for i, target in enumerate(targets):
        a, b = (read(name) for name in pair_names(target, layer))
        first, count = TARGETS[target].rows(model)
        A[i * r : (i + 1) * r] = a
        B[first : first + count, i * r : (i + 1) * r] = b
    return A, B


def load_peft(folder: Path, model: GPT2) -> tuple[Lora, dict[str, np.ndarray]]:
    """An adapter that save_peft or peft has written, and its arrays by the parameters' names, float32.

    A pair of the packed `attn.c_attn` whose B is blocks, each in the rows of q, k or v alone, is pairs
    of these; any other is one pair of the whole weight, `qkv`. Dropout is of training, and is not kept.
    Raises CheckpointError for a file that is damaged, does not fit the model, or is not plain LoRA;
    NumericsError where a value is not finite.
    """
    if not os.path.lexists(folder / ADAPTER_CONFIG) and not os.path.lexists(
        folder / ADAPTER_WEIGHTS
    ):
        of_a_run = folder / "adapter"
        raise CheckpointError(
            f"there is no adapter at {folder}",
            slug="adapter-missing",
            expected=f"a folder with {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}",
            do=f"{of_a_run}   the one that the run trained" if of_a_run.is_dir() else None,
        )
    path = folder / ADAPTER_WEIGHTS
    config = read_config(folder / ADAPTER_CONFIG)
    with SafetensorsFile(path) as file:
        written = _written_targets(file)
        found = _kinds(file, model)
        _check(file, config, model, found)
        halves = {(kind, half): _read(file, kind, half, model) for kind in found for half in "AB"}
    parts: dict[str, tuple[str, ...]] = {kind: (kind,) for kind in found}
    if "qkv" in parts:
        parts["qkv"] = _slices(halves["qkv", "B"], model, written) or ("qkv",)
    lora = _one_lora(path, config, parts)
    arrays: dict[str, np.ndarray] = {}
    for kind, targets in parts.items():
        for layer, (A, B) in enumerate(zip(halves[kind, "A"], halves[kind, "B"], strict=True)):
            for i, target in enumerate(targets):
                columns = slice(i * lora.rank, (i + 1) * lora.rank)
                first, count = TARGETS[target].rows(model)
                a, b = pair_names(target, layer)
                arrays[a] = A[columns].copy()
                arrays[b] = B[first : first + count, columns].copy()
    check_pairs(lora, model, arrays.__getitem__)
    return lora, arrays


def _module(layer: int, kind: str) -> str:
    return f"transformer.h.{layer}.{MODULES[kind]}"


def _kinds(file: SafetensorsFile, model: GPT2) -> list[str]:
    """The kinds of layers that a file adapts. Every tensor of it must be half of a pair of ours."""
    known = {
        tensor_name(layer, module, half): kind
        for layer in range(model.layers)
        for kind, module in MODULES.items()
        for half in "AB"
    }
    for name in file.entries:
        if name not in known:
            raise _misfit(
                file.path,
                "pairs of attn.c_attn, attn.c_proj, mlp.c_fc and mlp.c_proj",
                f"{name[:120]}, and the model has {model.layers} layers",
            )
    found = {known[name] for name in file.entries}
    if not found:
        raise _misfit(file.path, "at least one pair", "none")
    return [kind for kind in MODULES if kind in found]


def _check(file: SafetensorsFile, config: PeftConfig, model: GPT2, kinds: list[str]) -> None:
    """Every layer has the same pairs, of the model's shapes and of the ranks that the config says."""
    for kind in kinds:
        rank, scale = config.rank_of(_module(0, kind)), config.scale_of(_module(0, kind))
        for layer in range(model.layers):
            module = _module(layer, kind)
            if config.rank_of(module) != rank or not _close(config.scale_of(module), scale):
                raise _differ(file.path, f"{module} has another rank or alpha than layer 0")
            shapes = {
                "A": (rank, inputs_of(kind, model)),
                "B": (TARGETS[kind].rows(model)[1], rank),
            }
            for half, shape in shapes.items():
                name = tensor_name(layer, MODULES[kind], half)
                entry = file.entries.get(name)
                if entry is None:
                    raise _misfit(file.path, name, "no such tensor")
                if entry.shape != shape or entry.dtype not in FLOATS:
                    raise _misfit(
                        file.path,
                        f"{name}: floating point of shape {shape}",
                        f"{entry.dtype} of shape {entry.shape}",
                    )


def _read(file: SafetensorsFile, kind: str, half: str, model: GPT2) -> list[np.ndarray]:
    """One half of the pairs of a kind, layer by layer, float32."""
    arrays = []
    for layer in range(model.layers):
        name = tensor_name(layer, MODULES[kind], half)
        array = np.empty(file.entries[name].shape, np.float32)
        with np.errstate(over="ignore"):  # a float64 beyond float32 is found as not finite
            file.read_into(name, array)
        arrays.append(array)
    return arrays


def _written_targets(file: SafetensorsFile) -> tuple[str, ...]:
    """The slices that save_peft noted; whatever is noted is believed only where the blocks allow it."""
    noted = file.metadata().get("targets")
    words = noted.split(",") if isinstance(noted, str) else []
    return tuple(name for name in SLICES if name in words)


def _slices(
    B_of_layers: list[np.ndarray], model: GPT2, written: tuple[str, ...]
) -> tuple[str, ...] | None:
    """Which of q, k and v the blocks of B's columns stand for; None where it is not made of blocks.

    written: what the file itself says.
    """
    total = B_of_layers[0].shape[1]
    choices = [written, *(c for n in (3, 2, 1) for c in itertools.combinations(SLICES, n))]
    for targets in choices:
        if not targets or total % len(targets):
            continue
        # A block of zeros could stand anywhere: only the file itself can say where.
        shown = targets != written
        if all(
            _stands_in([B[:, columns] for B in B_of_layers], *TARGETS[target].rows(model), shown)
            for target, columns in zip(targets, _blocks(total, len(targets)), strict=True)
        ):
            return targets
    return None


def _blocks(total: int, count: int) -> list[slice]:
    width = total // count
    return [slice(i * width, (i + 1) * width) for i in range(count)]


def _stands_in(blocks: list[np.ndarray], first: int, count: int, shown: bool) -> bool:
    """Whether blocks are zero outside of some rows, and (shown) somewhere not zero inside."""
    outside = any(b[:first].any() or b[first + count :].any() for b in blocks)
    return not outside and (not shown or any(b.any() for b in blocks))


def _one_lora(path: Path, config: PeftConfig, parts: dict[str, tuple[str, ...]]) -> Lora:
    """The one rank and alpha of all pairs. parts: kind of layer -> its targets."""
    found = {}
    for kind, targets in parts.items():
        module, count = _module(0, kind), len(targets)
        found[kind] = config.rank_of(module) // count, config.alpha_of(module) / count
    # A whole layer's alpha is as it was written; that of slices was multiplied, and divided again.
    rank, alpha = found[min(found, key=lambda kind: len(parts[kind]))]
    if not is_alpha(alpha):
        raise damaged(
            path.with_name(ADAPTER_CONFIG), expected=f"an alpha of {ALPHAS}", found=f"{alpha:g}"
        )
    for kind, (r, other) in found.items():
        if r != rank or not _close(other, alpha):
            raise _differ(
                path, f"{kind} has rank {r} and alpha {other:g}, others {rank} and {alpha:g}"
            )
    return Lora(rank, alpha, tuple(target for targets in parts.values() for target in targets))


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-12)  # some roundings of float64


def _misfit(path: Path, expected: str, found: str) -> CheckpointError:
    return CheckpointError(
        f"the adapter's tensors do not fit the model: {path.name}",
        slug="adapter-tensors-misfit",
        where=path,
        expected=expected,
        found=found,
        do="the model that it was trained beside",
    )


def _differ(path: Path, found: str) -> CheckpointError:
    return CheckpointError(
        f"an adapter has one rank and one alpha here: {path.name}",
        slug="adapter-ranks-differ",
        where=path,
        found=found,
        do="merge it in peft (merge_and_unload), and import the model",
    )


def _check_folder(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not _holds_an_adapter(folder)):
        raise ResourceError(
            f"there is something else at {folder}",
            slug="adapter-folder-taken",
            expected="no such folder, an empty one, or one with an adapter, which is replaced",
            effect="nothing was written",
        )


def _holds_an_adapter(folder: Path) -> bool:
    """Whether there is nothing in a folder but an adapter, so that it can be replaced."""
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else {""}
    return names <= {ADAPTER_CONFIG, ADAPTER_WEIGHTS}
