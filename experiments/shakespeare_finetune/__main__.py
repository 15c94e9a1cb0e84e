"""Fine-tune a GPT-2 on tiny Shakespeare as llm.c does, from llm.c's files, and record the curve.

python -m experiments.shakespeare_finetune [--model gpt2_124M.bin] [--text FILE] [--backend NAME]

Without --model, a small one is trained on the standard library's source, and written as llm.c writes
its own. Where GPT-2's vocabulary cannot be had, tokens are bytes.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.machine.provenance import versions
from harness.run.folder import write_json_atomically
from harness.run.metrics import read

HERE = Path(__file__).parent
PRETRAINING_STEPS = 300


def run(*command: str, folder: Path) -> None:
    """One of the commands that a user would type."""
    print("$", *command, flush=True)
    subprocess.run([sys.executable, "-m", *command], cwd=folder, check=True)


def prepared(folder: Path, text: str | None) -> str:
    """Token files in `data`; returns the name of their tokenizer."""
    where = [f"path={Path(text).resolve()}"] if text else []
    for tokenizer in ("gpt2", "bytes"):
        command = ["data", "prepare", "tinyshakespeare", f"tokenizer={tokenizer}", "out=data"]
        try:
            run("harness.cli", *command, *where, folder=folder)
        except subprocess.CalledProcessError:
            continue
        return tokenizer
    raise SystemExit("tiny Shakespeare could not be prepared")


def small_model(folder: Path, tokenizer: str) -> str:
    """A model of 4 layers that has seen Python's source, as `small.bin`."""
    steps = f"steps={PRETRAINING_STEPS}"
    quiet = ["log_every=100", "validate_every=0", "sample.every=0", "baselines=false"]
    settings = ["model=tiny", f"data.tokenizer={tokenizer}", steps, "batch_size=4", *quiet]
    run("harness.train", *settings, "name=small", "checkpoint_every=0", folder=folder)
    (made,) = (folder / "runs").glob("small-*")
    run("harness.cli", "export", "llmc", str(made), "small.bin", folder=folder)
    return "small.bin"


def measured(folder: Path, model: str, backend: str) -> dict[str, Any]:
    """The fine-tuning itself: losses in nats per token, and a sample."""
    settings = [f"model_from={model}", "data.path=data", f"backend={backend}", "runs_dir=tuned"]
    run("harness.train", "experiment=shakespeare_finetune", *settings, folder=folder)
    (made,) = (folder / "tuned").iterdir()
    records = read(made / "metrics.jsonl")
    before, after = (r["loss"] for r in records if r["kind"] == "validation")
    steps = [r for r in records if r["kind"] == "step"]
    (sample,) = (r["text"] for r in records if r["kind"] == "sample")
    return {
        "validation_before": before,
        "validation_after": after,
        "losses": [r["loss"] for r in steps],
        "median_step_ms": sorted(r["step_ms"] for r in steps)[len(steps) // 2],
        "sample": sample,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a model of llm.c; GPT-2 124M has a known curve")
    parser.add_argument("--text", help="tiny Shakespeare; downloaded if left out")
    parser.add_argument("--backend", default="numpy")
    arguments = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = prepared(folder, arguments.text)
        given = arguments.model and str(Path(arguments.model).resolve())
        result = measured(folder, given or small_model(folder, tokenizer), arguments.backend)
    result["model"] = Path(given).name if given else "small, made by this command"
    result["tokenizer"], result["backend"] = tokenizer, arguments.backend
    result["command"] = "python -m experiments.shakespeare_finetune"
    result["versions"] = versions()
    write_json_atomically(HERE / f"record_{'given' if given else 'small'}.json", result)
    print(json.dumps({k: v for k, v in result.items() if k != "versions"}, indent=2))


if __name__ == "__main__":
    main()
