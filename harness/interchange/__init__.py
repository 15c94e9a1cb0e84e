"""Stored models of others and of ours: read, written, turned into one another.

opening.py             any path -> a ModelFile: what it is, shape, tensors by the harness's names
model_file.py          what a ModelFile is
llmc_*.py              llm.c: model, debug state, tokenizer, the CUDA trainer's optimizer state
huggingface.py         a folder that transformers reads and writes; hub.py fetches one by name
peft.py                a LoRA adapter alone, as peft keeps it
model_folder.py        the harness's own: model.safetensors and model.json
"""
