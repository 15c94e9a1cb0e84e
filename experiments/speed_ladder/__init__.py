"""Is a training step faster than PyTorch's and llm.c's, rung by rung? See README.md beside this file."""
