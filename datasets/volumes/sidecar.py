"""The JSON that dcm2niix and BIDS put beside a NIfTI file: modality, description, sequence, echo, contrast agent."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mri_transfer.datasets.volumes.formats.dicom.contrast import sequence_of_tags
from mri_transfer.datasets.volumes.formats.dicom.series_kind import reason_of_series
from mri_transfer.datasets.volumes.formats.dicom.series_tags import Header
from mri_transfer.datasets.volumes.naming import stem_of

_MOST_BYTES = 1 << 20
_TEXTS = (
    *("Modality", "Manufacturer", "SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName"),
    *("ScanningSequence", "SequenceVariant", "ContrastBolusAgent", "ComplexImageComponent", "AngioFlag"),
)
# BIDS uses seconds, DICOM milliseconds. A number implausibly large for seconds is already in milliseconds.
_TIMES = {"EchoTime": 1.0, "RepetitionTime": 60.0, "InversionTime": 20.0}
_OTHER_UNITS = {"rad": "phase", "hz": "a field map", "rad/s": "a field map", "tesla": "a field map"}


@dataclass(frozen=True)
class SidecarFacts:
    """The content of a JSON beside a volume.

    Attributes:
        sequence: in :data:`naming.SEQUENCES`.
        reason: why the volume is not an anatomical MR image, or None.
    """

    sequence: str
    reason: str | None


def beside(path: Path) -> Path | None:
    """The JSON of a NIfTI file, or None."""
    if not path.name.lower().endswith((".nii", ".nii.gz", ".img", ".img.gz")):
        return None
    other = path.with_name(stem_of(path.name) + ".json")
    return other if other.is_file() else None


def read(path: Path, volume: str, include: Collection[str]) -> SidecarFacts | None:
    """What a JSON file says about the volume beside it, or None if it is not such a file.

    Args:
        path: the JSON file.
        volume: name of the volume's file.
        include: kinds in :data:`left_out.KINDS` to keep.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None  # an unrelated file
    if not isinstance(content, dict):
        return None
    header = _header(content)
    modality = header.tags.get("Modality", "MR").upper()
    reason = None
    if modality == "CT":
        reason = None if "ct" in include else "CT by the JSON beside it; see --include ct"
    elif modality in ("PT", "PET"):
        reason = None if "pet" in include else "PET by the JSON beside it; see --include pet"
    elif modality not in ("MR", "MRI", ""):
        reason = f"modality {modality[:16]} by the JSON beside it, not MR"
    elif remark := _reason(content, header, volume, include):
        finding, _, remedy = remark.partition("; ")
        reason = f"{finding} by the JSON beside it" + (f"; {remedy}" if remedy else "")
    return SidecarFacts(sequence_of_tags(header), reason)


def _reason(content: dict[str, Any], header: Header, volume: str, include: Collection[str]) -> str | None:
    units = content.get("Units")
    other = _OTHER_UNITS.get(units.strip().lower()) if isinstance(units, str) else None
    if other and "fmap" not in include:
        return f"{other}; see --include fmap"
    return reason_of_series(header, include, name=volume)


def _header(content: dict[str, Any]) -> Header:
    """The JSON's fields in DICOM's form."""
    tags = {}
    for keyword in _TEXTS:
        if text := _text(content.get(keyword)):
            tags[keyword] = text
    if not tags.get("ContrastBolusAgent") and (agent := _text(content.get("ContrastBolusIngredient"))):
        tags["ContrastBolusAgent"] = agent
    for keyword, longest in _TIMES.items():
        value = content.get(keyword)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e6:
            tags[keyword] = f"{value * 1000 if value < longest else value:g}"
    kinds = tuple(
        word.strip().upper() for word in _text(content.get("ImageType")).split("\\") if word.strip()
    )
    return Header(tags, kinds, rows=0, columns=0, frames=())


def _text(value: Any) -> str:
    many = value if isinstance(value, list) else [value]
    return "\\".join(str(item).strip() for item in many if isinstance(item, str | int | float))[:1024]
