"""Global figures of a picture: brightness, contrast, margins, sharpness. None depends on anatomy.

The audit uses them to test for shortcuts; a comparison, as a floor.
"""

from __future__ import annotations

import numpy as np

from mri_transfer.datasets.tumors.copies.thumbnails import content_box

PERCENTILES = (5, 25, 50, 75, 95)
FIGURES = (
    *("mean", "contrast", "entropy", "sharpness", "border", "offset_x", "offset_y"),
    *("extent_x", "extent_y", "dark", "bright", "edges"),
    *(f"percentile_{percent}" for percent in PERCENTILES),
)
"""The 17 figures of :func:`global_figures`, in order."""
DARK, BRIGHT, EDGE = 16, 200, 24  # grey levels


def picture_measures(grey: np.ndarray) -> dict[str, float]:
    """The audit's measurements of a picture.

    Args:
        grey: uint8 (height, width).

    Returns:
        "mean" and "contrast" (standard deviation) of intensity, 0..255; "entropy" of its histogram, bits per pixel;
        "sharpness", the mean step between neighbours as a share of the contrast; "border", the share of the picture
        outside its content's box; "offset_x" and "offset_y", left minus right and upper minus lower margin, as a share
        of the side.
    """
    height, width = grey.shape
    share = np.bincount(grey.ravel(), minlength=256) / grey.size
    levels = np.arange(256)
    mean = float(share @ levels)
    contrast = float(np.sqrt(share @ (levels - mean) ** 2))
    shares = share[share > 0]
    steps = [np.abs(np.diff(grey.astype(np.int16), axis=axis)) for axis in (0, 1)]
    step = sum(float(difference.mean()) for difference in steps if difference.size) / 2
    left, top, right, bottom = content_box(grey)
    return {
        "mean": mean,
        "contrast": contrast,
        "entropy": float(-(shares * np.log2(shares)).sum()),
        "sharpness": step / contrast if contrast else 0.0,
        "border": 1 - (right - left) * (bottom - top) / grey.size,
        "offset_x": (left - (width - right)) / width,
        "offset_y": (top - (height - bottom)) / height,
    }


def global_figures(images: np.ndarray) -> np.ndarray:
    """The figures of each image, float32 (n, 17) of uint8 (n, height, width); see :data:`FIGURES`."""
    rows = []
    for grey in images:
        left, top, right, bottom = content_box(grey)
        edges = np.abs(np.diff(grey.astype(np.int16), axis=0)) > EDGE
        rows.append(
            [
                *picture_measures(grey).values(),
                (right - left) / grey.shape[1],
                (bottom - top) / grey.shape[0],
                float((grey < DARK).mean()),
                float((grey > BRIGHT).mean()),
                float(edges.mean()) if edges.size else 0.0,
                *np.percentile(grey, PERCENTILES),
            ]
        )
    return np.array(rows, dtype=np.float32)
