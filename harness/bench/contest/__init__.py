"""Whole training steps, beside PyTorch and llm.c, in turns."""
