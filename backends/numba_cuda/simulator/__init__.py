"""Numba's CUDA simulator with a scheduler of our own: quicker, and stricter (docs/cuda-simulator.md).

machine.py                   memory, the stream and graphs of a device that is not there
mode.py                      HARNESS_CUDASIM: the order of threads and blocks
blocks.py                    the threads of a block, one at a time from barrier to barrier
workers.py                   the greenlets that they run in
arrays.py memory.py atomic.py  what a kernel indexes, and the memory that it asks for
faults.py races.py           what is wrong with a kernel, and where
traffic.py                   what is loaded and stored: counted()
"""
