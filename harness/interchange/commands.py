"""`harness import` and `harness export`: a stored model of one kind, written as another.

Import gives the harness's own model folder, which keeps the tokenizer and the hash of the weights;
export gives what llm.c or transformers reads. Tensors pass one at a time.
"""

import argparse
import os
from pathlib import Path

from harness.errors import ConfigError, DataError, ResourceError
from harness.interchange.model_folder import already_there
from harness.interchange.newest_run import chosen_model
from harness.interchange.opening import open_model
from harness.models.model_file import ModelFile


def import_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `harness import`."""
    parser.add_argument("kind", choices=["llmc", "hf"])
    parser.add_argument("source", metavar="MODEL", help="model.bin; a folder, or a name on the hub")
    parser.add_argument("target", nargs="?", metavar="FOLDER", help="default: models/NAME")
    parser.set_defaults(run=_import)


def _import(arguments: argparse.Namespace) -> int:
    return run_import(arguments.kind, arguments.source, arguments.target)


def run_import(kind: str, source: str, target: str | None) -> int:
    """kind: `llmc` (a model .bin) or `hf` (a folder, or a name that is fetched)."""
    from harness.interchange.model_folder import write_model_folder

    path = _fetched(source) if kind == "hf" else Path(os.path.expanduser(source))
    if kind == "hf" and path.is_file():
        raise ConfigError(
            f"a model of Hugging Face is a folder, and this is a file: {source}",
            slug="import-of-another-kind",
            do=f"harness import hf {path.parent}"
            if (path.parent / "config.json").exists()
            else "the folder that save_pretrained wrote, with config.json and model.safetensors",
        )
    named = path.stem if path.is_file() else Path(os.path.expanduser(source)).name
    out = Path(os.path.expanduser(target or f"models/{named}"))
    with open_model(path) as stored:
        _check_kind(kind, stored)
        write_model_folder(out, stored)
        _describe(stored)
    print(f"wrote     {out}")
    print(f"next      python -m harness.generate model_from={out} prompt=...")
    return 0


def export_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `harness export`."""
    parser.add_argument("kind", choices=["llmc", "hf", "peft"])
    parser.add_argument(
        "source",
        metavar="MODEL",
        help="a run, `auto` (the newest), model.bin, a folder",
    )
    parser.add_argument("target", metavar="TARGET", help="a .bin (llmc), a new folder")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: as stored")
    parser.add_argument(
        "--state", action="store_true", help="llmc, of a run: the optimizer's moments as well"
    )
    parser.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> int:
    source, target, dtype = arguments.source, arguments.target, arguments.dtype
    return run_export(arguments.kind, source, target, dtype, with_state=arguments.state)


def run_export(
    kind: str, source: str, target: str, dtype: str | None, *, with_state: bool = False
) -> int:
    """kind: `llmc`, `hf`, or `peft` for the adapter of a run. dtype: None keeps the source's.

    with_state: of a run to llm.c, the set of files that its CUDA trainer resumes from.
    """
    _check_options(kind, dtype, with_state)
    out = Path(os.path.expanduser(target))
    _make_parent(out)
    if kind == "peft":
        return run_export_peft(source, target)
    if with_state:
        from harness.interchange.llmc.training import write_set_of_run

        made = write_set_of_run(chosen_model(source), out, dtype or "float32")
        print(
            f"wrote     {made.model}, {made.states[0].name} and DONE, after {made.step:,} updates"
        )
        return 0
    with open_model(chosen_model(source)) as stored:
        dtype = dtype or stored.dtype.name
        _describe(stored)
        if kind == "llmc":
            _export_llmc(out, stored, dtype)
        else:
            from harness.interchange.huggingface.writing import write_huggingface

            write_huggingface(out, stored, dtype)
    print(f"wrote     {out}")
    return 0


