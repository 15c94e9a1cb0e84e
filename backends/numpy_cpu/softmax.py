"""probs[v] = exp(logits[v] - max) / sum_w exp(logits[w] - max); dlogits = probs (dprobs - sum_w probs dprobs).

The exponentials of a block of rows stay in scratch. The columns beyond `vocab_size` are a strided view that
no step but the last touches.
"""

import numpy as np

from backends.numpy_cpu.blocks import in_blocks
from backends.numpy_cpu.scratch import float32, scratch
from harness import hookimpl


@hookimpl
def softmax_forward(probs_NV, logits_NV, vocab_size):
    def block(rows):
        logits = float32("softmax.logits", logits_NV[rows, :vocab_size])
        exp = scratch("softmax.exp", logits.shape)
        # Subtract the row maximum first: exp overflows float32 above 88.
        np.subtract(logits, np.maximum.reduce(logits, axis=1)[:, None], out=exp)
        np.exp(exp, out=exp)
        total = np.add.reduce(exp, axis=1)
        np.divide(exp, total[:, None], out=probs_NV[rows, :vocab_size])
        probs_NV[rows, vocab_size:] = 0

    in_blocks(block, *logits_NV.shape)


@hookimpl
def softmax_backward(dlogits_NV, dprobs_NV, probs_NV, vocab_size):
    def block(rows):
        dprobs = float32("softmax.dprobs", dprobs_NV[rows, :vocab_size])
        probs = float32("softmax.probs", probs_NV[rows, :vocab_size])
        t = scratch("softmax.t", probs.shape)
        np.multiply(probs, dprobs, out=t)
        mean = np.add.reduce(t, axis=1)
        np.subtract(dprobs, mean[:, None], out=t)
        np.multiply(t, probs, out=dlogits_NV[rows, :vocab_size])
        dlogits_NV[rows, vocab_size:] = 0

    in_blocks(block, *probs_NV.shape)
