"""Functions of one float32, with IEEE's answers at their edges: exp(100) is infinite, not an error.

Python's own `math` raises there, so in the simulator it would say what no GPU says; and it computes in
double precision.
"""

import math

import numpy as np

from backends.numba_cuda._compiled import compiled


def exp(x):
    """e to the power of x."""
    return np.exp(x)


def log(x):
    """The natural logarithm; of 0 it is -inf, and of a negative number NaN."""
    return np.log(x)


def sqrt(x):
    """The square root; of a negative number NaN."""
    return np.sqrt(x)


def tanh(x):
    """The hyperbolic tangent."""
    return np.tanh(x)


@compiled(exp)
def _exp(x):
    return lambda x: math.exp(x)


@compiled(log)
def _log(x):
    return lambda x: math.log(x)


@compiled(sqrt)
def _sqrt(x):
    return lambda x: math.sqrt(x)


@compiled(tanh)
def _tanh(x):
    return lambda x: math.tanh(x)
