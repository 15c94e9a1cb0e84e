"""Prove a device where there is one: `harness gpu-acceptance`; docs/gpu-acceptance.md.

command.py    what is asked, of which GPU, into which record
progress.py   the parts one after another, within one budget of time; the record after each
workers.py    a part's processes, limited in time: what hangs or crashes loses only itself
worker.py     such a process: its checks one after another, each kept as soon as it is done
header.py     what a record says before its first part: machine, versions, commit
record.py     the shape of the record, its statuses, and what --resume goes on with
report.py     the record as Markdown; goals.py: what it was hoped to show
part.py       what a part is made of
probe.py      what a backend says of itself on this machine
arguments.py  the command line
parts/        what is asked of the device
"""
