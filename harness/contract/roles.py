"""Say of each buffer in a signature who writes it, and which dtype it has.

An argument's annotation is one of these classes, or `Role | None` where a plan may leave it out.

| role | written by | dtype |
|---|---|---|
| Out | forward (the result), or backward (the gradient of an activation): overwritten | activation |
| Kept | forward, for its own backward: overwritten | activation |
| Stat | forward (mean, rstd, lse, loss); read in backward, `dloss` too | float32 |
| Acc | backward: gradient of a parameter; overwritten, or added to if `accumulate` | gradient |
| State | updated in place: parameters in the optimizer, moments, caches | its own |
| In | nobody; the gradient of it is an Out named d<name> | activation |
| Param | nobody; the gradient of it is an Acc named d<name> | parameter |
| Ids | nobody | int32 |
| Const | nobody; has no gradient | its own |

The classes are never instantiated. The buffers themselves are arrays of the backend's own kind.
"""

from typing import ClassVar


class Role:
    """The base of all roles.

    dtype: `activation`, `parameter` and `gradient` are chosen by the precision policy; `own` is the
        dtype of whatever tensor is passed; any other value is the dtype itself.
    """

    dtype: ClassVar[str]


class Out(Role):
    dtype = "activation"


class Kept(Role):
    dtype = "activation"


class Stat(Role):
    dtype = "float32"


class Acc(Role):
    dtype = "gradient"


class State(Role):
    dtype = "own"


class In(Role):
    dtype = "activation"


class Param(Role):
    dtype = "parameter"


class Ids(Role):
    dtype = "int32"


class Const(Role):
    dtype = "own"


ROLES: tuple[type[Role], ...] = (Out, Kept, Stat, Acc, State, In, Param, Ids, Const)
