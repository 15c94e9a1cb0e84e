"""Matrix products on all threads: each makes one tile of the result, with a BLAS of one thread.

Where an operand is bfloat16, the left one is taken up to float32 whole and the right one a band of the
result's columns at a time; a bfloat16 result is rounded once, from its band.
"""

import numpy as np
from numba import prange

from backends.numba_cpu._blas import nn, nt, tn
from backends.numba_cpu._kernel import kernel
from backends.numba_cpu._runs import copy_run
from backends.numba_cpu._scratch import room, scratch
from backends.numba_cpu._threads import threads
from backends.numba_cpu._tiles import part, tile

BAND = 1024
"""Columns of a result that are made at a time where its operands are bfloat16."""

REPLACE, ADD = np.float32(0), np.float32(1)


def multiply_nt(out_MN, a_MK, b_NK, beta=REPLACE):
    """out = a · bᵀ + beta out."""
    if _all_float32(out_MN, a_MK, b_NK):
        _tiles_nt(out_MN, a_MK, b_NK, beta, threads())
        return
    _in_bands(_tiles_nt, out_MN, a_MK, b_NK, b_NK.shape, 0, beta)


def multiply_nn(out_MN, a_MK, b_KN, beta=REPLACE):
    """out = a · b + beta out."""
    if _all_float32(out_MN, a_MK, b_KN):
        _tiles_nn(out_MN, a_MK, b_KN, beta, threads())
        return
    _in_bands(_tiles_nn, out_MN, a_MK, b_KN, b_KN.shape, 1, beta)


def multiply_tn(out_MN, a_KM, b_KN, beta=REPLACE):
    """out = aᵀ · b + beta out."""
    if _all_float32(out_MN, a_KM, b_KN):
        _tiles_tn(out_MN, a_KM, b_KN, beta, threads())
        return
    _in_bands(_tiles_tn, out_MN, a_KM, b_KN, b_KN.shape, 1, beta)


def bands_room(M, K, N):
    """Bytes of scratch of a product of bfloat16 operands, (M, K) and (K, N)."""
    width = min(BAND, N)
    return room((M, K), (K, width), (M, width))


def _all_float32(*arrays):
    return all(array.dtype == np.float32 for array in arrays)


def _in_bands(tiles, out, a, b, shape, axis, beta):
    """The product a band of columns at a time. axis: of b, along which the result's columns run."""
    N = shape[axis]
    width = min(BAND, N)
    band_shape = (width, shape[1]) if axis == 0 else (shape[0], width)
    wide_a, wide_b, wide_out = scratch(a.shape, band_shape, (out.shape[0], width))
    widen(wide_a, a, threads())
    for start in range(0, N, width):
        columns = slice(start, min(start + width, N))
        count = columns.stop - start
        piece = b[columns] if axis == 0 else b[:, columns]
        wide_piece = wide_b.reshape(-1)[: piece.size].reshape(piece.shape)
        result = wide_out.reshape(-1)[: len(out) * count].reshape(len(out), count)
        widen(wide_piece, piece, threads())
        if beta:
            widen(result, out[:, columns], threads())
        tiles(result, wide_a, wide_piece, beta, threads())
        widen(out[:, columns], result, threads())


@kernel
def widen(out_NC, x_NC, tasks):
    """Copy, from and to either dtype."""
    N = len(x_NC)
    for task in prange(tasks):
        start, stop = part(N, tasks, task)
        for n in range(start, stop):
            copy_run(out_NC[n], x_NC[n])


@kernel
def _tiles_nt(out_MN, a_MK, b_NK, beta, tasks):
    M, N = out_MN.shape
    for task in prange(tasks):
        top, bottom, left, right = tile(M, N, tasks, task)
        nt(out_MN[top:bottom, left:right], a_MK[top:bottom], b_NK[left:right], beta)


@kernel
def _tiles_nn(out_MN, a_MK, b_KN, beta, tasks):
    M, N = out_MN.shape
    for task in prange(tasks):
        top, bottom, left, right = tile(M, N, tasks, task)
        nn(out_MN[top:bottom, left:right], a_MK[top:bottom], b_KN[:, left:right], beta)


@kernel
def _tiles_tn(out_MN, a_KM, b_KN, beta, tasks):
    M, N = out_MN.shape
    for task in prange(tasks):
        top, bottom, left, right = tile(M, N, tasks, task)
        tn(out_MN[top:bottom, left:right], a_KM[:, top:bottom], b_KN[:, left:right], beta)
