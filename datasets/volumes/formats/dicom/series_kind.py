"""The kind of a DICOM image, by its tags: an anatomical MR image, or a reason why not."""

from __future__ import annotations

from collections.abc import Collection

from mri_transfer.datasets.volumes.formats.dicom.series_tags import GREY, Header
from mri_transfer.datasets.volumes.naming import sequence_of, words_of

_MR_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.4",  # MR Image Storage
    "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR Image Storage
    "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR Image Storage
}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_LOCALISER_WORDS = {"localizer", "localiser", "loc", "scout", "survey", "3plane", "3pl", "aahead", "aascout"}
_FUNC_WORDS = {"bold", "fmri", "ep2d", "epi"}
_DIFFUSION_WORDS = {"dwi", "dti", "adc", "trace", "tracew", "diff", "diffusion", "ep2ddiff"}
_PERFUSION_WORDS = {"asl", "perf", "perfusion", "pwi", "cbf", "cbv", "mtt", "ttp", "dsc"}
_FIELD_MAP_WORDS = {"fieldmap", "fieldmapping", "b0map"}
# Words in the name of an examination rather than of a series.
_EXAMINATION_WORDS = {
    *("brain", "head", "neuro", "routine", "protocol", "exam", "study", "mri", "w", "wo", "wwo", "without"),
}


def reason_of_kind(header: Header, include: Collection[str]) -> str | None:
    """Why a DICOM image is not a plain anatomical MR image, or None.

    Args:
        header: the image's header.
        include: kinds in :data:`left_out.KINDS` to keep nevertheless.
    """
    tags, kinds = header.tags, set(header.image_type)
    modality, sop_class = tags.get("Modality", ""), tags.get("SOPClassUID", "")
    if sop_class.startswith(_SECONDARY_CAPTURE) or {"SCREEN SAVE", "SCREENSAVE"} & kinds:
        return "a secondary capture or screen save"
    if header.rows < 1 or header.columns < 1:
        return f"no image ({modality or 'no modality'})"
    if tags.get("SamplesPerPixel", "1") != "1" or tags.get("PhotometricInterpretation", GREY[0]) not in GREY:
        return "colour pixels, not intensities"
    if modality != "MR" and sop_class not in _MR_CLASSES and not (modality == "CT" and "ct" in include):
        remedy = "; see --include ct" if modality == "CT" else ""
        return f"modality {modality or 'not stated'}, not MR{remedy}"
    if reason := reason_of_series(header, include):
        return reason
    derived = header.image_type[:1] == ("DERIVED",) or all(f.kinds[:1] == ("DERIVED",) for f in header.frames)
    if "derived" not in include and derived:
        return "derived from other images; see --include derived"
    return None


def reason_of_series(header: Header, include: Collection[str], name: str = "") -> str | None:
    """Why a series of MR images shows no anatomy, or None, whether its tags are DICOM's or a converter's JSON.

    Args:
        header, include: as in :func:`reason_of_kind`.
        name: another name of the series, such as its file's.
    """
    tags, kinds, words = header.tags, set(header.image_type), _words_of_series(header)
    of_frames = [set(frame.kinds) for frame in header.frames if frame.kinds]
    if of_frames and len(of_frames) == len(
        header.frames
    ):  # what all frames say; single ones are left out later
        kinds |= set.intersection(*of_frames)
    if "LOCALIZER" in kinds or _LOCALISER_WORDS & words:
        return "a localiser"
    if "MOSAIC" in kinds:
        return "a mosaic: many slices in one picture, as of functional and diffusion imaging"
    diffusion = "DiffusionBValue" in tags and header.number("DiffusionBValue") != 0
    diffusion |= any(frame.diffusion for frame in header.frames)
    if "dwi" not in include and (
        diffusion or {"DIFFUSION", "ADC", "TRACEW", "FA"} & kinds or _DIFFUSION_WORDS & words
    ):
        return "diffusion; see --include dwi"
    if "func" not in include and ({"FMRI", "BOLD"} & kinds or _FUNC_WORDS & words):
        return "functional; see --include func"
    if "perf" not in include and ({"PERFUSION", "ASL"} & kinds or _PERFUSION_WORDS & words):
        return "perfusion; see --include perf"
    field_map = _FIELD_MAP_WORDS & words or {"field", "mapping"} <= words
    parts = header.parts
    if "fmap" not in include and (not parts & {"", "magnitude"} or field_map):
        return f"{'a field map' if field_map else ' and '.join(sorted(parts))}; see --include fmap"
    sequence = sequence_of(tags.get("SeriesDescription", "")) or sequence_of(name)
    if "func" not in include and header.is_echo_planar and sequence is None:
        return "echo-planar, and nothing says that it shows anatomy; see --include func"
    return None


def _words_of_series(header: Header) -> set[str]:
    """Words of the series' description, and of the protocol name if it belongs to the series.

    GE's and some others' protocol name covers the whole examination; if the description names a sequence, it suffices.
    """
    description, protocol = (header.tags.get(key, "") for key in ("SeriesDescription", "ProtocolName"))
    words, more = set(words_of(description)), set(words_of(protocol))
    if header.tags.get("Manufacturer", "").upper().startswith("GE") or sequence_of(description):
        return words
    return words if words and _EXAMINATION_WORDS & more else words | more
