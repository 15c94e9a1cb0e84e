"""The dataclasses that a run is made of. Hydra fills them from `conf/` and stops here.

Every key that the command line may set is a field below; the keys of `ops` and `precision_of` are
made from the contract: `every_op`, each op, each half. The values stand in `conf/`. A field has a
default here only where a file of its group may leave the key out.
"""

from dataclasses import asdict, dataclass, field, make_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harness import ROOT
from harness.contract import core_ops
from harness.contract.precision import Precision
from harness.models.gpt2 import GPT2
from harness.models.lora import Lora
from harness.training.optimizer import OptimizerSettings
from harness.training.schedule import Schedule
from harness.training.training_plan import TrainerSettings


@dataclass(kw_only=True)
class DataConfig:
    """source: stdlib, tinyshakespeare, text, tokens or counting. tokenizer: bytes, char, bpe or
    gpt2; a file that ends in .json; auto, for tokens.
    """

    source: str
    path: str | None = None
    tokenizer: str = "bytes"
    bpe_vocab_size: int = 2000
    validation_fraction: float = 0.1
    shuffle: bool = True
    cache_dir: str = ".cache"


@dataclass(kw_only=True)
class ModelConfig:
    """vocab_size: the least; the tokenizer's is taken where it is larger. null: the tokenizer's.

    name: of the preset; runs are called by it.
    """

    name: str
    layers: int
    heads: int
    channels: int
    positions: int
    vocab_size: int | None
    init: str = "normal"
    attention: str = "attention"
    activation: str = "gelu"


@dataclass(kw_only=True)
class AdapterConfig:
    """name: none trains the model itself; lora freezes it, and trains low-rank pairs beside it."""

    name: str
    rank: int = 4
    alpha: float = 8.0
    targets: list[str] = field(default_factory=lambda: ["q", "v"])


@dataclass(kw_only=True)
class OptimizerConfig:
    name: str
    lr: float
    beta1: float = OptimizerSettings.beta1
    beta2: float = OptimizerSettings.beta2
    eps: float = OptimizerSettings.eps
    weight_decay: float
    momentum: float = OptimizerSettings.momentum
    decay: str = OptimizerSettings.decay


@dataclass(kw_only=True)
class ScheduleConfig:
    decay: str
    warmup_steps: int
    final_fraction: float = Schedule.final_fraction


@dataclass(kw_only=True)
class SampleConfig:
    """every: steps between samples, and one at the end; 0 takes none."""

    every: int
    prompt: str
    length: int
    temperature: float
    top_k: int | None


@dataclass(kw_only=True)
class CupyConfig:
    """Settings of the backend cupy, which its _options.py explains; null is the default."""

    matmul: str | None
    attention: str | None
    algorithm: str | None


@cache
def ops_config() -> type:
    """A dataclass with a key for every_op, each op and each half: the backend, or null to inherit."""
    ops = core_ops()
    keys = dict.fromkeys(["every_op", *ops, *ops.hooks])
    fields = [(key, str | None, field(default=None)) for key in keys]
    return make_dataclass("OpsConfig", fields)


@cache
def precision_config() -> type:
    """A dataclass with a key for each op: its precision, or null for the run's."""
    fields = [(op, str | None, field(default=None)) for op in core_ops()]
    return make_dataclass("PrecisionConfig", fields)


@dataclass(kw_only=True)
class RunConfig:
    """Everything about a run. Its values, and the reasons for them, stand in conf/config.yaml."""

    backend: str
    model_from: str | None
    optimizer_from: str | None
    precision: str
    rounding: str
    transfer: str
    threads: int | None
    blas_kernel: str
    recompute: str
    scratch_mib: int
    wrappers: list[str] = field(default_factory=list)
    seed: int
    steps: int
    batch_size: int
    sequence_length: int | None
    gradient_accumulation: int
    clip_norm: float | None
    loss_gradient: str
    on_nonfinite: str
    capture: str
    log_every: int
    validate_every: int
    validation_batches: int | None
    validate_at_start: bool
    final_validation_batches: int | None
    baselines: bool
    checkpoint_every: int
    keep_checkpoints: int
    resume: str
    runs_dir: str
    name: str
    model: ModelConfig
    data: DataConfig
    adapter: AdapterConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    sample: SampleConfig
    cupy: CupyConfig
    ops: Any = field(default_factory=lambda: ops_config()())
    precision_of: Any = field(default_factory=lambda: precision_config()())


