"""How fast is a whole training step beside PyTorch's? See README.md beside this file."""
