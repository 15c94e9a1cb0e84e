"""`harness doctor`: how this machine stands, a line a topic: ok, warn or missing, each with a remedy.

examination.py   the topics in their order, the verdict, and the exit code
line.py          one line of it
machine.py       cores, memory, libraries, environment, folders, devices
software.py      Python, packages, backends, and the first step of the default run
speed.py         matrix products, and what the environment takes away from them
"""

from harness.doctor.examination import run_doctor

__all__ = ["run_doctor"]
