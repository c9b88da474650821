"""A volume's subject and content by its name: BIDS entities, conventions of public collections, or a plain stem."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from mri_transfer.words import word_set

SEQUENCES = ("T1", "T1c", "T2", "FLAIR", "PD", "unknown")

_CONTRAST_WORDS = word_set("ce gd gad gado gadolinium post postcontrast postgad contrast enhanced")
_SEQUENCE_WORDS = {
    "FLAIR": {"flair", "flairw", "t2flair", "t2f"},
    "T1c": {"t1c", "ct1", "t1ce", "t1gd", "t1post", "t1wce", "t1wpost", "t1contrast", "t1km", "t1wc"},
    "T1": {
        *("t1", "t1w", "t1n", "t1pre", "mprage", "t1mprage", "mpr", "spgr", "bravo", "unit1", "t1wn"),
        *("memprage", "mp2rage", "rage", "fspgr", "irspgr", "mdeft"),
    },
    "T2": {"t2", "t2w", "t2tse"},
    "PD": {"pd", "pdw"},
}
# Words joined to a sequence: inplaneT2, AXT1, 3DFLAIR, T1wSag; but not a measured quantity (T1rho, T2star, T1map).
_PLANE = r"ax(?:ial)?|sag(?:ittal)?|cor(?:onal)?|tra(?:nsversal)?|obl|inplane"
_KIND = r"[23]d|anat|img|image|iso|hires|fs|fatsat|se|tse|fse|ir|space|cube|vista|gre|mpr(?:age)?|spgr|vibe"
_TOGETHER = re.compile(
    rf"(?:{_PLANE}|{_KIND})*(?P<sequence>t1ce|t1c|t1gd|t1|t2flair|t2|flair|pd)(?:w|wi|weighted)?(?:{_PLANE}|{_KIND})*"
)
_QUANTITIES = {"star", "starw", "rho", "map", "maps", "mapping", "relax"}

# Subjects (and sessions) as public collections write them, anywhere in the file name.
_COLLECTIONS = (
    re.compile(r"(?P<subject>IXI\d{3,4})(?![0-9])(?:-(?P<site>Guys|HH|IOP)\b)?"),
    re.compile(r"(?P<subject>TCGA[-_][A-Z0-9]{2}[-_][A-Z0-9]{4})(?:[-_](?P<session>\d{8}))?", re.IGNORECASE),
    re.compile(r"(?P<subject>OAS[123]_?\d{4,5})(?:_(?P<session>MR\d+|d\d{4}))?", re.IGNORECASE),
    re.compile(r"(?P<subject>\d{3}_S_\d{4})"),  # ADNI
)
_ENTITY = re.compile(r"(?:^|_)(sub|ses|ce)-([^_/]+)")
_DATE = re.compile(r"(?<!\d)(?:19|20)\d{6}(?!\d)")
# Names that don't identify the subject; the parent folder does.
_ANYONE = re.compile(
    r"(scan|image|img|series|volume|vol|brain|head|anat|mri?|orig|nu|raw|nifti|data|se|s)?[-_ ]?\d{0,3}",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Identity:
    """The identity of a volume. `subject` is never empty; `session` and `site` (where it was made) may be.

    `sequence` is in :data:`SEQUENCES`; `dataset` is the collection, and `how` the evidence, in words.
    """

    subject: str
    session: str
    sequence: str
    site: str = ""
    dataset: str = ""
    how: str = ""


def stem_of(name: str) -> str:
    """A file name without the suffixes of volumes and pictures."""
    ending = r"(\.(nii|hdr|img|mgh|mgz|mnc|nrrd|nhdr|mha|mhd|png|jpe?g|bmp|tiff?|webp|gif))?(\.gz)?$"
    return re.sub(ending, "", name, flags=re.IGNORECASE)


def words_of(text: str) -> list[str]:
    """The words of a name in lower case: `T1_post-Gd` gives t1, post and gd."""
    return [word for word in re.split(r"[^0-9a-z]+", text.lower()) if word]


@functools.lru_cache(maxsize=1 << 16)
def sequence_of(name: str) -> str | None:
    """The sequence that a name states, or None."""
    words = words_of(name)
    sequences = [sequence for word in words for sequence in _of_word(word)]
    if not sequences:  # brainT1, postT1
        pieces = words_of(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name))
        if not _QUANTITIES & set(pieces):
            words, sequences = pieces, [sequence for word in pieces for sequence in _of_word(word)]
    if {"dark", "fluid"} <= set(words) or "darkfluid" in words:
        sequences.append("FLAIR")
    if not sequences:
        return None
    if "FLAIR" in sequences:  # T2_FLAIR
        return "FLAIR"
    if "T1c" in sequences or (sequences[-1] == "T1" and (_CONTRAST_WORDS & set(words))):
        return "T1c"
    return sequences[-1]


def _of_word(word: str) -> list[str]:
    """The sequence one word names, in a list; empty if none."""
    if not any(word in words for words in _SEQUENCE_WORDS.values()):
        match = _TOGETHER.fullmatch(word)
        word = match["sequence"] if match else ""
    return [sequence for sequence, words in _SEQUENCE_WORDS.items() if word in words]


def identify(path: PurePosixPath, dataset: str | None = None) -> Identity:
    """Subject, session and sequence of a volume.

    Args:
        path: the file, with any informative parent folders, root first.
        dataset: name of the BIDS dataset it belongs to. `sub-01` in two datasets are two people, so it becomes part of
            the subject.
    """
    stem = stem_of(path.name)
    folders = path.parts[:-1]
    sequence = next(
        (candidate for name in (stem, *reversed(folders)) if (candidate := sequence_of(name))), "unknown"
    )
    entities: dict[str, str] = {}
    for name in (*folders, stem):
        entities.update(_ENTITY.findall(name))
    if "sub" in entities:
        subject = f"sub-{entities['sub']}"
        return Identity(f"{dataset}/{subject}" if dataset else subject, entities.get("ses", ""), sequence)
    for pattern in _COLLECTIONS:
        if match := pattern.search(stem):
            groups = match.groupdict()
            person = groups["subject"], groups.get("session") or ""
            return Identity(*person, sequence, site=groups.get("site") or "")
    dates = _DATE.findall(stem)
    session = dates[-1] if dates else ""
    rest = _without_sequence(stem)
    if rest.isdigit() and folders:  # 001.nii may be in many folders
        return Identity(f"{folders[-1]}/{rest}", session, sequence)
    for name in (rest, *(_without_sequence(folder) for folder in reversed(folders))):
        if name.isdigit() or not _ANYONE.fullmatch(name):
            return Identity(name, session, sequence)
    return Identity(stem or path.name, session, sequence)


def _without_sequence(text: str) -> str:
    """`nvr_stroke_T1` without the words that name a sequence, a contrast agent or a date."""
    words = set().union(*_SEQUENCE_WORDS.values())
    rest = ""
    for word in re.findall(r"[^-_. ]+|[-_. ]+", text):
        if word.lower() in words or (rest and word.lower() in _CONTRAST_WORDS) or _DATE.fullmatch(word):
            continue
        rest += word
    return re.sub(r"([-_. ])[-_. ]+", r"\1", rest).strip("-_. ")