def run_export_peft(source: str, target: str) -> int:
    """The adapter alone that a run trained."""
    from contextlib import closing

    from harness.interchange.checkpoint_model import newest_checkpoint
    from harness.interchange.huggingface.peft import save_peft

    with closing(newest_checkpoint(chosen_model(source))) as stored:
        if stored.lora is None:
            raise ConfigError(
                f"the run trained no adapter: {source}",
                slug="run-without-adapter",
                do="python -m harness.train adapter=lora ...; or harness export hf, the whole model",
            )
        out = Path(os.path.expanduser(target))
        if out.exists():
            raise already_there(out)
        save_peft(out, stored.lora, stored.model, stored.adapter_tensor)
        print(f"adapter   {stored.lora.description(stored.model)}")
    print(f"wrote     {target}")
    return 0


def adapter_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `harness adapter`."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    for sign, text in ((1, "add an adapter to its base"), (-1, "take it away again")):
        action = actions.add_parser("merge" if sign > 0 else "unmerge", help=text)
        action.add_argument("base", metavar="MODEL")
        action.add_argument("adapter", metavar="ADAPTER", help="a folder in peft's layout")
        action.add_argument("target", metavar="FOLDER")
        action.set_defaults(run=_merge, sign=sign)


def _merge(arguments: argparse.Namespace) -> int:
    return run_merge(arguments.base, arguments.adapter, arguments.target, arguments.sign)


def run_merge(base: str, adapter: str, target: str, sign: int) -> int:
    """A model folder of the base with an adapter added (sign 1), or taken out again (-1)."""
    from harness.interchange.merged import with_adapter
    from harness.interchange.model_folder import write_model_folder

    out = Path(os.path.expanduser(target))
    with open_model(chosen_model(base)) as stored:
        result = with_adapter(stored, adapter, sign)
        write_model_folder(out, result)
        _describe(result)
    print(f"wrote     {out}")
    return 0


def _export_llmc(out: Path, stored: ModelFile, dtype: str) -> None:
    from harness.interchange.llmc.model import write_llmc_model
    from harness.interchange.llmc.tokenizer import beside, pieces_of, write_llmc_tokenizer

    if not out.name or out.exists():  # "." and "" are folders
        raise already_there(out)
    if beside(out).exists():
        raise already_there(beside(out))
    if dtype == "float16":  # as stored; llm.c has none
        dtype = "float32"
    write_llmc_model(out, stored, dtype)
    tokenizer = stored.tokenizer
    if tokenizer is None or tokenizer.name == "numbers":  # its tokens are no text
        return
    try:
        write_llmc_tokenizer(beside(out), pieces_of(tokenizer), tokenizer.end_of_text)
    except DataError as error:  # the model is what was asked for, and is there
        print(f"tokenizer not written: {error.headline}")
        return
    print(f"wrote     {beside(out)}")


def _make_parent(out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"folder can't be made: {out.parent}", slug="model-not-written", found=error
        ) from error


def _check_options(kind: str, dtype: str | None, with_state: bool) -> None:
    if (kind == "peft" and dtype) or (kind != "llmc" and with_state):
        raise ConfigError(
            f"harness export {kind} takes no {'--state' if with_state else '--dtype'}",
            slug="export-option",
            do="--state is of llmc, --dtype of llmc and hf",
        )


def _fetched(source: str) -> Path:
    from harness.interchange.huggingface.hub import resolve_huggingface

    return resolve_huggingface(source)


def _check_kind(kind: str, stored: ModelFile) -> None:
    expected = {"llmc": "llm.c", "hf": "Hugging Face"}[kind]
    if not stored.description.startswith(expected):
        raise ConfigError(
            f"this is no model of {expected}: {stored.path}",
            slug="import-of-another-kind",
            found=stored.description,
            do="model_from=PATH takes every kind as it is; harness export writes another",
        )


def _describe(stored: ModelFile) -> None:
    model, tokenizer = stored.model, stored.tokenizer
    print(f"model     {stored.description}")
    print(
        f"          {model.parameters:,} parameters: {model.layers} layers, {model.heads} heads, "
        f"{model.channels} channels, {model.positions:,} positions, vocabulary {model.vocab_size:,}"
    )
    print(f"tokenizer {tokenizer.name if tokenizer else _no_tokenizer(stored.path)}")


def _no_tokenizer(path: Path) -> str:
    for name in ("tokenizer.json", "vocab.json"):
        if (path / name).exists():
            return f"not read: of Hugging Face's {name} only GPT-2's own is known"
    return "not stored with it"
