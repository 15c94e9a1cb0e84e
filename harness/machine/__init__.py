"""The machine: its libraries, their threads, its speed, and what is recorded of it.

threads.py         one setting for the threads of every library and backend
blas.py            which matrix library there is: name, version, kernels, threads
pinned.py          environment variables that keep a library below what this machine can do
blas_speed.py      what OPENBLAS_CORETYPE costs, measured
reexec.py          the same command without that variable, where blas_kernel=library asks for it
computed_with.py   all of it in words, for a run's header and record
processor.py       processor, caches and BLAS, as a key for what was measured
peaks.py           the rates that this machine reaches; device_peaks.py: those of a device
nvidia_driver.py   what the driver says of the GPU
provenance.py      versions, commit and machine, for a run's versions.json
child.py           a process that works for us: start it, ask it, limit its time, end it
"""
