"""Load and convert a model of GPT-2 124M's size, and record the peak memory and time of each.

python -m experiments.model_files
"""

import filecmp
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.machine.provenance import versions
from harness.run.folder import write_json_atomically

HERE = Path(__file__).parent
SHAPE = "layers=12, heads=12, channels=768, positions=1024, vocab_size=50257"

# Each runs in a process of its own: peak memory is the process's.
SOURCES = {
    "write": """
        from harness.interchange.initial_model import InitialModel
        from harness.interchange.llmc.model import write_llmc_model
        from harness.models.gpt2 import GPT2
        write_llmc_model(argument, InitialModel(GPT2({shape})))
    """,
    "load": """
        from harness.contract import core_ops
        from harness.device import HOST
        from harness.interchange.opening import open_model
        from harness.models.gpt2 import build
        from harness.execution.parameters import Parameters
        with open_model(argument) as source:
            parameters = Parameters(build(core_ops(), source.model, 1, 1)[0], HOST)
            parameters.load(source)
    """,
    "command": """
        from harness.cli import main
        assert main(argument.split()) == 0
    """,
    "generate": """
        sys.argv = ["generate", *argument.split()]
        from harness.generate import main
        assert main() == 0
    """,
}
FRAME = """
import resource, sys
argument = sys.argv[1]
{source}
print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def measured(what: str, argument: str, folder: Path) -> dict[str, float]:
    """Peak resident memory in bytes and seconds of one process."""
    lines = SOURCES[what].replace("{shape}", SHAPE).splitlines()
    source = FRAME.format(source="\n".join(line[8:] for line in lines))
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", source, argument], cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{what} {argument}: {done.stderr}")
    seconds = time.perf_counter() - started
    return {"peak_bytes": int(done.stderr.split()[-1]), "seconds": round(seconds, 2)}


def main() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        records = {"write model.bin": measured("write", "model.bin", folder)}
        size = (folder / "model.bin").stat().st_size
        records["load model.bin"] = measured("load", "model.bin", folder)
        for title, command in {
            "export hf": "export hf model.bin hf",
            "export llmc bfloat16": "export llmc model.bin bf16.bin --dtype bfloat16",
            "import hf": "import hf hf ours",
        }.items():
            records[title] = measured("command", command, folder)
        records["load hf folder"] = measured("load", "hf", folder)
        records["load bf16.bin"] = measured("load", "bf16.bin", folder)
        records["load model folder"] = measured("load", "ours", folder)
        records["export llmc again"] = measured("command", "export llmc ours again.bin", folder)
        # Block by block: a child begins with the peak of its parent.
        same = filecmp.cmp(folder / "again.bin", folder / "model.bin", shallow=False)
        settings = "model_from=model.bin tokenizer=gpt2 prompt=Hello length=8 temperature=0"
        records["generate 8 tokens"] = measured("generate", settings, folder)
    for record in records.values():
        record["of_the_file"] = round(record["peak_bytes"] / size, 3)
    result = {
        "command": "python -m experiments.model_files",
        "file_bytes": size,
        "model.bin -> hf -> ours -> again.bin is byte-identical": same,
        "records": records,
        "versions": versions(),
    }
    write_json_atomically(HERE / "record.json", result)
    print(json.dumps({k: v for k, v in result.items() if k != "versions"}, indent=2))


if __name__ == "__main__":
    main()
