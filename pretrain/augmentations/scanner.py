"""Augmentations that imitate another scanner, coil or protocol.

All functions take float slices (n, size, size) in 0..1 and one parameter per slice; neutral parameters change nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from mri_transfer.pretrain.augmentations.tensors import dct_matrix, per_image, shoulder

BIAS_ORDERS = 3  # cosines along each axis: constant, half a wave, a whole one
BIAS_TERMS = BIAS_ORDERS**2 - 1  # without the constant, which is brightness
_DARKEST = 1e-8  # instead of 0, which has no logarithm
_STEPS = 4096.0  # half of the 23 bits that a random float32 has
_AIR = 0.04  # from this grey on, a pixel counts fully as head


def low_pass(x: Any, *, blur: Any, fewer_rows: Any, fewer_columns: Any) -> Any:
    """Blur, and lower the resolution as a scanner does, by measuring less of k-space.

    The picture's cosine transform (Fourier's, with mirrored edges) is multiplied by the transfer function of a
    Gaussian, exp(-2 pi² sigma² f²), and by a window with a smooth shoulder at the cut-off, which scanners use against
    ringing.

    Args:
        blur: (n,) standard deviation, pixels; 0 is none.
        fewer_rows, fewer_columns: (n,) factors by which resolution drops along the columns and rows; 1 keeps all.
    """
    size = x.shape[1]
    transform = dct_matrix(size)
    frequency = (np.arange(size, dtype=np.float32) / (2 * size))[None, :]  # cycles per pixel, below 0.5

    def transfer(factor: Any) -> Any:
        sigma = ops.reshape(blur, (-1, 1))
        gaussian = ops.exp(-2 * np.pi**2 * ops.square(sigma * frequency))
        factor = ops.reshape(factor, (-1, 1))
        window = shoulder(frequency * factor / 0.5)
        return gaussian * ops.where(factor > 1.0, window, 1.0)

    spectrum = ops.matmul(ops.matmul(transform, x), transform.T)
    spectrum *= ops.expand_dims(transfer(fewer_rows), 2) * ops.expand_dims(transfer(fewer_columns), 1)
    return ops.clip(ops.matmul(ops.matmul(transform.T, spectrum), transform), 0.0, 1.0)


def bias_field(terms: Any, size: int) -> Any:
    """A smooth field (n, size, size): the sum of the lowest cosines, (n, BIAS_TERMS) coefficients, without constant."""
    place = (np.arange(size) + 0.5) / size
    waves = np.cos(np.pi * np.arange(BIAS_ORDERS)[None, :] * place[:, None]).astype(
        np.float32
    )  # (size, orders)
    coefficients = ops.concatenate([ops.zeros_like(terms[:, :1]), terms], axis=1)
    return ops.matmul(ops.matmul(waves, ops.reshape(coefficients, (-1, BIAS_ORDERS, BIAS_ORDERS))), waves.T)


def regrade(x: Any, *, bias: Any, gamma: Any, contrast: Any, brightness: Any) -> Any:
    """Coil shading, grey curve, window width and level; air stays black.

    Curve and shading preserve the head's mean, as someone setting the window does. Otherwise a steep curve would turn
    bright slices white and dark ones black.

    Args:
        bias: (n, BIAS_TERMS) coefficients of the logarithm of the coil's gain, see :func:`bias_field`.
        gamma: (n,) exponent of the grey values.
        contrast: (n,) factor about the mean.
        brightness: (n,) relative change of all greys; an additive one would turn dark brains black.
    """
    field = bias_field(bias, x.shape[1])
    # exp(gamma log x) takes a fifth of the time of the power.
    graded = ops.exp(ops.log(ops.maximum(x, _DARKEST)) * per_image(gamma) + field)
    head = _head(x)
    before, after = _mean(x, head), _mean(graded, head)
    offset = (1 - contrast) * before
    wide = graded * per_image(contrast * before / ops.maximum(after, 1e-6)) + head * per_image(offset)
    return ops.clip(wide * per_image(1 + brightness), 0.0, 1.0)


def _head(x: Any) -> Any:
    """How much each pixel counts as head rather than air, 0 to 1."""
    return ops.clip(x * (1 / _AIR), 0.0, 1.0)


def _mean(x: Any, head: Any) -> Any:
    return ops.sum(x * head, axis=(1, 2)) / (ops.sum(head, axis=(1, 2)) + 1e-3)


def head_mean(x: Any) -> Any:
    """(n,) mean grey of what is not air."""
    return _mean(x, _head(x))


def add_rician_noise(x: Any, sigma: Any, uniform: Any) -> Any:
    """The magnitude of a complex signal with normal noise in both parts (Gudbjartsson & Patz, MRM 1995).

    With noise (r cos t, r sin t), where r² = -2 sigma² log u and t is a random angle (Box & Muller 1958), the
    magnitude of x + r cos t + i r sin t is the root of x² + 2 x r cos t + r². Random numbers are most of the cost, so
    the leading half of a number's bits serves as u, the rest as the angle: noise up to 4.2 sigma in 4096 steps.

    Args:
        sigma: (n,) standard deviation of either part; 0 is none.
        uniform: (n, size, size) in [0, 1).
    """
    scaled = uniform * _STEPS
    leading = ops.floor(scaled)
    r = per_image(sigma) * ops.sqrt(-2.0 * ops.log((leading + 0.5) * (1 / _STEPS)))
    turned = ops.cos(2 * np.pi * (scaled - leading))
    return ops.sqrt(ops.maximum(x * x + r * (2.0 * x * turned + r), 0.0))
