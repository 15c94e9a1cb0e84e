"""s = q kᵀ / sqrt(D)      lse = log Σ exp(s)      out = Σ exp(s - lse) v        (causal)

    delta = dout · out      ds = p (dout vᵀ - delta)      dq = ds k / sqrt(D)      dk = dsᵀ q / sqrt(D)

Under bf16 cuDNN computes it (`cupy.attention=cudnn`, the default) where it can: D a multiple of 8 up to
128, and T > 1. All other shapes, `cupy.attention=flash`, and float32 whatever was chosen are our own
kernels' (_flash.py): cuDNN has no attention in float32. tf32 runs those on tensor cores.
"""

from backends.cupy_cuda import _cudnn
from backends.cupy_cuda._flash import arithmetic_of, flash_backward, flash_bytes, flash_forward
from backends.cupy_cuda._launch import BFLOAT16
from backends.cupy_cuda._options import chosen
from backends.cupy_cuda._scratch import takes
from harness import hookimpl


@hookimpl
def attention_forward(out_BTHD, lse_BHT, qkv_BT3HD):
    if _by_cudnn(out_BTHD):
        _cudnn.forward(out_BTHD, lse_BHT, qkv_BT3HD)
    else:
        flash_forward(out_BTHD, lse_BHT, qkv_BT3HD, arithmetic_of(out_BTHD))


@hookimpl
def attention_backward(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT):
    if _by_cudnn(out_BTHD):
        _cudnn.backward(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT)
    else:
        arithmetic = arithmetic_of(out_BTHD)
        flash_backward(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT, arithmetic)


def attention_forward_tf32(out_BTHD, lse_BHT, qkv_BT3HD):
    flash_forward(out_BTHD, lse_BHT, qkv_BT3HD, "tf32")


def attention_backward_tf32(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT):
    flash_backward(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT, "tf32")


def _by_cudnn(out_BTHD):
    _, T, _, D = out_BTHD.shape
    return out_BTHD.dtype == BFLOAT16 and _choice_is_cudnn(T, D)


def _choice_is_cudnn(T, D):
    return chosen("attention") == "cudnn" and _cudnn.takes_shape(T, D)


@takes("attention_forward")
def _forward_room(dims, precision, most):
    by_cudnn = precision == "bf16" and _choice_is_cudnn(dims["T"], dims["D"])
    return _cudnn.forward_bytes(dims) if by_cudnn else 0


@takes("attention_backward")
def _backward_room(dims, precision, most):
    by_cudnn = precision == "bf16" and _choice_is_cudnn(dims["T"], dims["D"])
    return _cudnn.backward_bytes(dims) if by_cudnn else flash_bytes(dims)
