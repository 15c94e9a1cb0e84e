"""Does a mix of backends compute GPT-2? Answered against a state that something else wrote.

bounds.py          how far a result may be off, and why
difference.py      one array against another: relative L2, and the worst element
state_check.py     logits, loss and the sixteen gradients against an llm.c debug state
steps_check.py     ten AdamW steps against float64, or against llm.c's published losses
float64.py         a GPT-2 in float64 from end to end: the referee
seeded_model.py    weights that let no bug hide
write.py           a model and its debug state, from the referee
check.py           one verification, row by row
options.py         its part of the command line
commands.py        `harness verify` and `harness verify write`
"""

from harness.verify.commands import run_verify, run_verify_write

__all__ = ["run_verify", "run_verify_write"]
