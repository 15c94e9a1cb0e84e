"""GPT-2 on an NVIDIA GPU, every op a kernel written in Python with Numba."""
