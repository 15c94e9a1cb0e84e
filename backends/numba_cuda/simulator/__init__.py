"""Numba's CUDA simulator with a scheduler of our own: the same kernels, a hundred times sooner.

machine.py    memory, the stream and graphs of a device that is not there
blocks.py     the threads of a block, one at a time from barrier to barrier
"""
