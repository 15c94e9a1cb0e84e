"""Do kernels written in Python train a GPT-2 as NumPy does? See README.md beside this file."""
