"""The products of bfloat16 operands in float32: exact products, float32 sums, one rounding at the end.

Operands are taken up piece by piece: scratch stays below 50 MiB, however large the vocabulary.
"""

import torch

from harness_torch._scratch import pieces, scratch, slices

ROWS = 1024
"""Rows of x and dout at a time; taking a weight up again for each 1024 rows is 0.1 % of its product."""


def forward(out_NO, x_NI, weight_OI, bias_O):
    O, I = weight_OI.shape
    bias = None if bias_O is None else widened("bias", bias_O)
    for rows in slices(len(x_NI), ROWS):
        x = widened("x", x_NI[rows])
        for features in pieces(O, I + len(x)):
            weight = widened("weight", weight_OI[features])
            out = scratch("out", (len(x), len(weight)), torch.float32)
            if bias is None:
                torch.mm(x, weight.T, out=out)
            else:
                torch.addmm(bias[features], x, weight.T, out=out)
            out_NO[rows, features].copy_(out)


def backward(dx_NI, dweight_OI, dout_NO, x_NI, weight_OI, accumulate):
    O, I = weight_OI.shape
    for rows in slices(len(x_NI), ROWS):
        x = widened("x", x_NI[rows])
        dx = scratch("dx", x.shape, torch.float32)
        for features in pieces(O, I + len(x)):
            dout = widened("out", dout_NO[rows, features])
            if dx_NI is not None:
                weight = widened("weight", weight_OI[features])
                dx.addmm_(dout, weight, beta=int(features.start > 0))
            if dweight_OI is not None:
                add = accumulate or rows.start > 0
                dweight_OI[features].addmm_(dout.T, x, beta=int(add))
        if dx_NI is not None:
            dx_NI[rows].copy_(dx)


def widened(name, operand):
    """The same numbers in float32, in scratch."""
    return scratch(name, operand.shape, torch.float32).copy_(operand)
