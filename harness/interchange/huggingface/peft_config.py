"""Write and read peft's adapter_config.json: ranks, alphas, and whatever would change what is computed.

An option that we do not know is read where it is off; with a value it is refused by name, and so are
values that we do not compute of those that we know. They are not ignored: an adapter trained with an
option and loaded without it would be another adapter.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import CheckpointError, shortened
from harness.files.checkpoint_names import damaged
from harness.files.json_file import read_json
from harness.models.lora import Lora

ADAPTER_CONFIG = "adapter_config.json"
MAX_BYTES = 1 << 20
MAX_RANK = (1 << 31) - 1

# How and by whom it was trained, not what it computes; and what acts only through an option that is off.
OF_NO_EFFECT = frozenset(
    (
        *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision"),
        *("task_type", "lora_dropout", "megatron_core", "qalora_group_size"),
        "fan_in_fan_out",  # how the base keeps its weight: peft sees for itself that GPT-2's is turned
        "target_modules",  # said by the tensors too
    )
)
READ = frozenset(("r", "lora_alpha", "rank_pattern", "alpha_pattern"))
PLAIN_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", re.ASCII)


@dataclass(frozen=True)
class PeftConfig:
    """r, alpha: of modules that no pattern names.

    ranks, alphas: a module's name, or how it ends -> its own.
    """

    r: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]

    def rank_of(self, module: str) -> int:
        return _first_match(self.ranks, module, self.r)

    def alpha_of(self, module: str) -> float:
        return _first_match(self.alphas, module, self.alpha)

    def scale_of(self, module: str) -> float:
        """alpha / rank of a module: `transformer.h.3.attn.c_attn`."""
        return self.alpha_of(module) / self.rank_of(module)


def config_of(
    lora: Lora, modules: Mapping[str, str], base_model_name: str | None
) -> dict[str, Any]:
    """The configuration of an adapter. modules: kind of layer -> peft's name."""
    adapted = {kind: lora.of_kind(kind) for kind in modules if lora.adapts(kind)}
    packed = {modules[kind]: len(targets) for kind, targets in adapted.items() if len(targets) > 1}
    if len(adapted) == 1:
        # One rank for all: the plainest file.
        base, packed = next(iter(packed.values()), 1), {}
    else:
        base = 1
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model_name,
        "target_modules": [modules[kind] for kind in adapted],
        "r": base * lora.rank,
        "lora_alpha": _plain(base * lora.alpha),
        "rank_pattern": {module: count * lora.rank for module, count in packed.items()},
        "alpha_pattern": {module: _plain(count * lora.alpha) for module, count in packed.items()},
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": True,  # transformers' Conv1D keeps its weight as (in, out)
        "init_lora_weights": True,
        "use_dora": False,
        "use_rslora": False,
        "modules_to_save": None,
        "inference_mode": True,
    }


def read_config(path: Path) -> PeftConfig:
    """The ranks and alphas of an adapter. Raises CheckpointError for what is not plain LoRA."""
    config = _read_settings(path)
    _refuse_options(config, path)
    r: Any = config.get("r")
    alpha: Any = config.get("lora_alpha")
    if not _is_rank(r):
        raise damaged(path, expected="r, a rank of 1 or more", found=shortened(r))
    if not _is_number(alpha):
        raise damaged(
            path, expected="lora_alpha, a finite number other than 0", found=shortened(alpha)
        )
    ranks = _pattern(config, "rank_pattern", _is_rank, path)
    alphas = _pattern(config, "alpha_pattern", _is_number, path)
    return PeftConfig(r, float(alpha), ranks, {k: float(v) for k, v in alphas.items()})


def _read_settings(path: Path) -> dict[str, Any]:
    config = read_json(path, MAX_BYTES)
    if not isinstance(config, dict):
        raise damaged(path, expected="an object of settings", found=shortened(config))
    return config


def _refuse_options(config: dict[str, Any], path: Path) -> None:
    plain = {"peft_type": "LORA", "bias": "none"}
    for name, wanted in plain.items():
        found = config.get(name, "none" if name == "bias" else None)
        if found != wanted:
            raise _unsupported(path, name, found, wanted)
    for name, found in config.items():
        if name == "init_lora_weights":
            if not _leaves_the_base(found):
                raise _unsupported(path, name, found, "true, false or gaussian")
        elif name not in OF_NO_EFFECT | READ | plain.keys() and not _is_off(found):
            raise _unsupported(path, name, found, "not set")


def _leaves_the_base(begins: object) -> bool:
    """Whether pairs that begin so stand beside the weights as they were; pissa, olora change them."""
    return begins is None or isinstance(begins, bool) or str(begins).lower() == "gaussian"


def _is_off(value: object) -> bool:
    """None, false and empty all mean no. 0 does not: it may be a layer's number."""
    return value is None or value is False or value in ("", [], {})


def _unsupported(path: Path, name: str, found: object, wanted: str) -> CheckpointError:
    return CheckpointError(
        f"this kind of adapter is not computed here: {shortened(name)}={shortened(found)}",
        slug="adapter-unsupported",
        where=path,
        expected=f"{shortened(name)}: {wanted}",
        do="merge it in peft (merge_and_unload), and import the model",
    )


def _pattern(config: dict[str, Any], name: str, holds: Any, path: Path) -> dict[str, Any]:
    """peft takes each key for a regular expression; a plain name is one that means itself."""
    found = config.get(name) or {}
    if not isinstance(found, dict):
        raise damaged(path, expected=f"{name}, an object", found=shortened(found))
    for key, value in found.items():
        if not PLAIN_NAME.fullmatch(key):
            raise _unsupported(path, name, key, "names of modules, and no other expressions")
        if not holds(value):
            raise damaged(path, expected=f"numbers in {name}", found=shortened(value))
    return found


def _first_match(pattern: Mapping[str, Any], module: str, otherwise: Any) -> Any:
    for key, value in pattern.items():
        if module == key or module.endswith(f".{key}"):
            return value
    return otherwise


def _is_rank(value: object) -> bool:
    return type(value) is int and 1 <= value <= MAX_RANK


def _is_number(value: object) -> bool:
    if type(value) is int:
        return 0 < abs(value) < 1 << 53
    return type(value) is float and math.isfinite(value) and value != 0


def _plain(value: float) -> int | float:
    """8 and not 8.0: peft declares an integer."""
    return int(value) if value == int(value) else value
