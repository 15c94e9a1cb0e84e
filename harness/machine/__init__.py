"""The libraries that compute beside our own code: how many threads they have, and what holds them back.

threads.py         one setting for the threads of every library and backend
blas.py            which matrix library there is: name, version, kernels, threads
pinned.py          variables of the environment that keep a library below what this machine has
blas_speed.py      what OPENBLAS_CORETYPE costs, measured
start_again.py     the same command without that variable, where blas_kernel=library asks for it
computed_with.py   all of it in words, for a run's header and record
"""
