"""Does the suite notice a CUDA kernel that is broken in one place? See README.md."""