def conf_dir() -> Path:
    """The folder of Hydra's groups: beside the package in a checkout, inside it in a wheel."""
    inside = ROOT / "harness" / "conf"
    return inside if inside.is_dir() else ROOT / "conf"


def sequence_length(run: RunConfig) -> int:
    """Tokens in a sequence: as configured, or the model's positions."""
    return run.sequence_length or run.model.positions


def model_of(run: RunConfig, tokenizer_vocab: int) -> GPT2:
    """The model of a run. tokenizer_vocab: tokens that the tokenizer knows."""
    shape = run.model
    return GPT2(
        layers=shape.layers,
        heads=shape.heads,
        channels=shape.channels,
        positions=shape.positions,
        vocab_size=max(shape.vocab_size or 0, tokenizer_vocab),
        init=shape.init,
        attention=shape.attention,
        activation=shape.activation,
    )


def adapter_of(run: RunConfig) -> Lora | None:
    """The adapter of a run; None where it trains the model itself."""
    adapter = run.adapter
    if adapter.name == "none":
        return None
    return Lora(adapter.rank, adapter.alpha, tuple(adapter.targets))


def precision_of(run: RunConfig) -> Precision:
    chosen = {op: policy for op, policy in _items(run.precision_of) if policy is not None}
    return Precision(run.precision, chosen, run.rounding)


def options_of(run: Any) -> dict[str, dict[str, str]]:
    """Backend -> the settings of its own that the configuration gives it."""
    given = {key: value for key, value in vars(run.cupy).items() if value is not None}
    return {"cupy": given}


def trainer_settings(run: RunConfig, model: GPT2) -> TrainerSettings:
    """What the trainer takes of a run."""
    optimizer = run.optimizer
    return TrainerSettings(
        model=model,
        batch_size=run.batch_size,
        sequence_length=sequence_length(run),
        ops=dict(_items(run.ops)),
        options=options_of(run),
        optimizer=OptimizerSettings(
            name=optimizer.name,
            beta1=optimizer.beta1,
            beta2=optimizer.beta2,
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
            momentum=optimizer.momentum,
            decay=optimizer.decay,
        ),
        precision=precision_of(run),
        gradient_accumulation=run.gradient_accumulation,
        clip_norm=run.clip_norm,
        loss_gradient=run.loss_gradient,
        transfer=run.transfer,
        recompute=run.recompute,
        scratch_bytes=run.scratch_mib * 2**20,
        on_nonfinite=run.on_nonfinite,
        capture=run.capture,
        wrappers=tuple(run.wrappers),
        seed=run.seed,
        adapter=adapter_of(run),
    )


def schedule_of(run: RunConfig) -> Schedule:
    schedule = run.schedule
    return Schedule(
        peak=run.optimizer.lr,
        steps=run.steps,
        warmup_steps=schedule.warmup_steps,
        decay=schedule.decay,
        final_fraction=schedule.final_fraction,
    )


def config_record(run: RunConfig) -> dict[str, Any]:
    """A run's configuration as plain data, with the ops of plugins that `+` added."""
    open_sections = {name: dict(_items(getattr(run, name))) for name in ("ops", "precision_of")}
    return {**asdict(run), **open_sections}


def config_text(run: RunConfig) -> str:
    """A run's configuration as YAML, every value resolved."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(config_record(run)))


def _items(section: Any) -> list[tuple[str, Any]]:
    return list(section.items()) if isinstance(section, dict) else list(vars(section).items())
