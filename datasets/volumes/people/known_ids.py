"""Ids of well-known collections, which identify a person anywhere in a path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_START, _END = r"(?<![0-9A-Za-z])", r"(?![0-9A-Za-z])"


@dataclass(frozen=True)
class KnownId:
    """An id with its collection, its session and site (if the name has them), and its position."""

    collection: str
    subject: str
    session: str
    site: str
    depth: int
    start: int


# Each is too specific to occur by chance. A time point follows BraTS and UPENN ids.
_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("IXI", re.compile(r"(?P<subject>IXI\d{3,4})(?![0-9])(?:-(?P<site>Guys|HH|IOP)\b)?")),
    (
        "TCGA",
        re.compile(
            _START
            + r"(?P<subject>TCGA[-_][A-Z0-9]{2}[-_][A-Z0-9]{4})(?:[-_](?P<session>\d{8}|\d{4}\.\d\d\.\d\d))?"
            + _END,
            re.IGNORECASE,
        ),
    ),
    (
        "OASIS",
        re.compile(
            _START + r"(?P<subject>OAS[1-4]_?\d{4,5})(?:_(?P<session>MR\d+|(?:MR_)?d\d{4}))?(?![0-9A-Za-z])",
            re.IGNORECASE,
        ),
    ),
    ("ADNI", re.compile(r"(?<!\d)(?P<subject>\d{3}_S_\d{4,5})(?!\d)")),
    (
        "BraTS",
        re.compile(
            _START
            + r"(?P<subject>BraTS-[A-Z]{2,4}(?:-[A-Z]{2,4})?-\d{4,5})-(?P<session>\d{1,3})(?![0-9A-Za-z])",
            re.IGNORECASE,
        ),
    ),
    (
        "BraTS",
        re.compile(
            _START
            + r"(?P<subject>BraTS1[6-9]_(?:[A-Z]+_[A-Z]{2,4}|TCIA\d+_\d+|2013_\d+|[A-Z]+_\d+))_(?P<session>\d)"
            + _END,
            re.IGNORECASE,
        ),
    ),
    ("UPENN-GBM", re.compile(_START + r"(?P<subject>UPENN-GBM-\d{5})(?:_(?P<session>\d\d))?(?!\d)")),
    ("UCSF-PDGM", re.compile(_START + r"(?P<subject>UCSF-PDGM-\d{3,4})(?:_(?P<session>FU\d{3}d))?(?!\d)")),
    ("Kirby", re.compile(_START + r"(?P<subject>KKI2009-\d\d)(?!\d)")),
    (
        "Mindboggle",
        re.compile(
            _START + r"(?P<subject>(?:HLN-12|MMRR-21|NKI-RS-22|(?:NKI|OASIS)-TRT-20|Twins-2)-\d{1,2})" + _END
        ),
    ),
    ("fastMRI", re.compile(r"file_brain_AX[A-Z0-9]+_(?P<subject>\d{3}_\d{7})(?!\d)")),
    ("CPTAC", re.compile(_START + r"(?P<subject>C3[LN]-\d{5})" + _END)),
    ("Cam-CAN", re.compile(_START + r"(?P<subject>CC\d{6})" + _END)),
    ("NDAR", re.compile(_START + r"(?P<subject>NDAR[_-]?INV[A-Z0-9]{8})" + _END, re.IGNORECASE)),
)


def known_id(parts: Sequence[str]) -> KnownId | None:
    """The id of a known collection in a path: in the file name, else in the nearest folder.

    Args:
        parts: folders, and the file's name without suffixes.
    """
    best: KnownId | None = None
    for number in reversed(range(len(parts))):
        for collection, pattern in _PATTERNS:
            if match := pattern.search(parts[number]):
                groups = match.groupdict()
                session, site = groups.get("session") or "", groups.get("site") or ""
                if best is None:
                    best = KnownId(collection, groups["subject"], session, site, number, match.start())
                elif (
                    session and not best.session and same_id(groups["subject"], best.subject)
                ):  # the folder has it
                    best = KnownId(collection, best.subject, session, best.site, best.depth, best.start)
                break
    return best


def same_id(first: str, second: str) -> bool:
    """Whether two ids differ in case and separators only."""
    return key_of_id(first) == key_of_id(second)


def key_of_id(text: str) -> str:
    """An id normalised for what differs between copies of a collection: case and separators."""
    return re.sub(r"[^0-9a-z]+", "-", text.lower())
