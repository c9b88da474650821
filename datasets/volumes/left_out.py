"""Unwanted files of a folder, by name: other kinds of data, maps, copies of one scan."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from mri_transfer.datasets.volumes.names_of_maps import by_folder, by_name
from mri_transfer.datasets.volumes.naming import stem_of, words_of

# Kinds left out unless requested, and the folders (BIDS names) that hold them.
KINDS = ("derivatives", "func", "dwi", "fmap", "perf", "pet", "sourcedata", "derived", "ct", "labels", "maps")
_FOLDERS = {
    **{name: name for name in KINDS[:7]},
    **{"asl": "perf", "eeg": "func", "meg": "func", "ieeg": "func", "nirs": "func"},
}
_SUFFIXES = {
    **dict.fromkeys(("bold", "sbref", "cbv"), "func"),
    **dict.fromkeys(("dwi", "adc", "bvec", "bval"), "dwi"),
    **dict.fromkeys(("epi", "phasediff", "phase", "phase1", "phase2", "fieldmap"), "fmap"),
    **dict.fromkeys(("magnitude", "magnitude1", "magnitude2"), "fmap"),
    **dict.fromkeys(("asl", "m0scan"), "perf"),
    "pet": "pet",
}
_NAMED = {
    "labels": "a label or mask image",
    "maps": "a map, no scan,",
    "fmap": "phase or a field map",
    "func": "a functional image",
    "dwi": "a diffusion image",
    "perf": "a perfusion image",
    "ct": "CT",
}
# Several processing states of one scan, and the one to use: the least processed one in a single file. OASIS-1's
# SUBJ_111 is the mean of a session's RAW repeats at 1 mm; T88_111 is that mean, warped to an atlas.
_OASIS = re.compile(r"(?P<scan>OAS1_\d{4}_MR\d+)/(?P<state>RAW|PROCESSED/MPRAGE/(?:SUBJ_111|T88_111))/[^/]+$")
_OASIS_STATES = ("PROCESSED/MPRAGE/SUBJ_111", "RAW", "PROCESSED/MPRAGE/T88_111")
_FREESURFER = re.compile(r"(?P<scan>[^/]+/mri)/(?:orig/)?(?P<state>[^/]+)\.(?:mgz|mgh)$")
_FREESURFER_STATES = ("orig", "rawavg", "001", "T1", "nu", "orig_nu", "norm", "brain", "brain.finalsurfs")


def left_out(name: PurePosixPath, include: Iterable[str] = ()) -> str | None:
    """Why a file is not wanted, judged by its name and the folders below the given one.

    Args:
        name: the file's path from the given folder, that folder included.
        include: kinds in :data:`KINDS` to keep nevertheless.
    """
    kinds = set(include)
    for folder in name.parts[1:-1]:
        kind = _FOLDERS.get(folder.lower())
        if kind and kind not in kinds:
            return f"in {folder}/, which holds no raw anatomical images; see --include {kind}"
        if folder.lower().endswith((".feat", ".ica", ".gica")) and "func" not in kinds:
            return f"in {folder}/, which holds results of functional imaging; see --include func"
        if folder.upper() == "FSL_SEG" and "labels" not in kinds:
            return "a label or mask image by its folder (FSL_SEG); see --include labels"
        if (content := by_folder(folder)) and "labels" not in kinds:
            return f"in {folder}/, which holds {content}; see --include labels"
    stem = stem_of(name.name)
    words = words_of(stem)
    suffix = _SUFFIXES.get(words[-1], "") if stem.startswith("sub-") and words else ""
    if suffix and suffix not in kinds:
        match = by_name(name.name)
        if match is None or match[0] != "labels":
            return f"not an anatomical image by its name ({words[-1]}); see --include {suffix}"
    if (match := by_name(name.name)) and match[0] not in kinds and not (suffix and suffix in kinds):
        kind, word = match
        return f"{_NAMED[kind]} by its name ({word}); see --include {kind}"
    return None


def same_scans(names: list[str]) -> dict[str, str]:
    """Those of `names` that are another state of a scan in use: name → the name to use.

    OASIS-1 and FreeSurfer keep one scan in several states; the rules are above. Of equal states (OASIS-1's RAW repeats)
    the first is used.
    """
    scans: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        for pattern, states in ((_OASIS, _OASIS_STATES), (_FREESURFER, _FREESURFER_STATES)):
            match = pattern.search(name)
            if match and match["state"] in states:
                root = name[: match.start()] + match["scan"]
                scans.setdefault(root, []).append((states.index(match["state"]), name))
                break
    replaced: dict[str, str] = {}
    for states_found in scans.values():
        (_, best), *others = sorted(states_found)
        replaced |= {name: best for _, name in others}
    return replaced
