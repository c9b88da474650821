"""The sequence of a DICOM series: from its description, or from contrast agent and timing."""

from __future__ import annotations

from mri_transfer.datasets.volumes.formats.dicom.series_tags import Header
from mri_transfer.datasets.volumes.naming import sequence_of, words_of

_ANGIOGRAPHY = {"tof", "mra", "angio", "venography", "mrv", "pc", "fl3d1rtra"}
_OTHER = {"swi", "swan", "t2star", "hemo", "gre", "medic", "mt", "mtr", "qsm", "fiesta", "ciss", "trufi"}
_LONG_INVERSION = 1500  # ms; nulls fluid
_SHORT_ECHO = 50  # ms


def sequence_of_tags(header: Header) -> str:
    """The sequence in :data:`naming.SEQUENCES`, "unknown" if the tags don't determine it.

    A description that names one wins, as the radiographer chose it; if it names PD and T2, as in a double echo, the
    echo time decides, and T2 with a long inversion time is FLAIR ("tirm dark-fluid"). Otherwise timing decides, within
    the usual ranges: spin echo with TE below 30 ms and TR below 1000 ms is T1, with TE above 70 ms and TR above 2000 ms
    T2, with a short TE and a long TR PD; an inversion time above 1500 ms beside a long TE is FLAIR; a gradient echo
    with TE below 6 ms, spoiled by its TR below 50 ms or prepared by inversion, T1.
    """
    tags = header.tags
    agent = tags.get("ContrastBolusAgent", "").strip().lower()
    contrast = bool(agent) and agent not in ("no", "none", "n", "n/a", "without", "0", "-")
    description, protocol = (tags.get(key, "") for key in ("SeriesDescription", "ProtocolName"))
    if tags.get("Manufacturer", "").upper().startswith("GE"):
        protocol = ""  # of the whole examination
    words = words_of(f"{description} {protocol}")
    sequence = sequence_of(description) or sequence_of(protocol)
    if sequence is None:
        angiography = tags.get("AngioFlag", "").upper() == "Y" or bool(_ANGIOGRAPHY & set(words))
        sequence = None if angiography or _OTHER & set(words) else _by_timing(header)
    elif sequence == "T2" and (header.number("InversionTime") or 0) >= _LONG_INVERSION:
        sequence = "FLAIR"
    elif {"PD", "T2"} <= {sequence_of(word) for word in words} and header.number("EchoTime"):
        sequence = "PD" if (header.number("EchoTime") or 0) <= _SHORT_ECHO else "T2"
    if sequence == "T1" and contrast:
        return "T1c"
    return sequence or "unknown"


def _by_timing(header: Header) -> str | None:
    repetition, echo, inversion = (
        header.number(key) for key in ("RepetitionTime", "EchoTime", "InversionTime")
    )
    kinds = set(header.tags.get("ScanningSequence", "").upper().split("\\"))
    if not repetition or not echo:  # 0 says nothing
        return None
    if inversion and inversion >= _LONG_INVERSION and echo >= 60:
        return "FLAIR"
    if "GR" in kinds:
        prepared = bool(inversion and 300 <= inversion <= 1400)
        return "T1" if echo <= 6 and (prepared or repetition <= 50) else None
    if "SE" not in kinds or "EP" in kinds or inversion:
        return None
    if echo <= 30 and repetition <= 1000:
        return "T1"
    if echo >= 70 and repetition >= 2000:
        return "T2"
    return "PD" if echo <= 40 and repetition >= 1800 else None
