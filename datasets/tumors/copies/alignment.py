"""Similarity of two thumbnails after undoing small differences of crop and tone."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import gaussian_filter

ROUNDS = 8
FURTHEST = 0.35  # largest change of scale, and shift in half-sides
BATCH_PIXELS = 1 << 18  # at a time: more don't fit into the CPU cache and cost three times as much per pair


def align(
    first: np.ndarray, second: np.ndarray, begin: np.ndarray | None = None, rounds: int = ROUNDS
) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale the second of each pair of pictures along both axes to fit the first.

    The four parameters are found by Gauss-Newton steps on brightness, with free gain and offset (the enhanced
    correlation coefficient of Evangelidis and Psarakis, 2008, has the same optimum). Only the overlap of the pictures
    is compared; below 60% overlap they count as dissimilar.

    Args:
        first, second: uint8 or float (pairs, side, side).
        begin: float (pairs, 4), the starting point: change of scale and shift along x, then along y, on axes from -1 to
            1 across the picture. None: the pictures as they are.
        rounds: number of steps.

    Returns:
        float32 (pairs,), the best correlation found, never below that at the start; and its parameters, float32 (pairs,
        4), as `begin`.
    """
    if begin is None:
        begin = np.zeros((len(first), 4))
    size = max(1, BATCH_PIXELS // max(first[0].size, 1)) if len(first) else 1
    correlation = np.empty(len(first), np.float32)
    warp = np.empty((len(first), 4), np.float32)
    for start in range(0, len(first), size):
        rows = slice(start, start + size)
        pictures = first[rows].astype(np.float32), second[rows].astype(np.float32)
        correlation[rows], warp[rows] = _align(*pictures, begin[rows].astype(np.float32), rounds)
    return correlation, warp


def _align(
    first: np.ndarray, second: np.ndarray, warp: np.ndarray, rounds: int
) -> tuple[np.ndarray, np.ndarray]:
    pairs, side, _ = first.shape
    half = np.float32((side - 1) / 2)
    grid = (np.arange(side, dtype=np.float32) - half) / half  # -1 to 1 across the picture
    start = (np.arange(pairs, dtype=np.int32) * (side * side))[:, None, None]
    pixels = np.ascontiguousarray(second).reshape(-1)
    target = first.reshape(pairs, -1)
    best, best_warp = np.full(pairs, -1, np.float32), warp
    ridge = 1e-6 * np.eye(4, dtype=np.float32)
    for step in range(rounds + 1):
        u = ((1 + warp[:, 0:1]) * grid + warp[:, 1:2]) * half + half
        v = ((1 + warp[:, 2:3]) * grid + warp[:, 3:4]) * half + half
        inside = ((u > -0.01) & (u < side - 0.99))[:, None, :] & ((v > -0.01) & (v < side - 0.99))[:, :, None]
        mask = inside.reshape(pairs, -1).astype(np.float32)
        count = np.maximum(mask.sum(axis=1), 1)[:, None]

        # Bilinear sampling, and its derivatives.
        u, v = np.clip(u, 0, side - 1.001), np.clip(v, 0, side - 1.001)
        column, row = u.astype(np.int32), v.astype(np.int32)
        across, down = (u - column)[:, None, :], (v - row)[:, :, None]
        index = start + (row * side)[:, :, None] + column[:, None, :]
        corner = pixels[index]
        right = pixels[index + 1] - corner
        lower = pixels[index + side]
        lower_right = pixels[index + side + 1] - lower
        upper = corner + right * across
        slope_y = lower + lower_right * across - upper
        slope_x = right + (lower_right - right) * down
        sampled = (upper + slope_y * down).reshape(pairs, -1)

        a = (target - (target * mask).sum(axis=1, keepdims=True) / count) * mask
        b = (sampled - (sampled * mask).sum(axis=1, keepdims=True) / count) * mask
        aa, ab, bb = (a * a).sum(axis=1), (a * b).sum(axis=1), (b * b).sum(axis=1)
        correlation = ab / np.sqrt(np.maximum(aa * bb, np.float32(1e-6)))
        correlation = np.where(count[:, 0] > 0.6 * side * side, correlation, -1)
        best_warp = np.where((correlation > best)[:, None], warp, best_warp)
        np.maximum(best, correlation, out=best)
        if step == rounds:
            break

        jacobian = np.stack([slope_x * grid, slope_x, slope_y * grid[:, None], slope_y], axis=1)
        jacobian = jacobian.reshape(pairs, 4, -1) * mask[:, None]
        rest = a * (ab / np.maximum(aa, np.float32(1e-6)))[:, None] - b
        total = jacobian.sum(axis=2)
        normal = (
            jacobian @ jacobian.transpose(0, 2, 1) - total[:, :, None] * total[:, None, :] / count[:, :, None]
        )
        # Slight damping keeps structureless pictures from diverging.
        damping = 1e-3 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(4, dtype=np.float32)
        change = np.linalg.solve(normal + damping + ridge, jacobian @ rest[:, :, None])[..., 0]
        warp = np.clip(warp + change / half, -FURTHEST, FURTHEST)
    return np.minimum(best, 1), best_warp


FINE = 1.0  # pixels: finer detail may have been sharpened or blurred
DEGREE = 3  # of the tone curve: fits a gamma of 0.5 to 2 with 0.998, yet can hardly invent content


def tone_free(first: np.ndarray, second: np.ndarray, warp: np.ndarray) -> np.ndarray:
    """Similarity of pictures aligned by :func:`align`, whatever was done to the tones of one of them.

    The second picture is mapped through the polynomial that best fits the first, and vice versa, as a clipped tone can
    only be predicted from the unclipped one; the better of both multiple correlations counts. Its fine detail has a
    separate weight, to model sharpening. None of this depends on pixel positions, so different anatomy becomes hardly
    more similar: at most 0.984 on the public four-class set, where copies are at 0.991 or more.

    Args:
        first, second: uint8 or float (pairs, side, side).
        warp: float (pairs, 4), as :func:`align` returns it.

    Returns:
        float32 (pairs,), 0 where less than 60% overlap.
    """
    correlation = np.zeros(len(first), np.float32)
    size = max(1, BATCH_PIXELS // max(first[0].size, 1)) if len(first) else 1
    for start in range(0, len(first), size):
        rows = slice(start, start + size)
        moved, mask = _moved(second[rows].astype(np.float32), warp[rows].astype(np.float32))
        target = first[rows].reshape(len(moved), -1).astype(np.float32)
        best = np.maximum(_explained(target, moved, mask), _explained(moved, target, mask))
        correlation[rows] = np.where(mask.mean(axis=1) > 0.6, np.sqrt(np.clip(best, 0, 1)), 0)
    return correlation


def _moved(pictures: np.ndarray, warp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (pairs, side, side) moved by `warp`, and 1 where they have pixels; both (pairs, pixels)."""
    pairs, side, _ = pictures.shape
    half = np.float32((side - 1) / 2)
    grid = (np.arange(side, dtype=np.float32) - half) / half
    u = ((1 + warp[:, 0:1]) * grid + warp[:, 1:2]) * half + half
    v = ((1 + warp[:, 2:3]) * grid + warp[:, 3:4]) * half + half
    inside = ((u > -0.01) & (u < side - 0.99))[:, None, :] & ((v > -0.01) & (v < side - 0.99))[:, :, None]
    u, v = np.clip(u, 0, side - 1.001), np.clip(v, 0, side - 1.001)
    column, row = u.astype(np.int32), v.astype(np.int32)
    across, down = (u - column)[:, None, :], (v - row)[:, :, None]
    index = (np.arange(pairs, dtype=np.int32) * (side * side))[:, None, None]
    index = index + (row * side)[:, :, None] + column[:, None, :]
    pixels = np.ascontiguousarray(pictures).reshape(-1)
    upper = pixels[index] * (1 - across) + pixels[index + 1] * across
    lower = pixels[index + side] * (1 - across) + pixels[index + side + 1] * across
    return (upper + (lower - upper) * down).reshape(pairs, -1), inside.reshape(pairs, -1).astype(np.float32)


def _explained(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """R squared of a polynomial in b that predicts a, over the pixels of a mask; all (pairs, pixels)."""
    count = np.maximum(mask.sum(axis=1, keepdims=True), 1)
    a = (a - (a * mask).sum(axis=1, keepdims=True) / count) * mask
    b = b - (b * mask).sum(axis=1, keepdims=True) / count
    b = np.clip(b / (np.sqrt((b * b * mask).sum(axis=1, keepdims=True) / count) + np.float32(1e-3)), -4, 4)
    side = math.isqrt(b.shape[1])
    detail = b - gaussian_filter(b.reshape(-1, side, side), (0, FINE, FINE)).reshape(b.shape)
    powers = np.stack([*(b**power for power in range(1, DEGREE + 1)), detail], axis=1) * mask[:, None]
    powers -= powers.sum(axis=2, keepdims=True) / count[:, None] * mask[:, None]
    normal = powers @ powers.transpose(0, 2, 1)
    right = powers @ a[:, :, None]
    ridge = 1e-5 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(DEGREE + 1, dtype=np.float32)
    fitted = np.linalg.solve(normal + ridge + 1e-6 * np.eye(DEGREE + 1, dtype=np.float32), right)
    return (right * fitted).sum(axis=(1, 2)) / np.maximum((a * a).sum(axis=1), np.float32(1e-3))
