"""One training run: its folder, loop, samples, checkpoints."""
