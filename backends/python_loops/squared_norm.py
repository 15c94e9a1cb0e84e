"""sum = Σ_p x[p]²

One running sum in double: a float32 one would lose the small squares once it is large.
"""

from harness import hookimpl


@hookimpl
def squared_norm(sum_1, x_P):
    total = 0.0
    for x in x_P:
        total += x * x
    sum_1[0] = total
