"""Folders of Hugging Face's transformers, read and written without it.

folder.py      a GPT-2 in one file or several, as a ModelFile
writing.py     a folder that GPT2LMHeadModel.from_pretrained loads
config.py      config.json: what changes the mathematics must be what we compute
names.py       their names of our tensors; linear weights are (in, out) there
weights.py     one safetensors file, or an index and shards
tokenizer.py   vocabulary and merges, for their tokenizers
hub.py         a folder by its name, fetched where there is a network
"""
