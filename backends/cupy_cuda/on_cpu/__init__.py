"""CUDA on the CPU: run this backend's kernels, and stand-ins for its libraries, where there is no GPU.

`cuda_on_cpu.h` lets g++ compile the kernels, `compiler.py` does it, `machine.py` is the device: memory
that only kernels and copies reach, one stream, and graphs that replay what was recorded. It is slow, and
it shows what a test can show: results, bounds, barriers, order of threads, frozen arguments. It cannot
show what only a GPU can: speed, races between blocks in flight, the libraries themselves.
`kernels.py` runs any other .cu file; docs/cuda-on-cpu.md has a test that does.
"""
