"""The language that op files are written in: roles, hook specifications, and what is read from them."""

from harness.contract.op import Half, Magnitude, Op, hookspec, read_op
from harness.contract.roles import Acc, Const, Ids, In, Kept, Out, Param, Role, Stat, State
from harness.contract.signature import Argument, Shape, Signature
from harness.contract.table import OpTable, core_ops

__all__ = [
    "Acc",
    "Argument",
    "Const",
    "Half",
    "Ids",
    "In",
    "Kept",
    "Magnitude",
    "Op",
    "OpTable",
    "Out",
    "Param",
    "Role",
    "Shape",
    "Signature",
    "Stat",
    "State",
    "core_ops",
    "hookspec",
    "read_op",
]
