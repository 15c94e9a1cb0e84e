"""probs[v] = exp(logits[v] - max) / Σ_w exp(logits[w] - max)

    dlogits[v] = probs[v] (dprobs[v] - Σ_w probs[w] dprobs[w])

The exponentials of a block of rows stay in scratch. Padding is cut off by a view, and filled with zeros.
"""

import numpy as np

from backends.numpy_cpu._blocks import in_blocks
from backends.numpy_cpu._scratch import float32, scratch
from harness import hookimpl


@hookimpl
def softmax_forward(probs_NV, logits_NV, vocab_size):
    def block(rows):
        logits = float32("softmax.logits", logits_NV[rows, :vocab_size])
        exp = scratch("softmax.exp", logits.shape)
        top, total = scratch("softmax.sums", (2, len(logits)))
        # Subtract the row maximum first: exp overflows float32 above 88.
        np.maximum.reduce(logits, axis=1, out=top)
        np.subtract(logits, top[:, None], out=exp)
        np.exp(exp, out=exp)
        np.add.reduce(exp, axis=1, out=total)
        np.divide(exp, total[:, None], out=probs_NV[rows, :vocab_size])
        probs_NV[rows, vocab_size:] = 0

    in_blocks(block, *logits_NV.shape)


@hookimpl
def softmax_backward(dlogits_NV, dprobs_NV, probs_NV, vocab_size):
    def block(rows):
        dprobs = float32("softmax.dprobs", dprobs_NV[rows, :vocab_size])
        probs = float32("softmax.probs", probs_NV[rows, :vocab_size])
        product = scratch("softmax.product", probs.shape)
        total = scratch("softmax.sums", (len(probs),))
        np.multiply(probs, dprobs, out=product)
        np.add.reduce(product, axis=1, out=total)
        np.subtract(dprobs, total[:, None], out=product)
        np.multiply(product, probs, out=dlogits_NV[rows, :vocab_size])
        dlogits_NV[rows, vocab_size:] = 0

    in_blocks(block, *probs_NV.shape)
