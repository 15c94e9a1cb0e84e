"""The next token: logits from a cache, draws, rows that go on."""
