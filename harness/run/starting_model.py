"""The stored model that a run begins with, where `model_from` names one."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

from harness.config.config import RunConfig
from harness.errors import ConfigError
from harness.interchange.merged import MergedModel
from harness.interchange.newest_run import chosen_model
from harness.interchange.opening import open_model
from harness.models.gpt2 import GPT2, SIZES, STANDARD_OPS
from harness.models.model_file import ModelFile
from harness.tokenizers import Tokenizer


@contextmanager
def starting_model(run: RunConfig) -> Iterator[tuple[RunConfig, ModelFile | None]]:
    """The run with the stored model's shape, and that model, open; (run, None) without model_from."""
    if run.model_from is None:
        yield run, None
        return
    with open_model(chosen_model(run.model_from, run.runs_dir)) as source:
        if run.adapter.name != "none" and isinstance(source, MergedModel):
            raise ConfigError(
                f"model_from={run.model_from} has an adapter already, and adapter={run.adapter.name}",
                slug="adapter-twice",
                effect="the new adapter would belong to a sum that no file holds",
                do=f"harness export hf {run.model_from} FOLDER, and model_from=FOLDER",
            )
        yield with_shape(run, source.model), source


def with_shape(run: RunConfig, model: GPT2) -> RunConfig:
    """The run, its model of a stored one's shape, and with its ops where they are not GPT-2's own.

    Raises ConfigError where the run names other ones.
    """
    changes = {size: getattr(model, size) for size in SIZES}
    for place, standard in STANDARD_OPS.items():
        stored, wanted = getattr(model, place), getattr(run.model, place)
        if stored == standard:
            continue
        if wanted not in (standard, stored):
            raise ConfigError(
                f"model.{place}={wanted}, and the stored model was trained with {stored}",
                slug="ops-of-another-model",
                do=f"leave model.{place} out",
            )
        changes[place] = stored
    return dataclasses.replace(run, model=dataclasses.replace(run.model, **changes))


def check_tokenizer(source: ModelFile, tokenizer: Tokenizer) -> None:
    """Refuse data whose token ids mean something else to the stored model."""
    own = source.tokenizer
    if own is not None and own.sha256 != tokenizer.sha256:
        raise ConfigError(
            f"the data is in tokens of '{tokenizer.name}', the model in those of '{own.name}'",
            slug="tokenizer-of-another-model",
            where=source.path,
            effect="its embeddings would stand for other text",
            do=f"data.tokenizer={own.name}, or tokens made with the model's own tokenizer",
        )
    if tokenizer.vocab_size > source.model.vocab_size:
        raise ConfigError(
            f"the data's tokenizer knows {tokenizer.vocab_size:,} tokens, "
            f"the model {source.model.vocab_size:,}",
            slug="tokenizer-larger-than-model",
            where=source.path,
            do="data.tokenizer=NAME of the one that the model was trained with",
        )
