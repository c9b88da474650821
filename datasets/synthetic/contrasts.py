"""From tissue to MR-like images of generated heads: brightness by contrast, bias field, blur, Rician noise."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from mri_transfer.datasets.synthetic.anatomy import Axes, Tissue, smooth_noise

CONTRASTS = ("T1w", "T1c", "T2w", "FLAIR")

_BRIGHTNESS: dict[Tissue, tuple[float, float, float, float]] = {
    # 1 is the brightness of fat in T1; chosen by eye.
    Tissue.AIR: (0.0, 0.0, 0.0, 0.0),
    Tissue.SKIN: (0.55, 0.60, 0.35, 0.40),
    Tissue.FAT: (0.95, 0.95, 0.70, 0.62),
    Tissue.MUSCLE: (0.36, 0.42, 0.18, 0.24),
    Tissue.BONE: (0.07, 0.08, 0.04, 0.05),
    Tissue.MARROW: (0.62, 0.64, 0.38, 0.32),
    Tissue.CSF: (0.12, 0.13, 1.00, 0.08),
    Tissue.GREY: (0.42, 0.45, 0.56, 0.60),
    Tissue.WHITE: (0.62, 0.62, 0.38, 0.46),
    Tissue.DEEP_GREY: (0.50, 0.52, 0.48, 0.54),
    Tissue.MUCOSA: (0.38, 0.78, 0.80, 0.65),
    Tissue.VITREOUS: (0.14, 0.15, 1.00, 0.12),
    Tissue.VESSEL: (0.20, 1.05, 0.06, 0.12),
    Tissue.GLAND: (0.55, 0.95, 0.45, 0.50),
    Tissue.DURA: (0.20, 0.42, 0.20, 0.20),
    Tissue.NECROSIS: (0.22, 0.22, 0.90, 0.45),
    Tissue.RIM: (0.45, 1.00, 0.60, 0.75),
    Tissue.OEDEMA: (0.38, 0.38, 0.85, 0.95),
    Tissue.MENINGIOMA: (0.46, 0.98, 0.55, 0.66),
    Tissue.ADENOMA: (0.44, 0.88, 0.55, 0.60),
}


def acquire(
    labels: np.ndarray,
    axes: Axes,
    contrast: str,
    rng: np.random.Generator,
    *,
    noise: float = 0.025,
    blur: tuple[float, float, float] = (0.55, 0.55, 0.55),
) -> np.ndarray:
    """An MR-like image of labelled tissue.

    Args:
        labels: uint8, values of `Tissue`.
        axes: the grid's planes, mm.
        contrast: one of `CONTRASTS`.
        rng: draws bias field, noise and small differences of brightness.
        noise: standard deviation of the real and imaginary parts, relative to fat in T1.
        blur: standard deviation along each axis, voxels (partial volume).

    Returns:
        float32 of the labels' shape, about 0 to 1.1, never negative.
    """
    column = CONTRASTS.index(contrast)
    table = np.zeros(max(Tissue) + 1, np.float32)
    for tissue, values in _BRIGHTNESS.items():
        table[tissue] = values[column] * rng.normal(1, 0.06)
    image = gaussian_filter(table[labels], blur, truncate=2.5)
    image *= np.exp(0.13 * smooth_noise(axes, 180, rng)[0] + 0.025 * smooth_noise(axes, 14, rng)[0])
    real, imaginary = (
        rng.standard_normal(image.shape, dtype=np.float32) * np.float32(noise) for _ in range(2)
    )
    return np.hypot(image + real, imaginary)
