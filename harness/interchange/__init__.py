"""Stored models of others and of ours: read, written, turned into one another.

opening.py             any path -> a ModelFile: what it is, shape, tensors by the harness's names
model_file.py          what a ModelFile is
llmc/                  llm.c: model, debug state, tokenizer, the CUDA trainer's checkpoints
huggingface/           a folder that transformers reads and writes, or fetched by its name
peft.py                a LoRA adapter alone, as peft keeps it; peft_config.py: its settings
model_folder.py        the harness's own: model.safetensors and model.json
checkpoint_model.py    what a run has trained so far; initial_model.py: what one begins with
merged.py              any of these with an adapter added, or taken out again
starting_model.py      what `model_from` of a run names; newest_run.py: `auto`
commands.py            `harness import`, `export` and `adapter`

safetensors_file.py and stored_tensors.py are what several of them read with.
"""
