"""exp, sqrt and division that answer as IEEE 754 does, where Python raises an exception.

A NaN or an infinity in one row must not stop the others, so a half-op never raises on a number.
Addition, multiplication and tanh need no such care, nor exp of a number that cannot be positive.
"""

import math


def exp(x):
    """e^x; infinity above 709, where Python says OverflowError."""
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def sqrt(x):
    """The square root; NaN for a negative number, where Python says ValueError."""
    return math.nan if x < 0 else math.sqrt(x)


def divide(a, b):
    """a / b; infinity or NaN where b is zero, where Python says ZeroDivisionError."""
    if b != 0:
        return a / b
    if a == 0 or a != a:
        return math.nan
    return math.copysign(math.inf, a) * math.copysign(1.0, b)
