"""What a NIfTI header says about its contents: statistical maps, label maps, tissue classes."""

from __future__ import annotations

import re
from typing import Any

from nibabel.nifti1 import intent_codes

from mri_transfer.datasets.volumes.formats.stored import Evidence

# nifti1.h: 2 to 24 are distributions and p-values, 1001 estimates; 1002 and 1003 are labels; 1004 to 1007 matrices,
# displacements and vectors. Higher codes describe meshes or, like 1011 ("dimensionless"), nothing relevant here.
_STATISTICS = {*range(2, 25), 1001}
_LABELS = {1002, 1003}
_FIELDS = {1004, 1005, 1006, 1007}
# SPM writes these into the description of its results. dcm2niix writes "TE=3;Time=120000;phase=1" for plain scans,
# where phase is the polarity of phase encoding.
_DESCRIPTIONS = (
    (re.compile(r"^\s*SPM\{\w+", re.IGNORECASE), "maps", "a statistical map"),
    (
        re.compile(r"\bSPM contrast\b|spm_spm:\s*(beta|residual|resels|resid)", re.IGNORECASE),
        "maps",
        "an estimate",
    ),
    (re.compile(r"\btissue class\b", re.IGNORECASE), "maps", "a tissue map"),
    (re.compile(r"spm_spm:.*\bmask\b", re.IGNORECASE), "labels", "a mask"),
    (re.compile(r"^\s*(deformation|jacobian)\b", re.IGNORECASE), "maps", "a deformation"),
)


def evidence_of(header: Any) -> Evidence | None:
    """Why a NIfTI-1 or -2 header does not belong to an anatomical scan, or None."""
    if "intent_code" in header:
        code = int(header["intent_code"])
        name = str(intent_codes.label[code]) if code in intent_codes.label else str(code)
        if code in _LABELS:
            return Evidence("labels", f"a label map by its NIfTI intent ({code}, {name})")
        if code in _STATISTICS:
            return Evidence("maps", f"a statistical map by its NIfTI intent ({code}, {name})")
        if code in _FIELDS:
            return Evidence("maps", f"a field of vectors or matrices by its NIfTI intent ({code}, {name})")
    description = bytes(header["descrip"].item()).split(b"\0")[0].decode("latin1")
    for pattern, kind, meaning in _DESCRIPTIONS:
        if pattern.search(description):
            text = " ".join("".join(filter(str.isprintable, description)).split())[:40]
            return Evidence(kind, f"{meaning} by its description ({text})")
    return None
