"""`python -m harness.generate [key=value ...]`: continue text with a GPT-2; `--help` lists the keys.

Text goes to standard output; everything about it (model, tokenizer, speed) to standard error. One text
appears token by token; several, each when its batch is done, under a line that says which it is.

Exit codes: 0 done; 2 config, 3 data, 4 checkpoint, 5 plugin, 6 numerics, 7 resources; 130 after Ctrl-C.
"""

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from harness.errors import HarnessError, out_of_memory, report

if TYPE_CHECKING:
    from harness.generation.settings import GenerateConfig

SMALLER = "batch_size=1 or a smaller length"
USAGE = """\
Continue text with a GPT-2, each op on the backend that you choose.

  python -m harness.generate prompt="Once upon a time"               with the newest run's model
  python -m harness.generate model_from=gpt2_124M.bin prompt="..."   with a model of llm.c
  python -m harness.generate prompt=-                                ask for prompts, one after another
  python -m harness.generate prompts='["one", "two, three"]' samples=2 out=texts.jsonl

Keys and their values (change one with key=value); ops.NAME=BACKEND chooses a backend for one op:

"""


def main(*, is_command: bool = False) -> int:
    """Check the command line, then generate. Returns the exit code; errors have their one shape.

    is_command: this process is `python -m harness.generate`, which blas_kernel=library may start again.
    """
    from harness import __version__
    from harness.generation.settings import read_arguments
    from harness.machine.reexec import start_again_if_asked

    try:
        flags, config = read_arguments(sys.argv[1:])
        if "--version" in flags:
            print(f"harness {__version__}")
            return 0
        if flags:
            print(help_text())
            return 0
        start_again_if_asked([config.blas_kernel], is_command=is_command)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal that does not know a character
        return execute(config)
    except HarnessError as error:
        return report(error)
    except MemoryError as error:
        return report(out_of_memory(error, SMALLER))
    except BrokenPipeError:
        # The reader of a pipe has seen enough; nothing may be written at the exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def execute(config: "GenerateConfig") -> int:
    """Generate what a checked configuration asks for. Returns the exit code; raises HarnessError."""
    from harness.generation.answers import Answers
    from harness.generation.generator import Generator
    from harness.generation.prompting import Prompting, check_name
    from harness.generation.results import Results
    from harness.generation.settings import prompts_of
    from harness.interchange.merged import with_adapter
    from harness.interchange.newest_run import chosen_model
    from harness.interchange.opening import open_model
    from harness.machine.computed_with import computed_with
    from harness.machine.threads import using_threads
    from harness.run.resume import shown

    # What is cheap to check is checked first: weights may take a while.
    texts = [] if config.is_interactive else prompts_of(config)
    check_name(config.tokenizer)
    path = chosen_model(config.model_from, config.runs_dir)
    results = Results(config, path)
    with open_model(path) as source:
        if config.adapter_from is not None:
            source = with_adapter(source, config.adapter_from)
        say(f"model      {shown(path)}: {source.description}")
        prompting = Prompting(source, config.tokenizer, config.stop != "never", say)
        prompts = [prompting.encode(text, f"prompt {i + 1}") for i, text in enumerate(texts)]
        longest = max(map(len, prompts), default=None)
        rows = config.samples * max(1, len(prompts))
        generator = Generator(config, source, prompting, rows, longest, say)
    answers = Answers(generator, results, say)
    with using_threads(config.threads, generator.backends) as threads:
        for line in computed_with(threads, generator.backends, config.blas_kernel).lines(width=11):
            say(line)
        try:
            return answers.converse() if config.is_interactive else answers.to_prompts(prompts)
        finally:
            say(generator.spent.line())


def help_text() -> str:
    """Usage, then conf/generate.yaml from its first key on: each with its value and meaning."""
    from harness.config.config import conf_dir

    values = (conf_dir() / "generate.yaml").read_text(encoding="utf-8").partition("_self_\n")[2]
    return USAGE + "\n".join(f"  {line}" for line in values.strip().splitlines())


def say(text: str) -> None:
    """A line about the text, on standard error."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(is_command=True))
