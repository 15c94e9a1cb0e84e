"""What `python -m harness.generate` is made of, in the order of use.

settings.py       its keys, their bounds, its prompts
prompting.py      text to token ids and back, by the tokenizer that came with the model
generator.py      a stored model in memory, and a decoder for a batch of rows
continuation.py   the rows of a batch, token by token
text_stream.py    text as its bytes become whole
answers.py        one text as it comes, several batch by batch, an answer to each line typed
results.py        what was made, with its settings, in a file

Logits are made in harness/decoding/decoder.py; a token is drawn in harness/decoding/sampling.py.
"""
