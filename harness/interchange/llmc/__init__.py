"""llm.c's files. Every kind begins with the same header, and has one possible size.

header.py          256 four-byte integers: magic number, version, sizes
file.py            numbers read against the size that the file had; files written whole
layout.py          where each tensor stands: kind by kind, layer by layer
model.py           a model, float32 (version 3) or bfloat16 (version 5)
debug_state.py     one batch with the logits, loss and gradients of a right program
tokenizer.py       the bytes of each token
optimizer.py       moments and master weights of the CUDA trainer, of one rank or of many
shuffle.py         the order in which its loader reads
checkpoint_set.py  model, states and DONE of one step
training.py        a run that goes on where the CUDA trainer stopped, and the other way
"""
