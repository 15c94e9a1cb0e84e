"""Prove a device where there is one: `harness gpu-acceptance`; docs/gpu-acceptance.md.

command.py    what to prove, on which GPU, into which record
progress.py   the parts one after another, within one budget of time; the record after each
workers.py    a part's processes, limited in time; one that hangs or crashes loses its own check only
worker.py     such a process: it does one check after another, and writes down each
header.py     what a record says before its first part: machine, versions, commit
record.py     the shape of the record, its statuses, and what --resume goes on with
report.py     the record as Markdown
goals.py      what the project hopes for, beside what was found
part.py       what a part is made of
probe.py      what a backend says of itself on this machine
arguments.py  the command line
parts/        the questions to the device
"""
