"""Position of a NIfTI image's voxels: its two forms, which may be empty or contradictory, and its units."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np

from mri_transfer.datasets.volumes.formats.stored import zooms_text

_UNITS = {1: ("metres", 1000.0), 3: ("microns", 0.001)}  # nifti1.h, low three bits of xyzt_units; mm each
_PLAUSIBLE = (0.05, 50.0)  # mm, of a voxel
_SAME_SIZE = 0.02  # relative
_SAME_PLACE = 1.0  # mm


def affine_of(header: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, bool, list[str]]:
    """The affine to RAS mm; whether it relies on the header's voxel sizes; and what was chosen or fixed.

    By convention the sform counts, else the qform, else the voxel sizes alone.
    """
    notes: list[str] = []
    sform, qform = (_form(header, which) for which in ("sform", "qform"))
    if int(header["sform_code"]) > 0 and sform is not None and not sform[:3, :3].any():
        notes.append(
            "sform of zeros, the " + ("qform" if qform is not None else "voxel sizes") + " taken instead"
        )
        sform = qform if qform is not None else header.get_base_affine()
        by_size = True
    elif sform is not None:
        by_size = False
        if qform is not None and (difference := _difference(sform, qform, header, shape)):
            notes.append(f"sform and qform contradict each other ({difference}), the sform taken")
    else:
        sform, by_size = (qform if qform is not None else header.get_base_affine()), True
    affine, note = _in_mm(np.asarray(sform, dtype=np.float64), int(header["xyzt_units"]) & 7)
    return affine, by_size, notes + note


def _form(header: Any, which: str) -> np.ndarray | None:
    """The sform or the qform, or None if it is not in use."""
    if int(header[f"{which}_code"]) <= 0:
        return None
    return np.asarray(getattr(header, f"get_{which}")(), dtype=np.float64)


def _difference(sform: np.ndarray, qform: np.ndarray, header: Any, shape: tuple[int, ...]) -> str:
    """How two forms contradict each other, or "".

    They may describe two spaces, as their codes then say: a scanner's and an atlas's. Sizes and directions must still
    agree, and positions too if they claim the same space.
    """
    if not (np.isfinite(sform).all() and np.isfinite(qform).all()):
        return ""
    if np.abs(sform - qform).max() < 1e-4:  # most files
        return ""
    sizes = [np.sqrt((form[:3, :3] ** 2).sum(axis=0)) for form in (sform, qform)]
    if not (sizes[0] > 0).all() or not (sizes[1] > 0).all():
        return ""
    if np.abs(sizes[0] / sizes[1] - 1).max() > _SAME_SIZE:
        return f"voxels of {zooms_text(np.round(sizes[0], 3))} and {zooms_text(np.round(sizes[1], 3))} mm"
    axes = ["".join(letter or "?" for letter in nib.aff2axcodes(form)) for form in (sform, qform)]
    if axes[0] != axes[1]:
        return f"axes {axes[0]} and {axes[1]}"
    if int(header["sform_code"]) == int(header["qform_code"]):
        corners = np.array(np.meshgrid(*((0, count - 1) for count in shape[:3]), [1])).reshape(4, -1)
        apart = float(np.linalg.norm(((sform - qform) @ corners)[:3], axis=0).max())
        if apart > _SAME_PLACE:
            return f"up to {apart:.3g} mm apart"
    return ""


def _in_mm(affine: np.ndarray, unit: int) -> tuple[np.ndarray, list[str]]:
    """The affine in mm, converted from the header's unit unless only mm gives plausible sizes."""
    if unit not in _UNITS:
        return affine, []
    name, factor = _UNITS[unit]
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    low, high = _PLAUSIBLE
    if not (low < sizes.max() * factor < high) and low < sizes.max() < high:
        return affine, [f"voxel sizes in {name} by the header, taken as mm"]
    return np.diag([factor, factor, factor, 1.0]) @ affine, [f"voxel sizes in {name}, brought to mm"]
