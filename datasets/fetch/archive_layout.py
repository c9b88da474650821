"""The wanted members of a source's archives, their destinations and their subjects."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from mri_transfer.datasets.volumes.naming import identify
from mri_transfer.storage.files import atomic_write
from mri_transfer.storage.tables import Table

Place = Callable[[PurePosixPath], "PurePosixPath | None"]
"""A member's path below the folder, or None if unwanted."""

TABLE = "volumes.csv"

_IXI = re.compile(r"(?P<subject>IXI\d+)-(?P<site>[A-Za-z]+)-\d+-(?P<modality>T1|T2|PD|MRA)\.nii(\.gz)?")
_OASIS = re.compile(r"(?:^|/)(?:(?P<disc>disc\d+)/)?(?P<session>OAS1_\d{4}_MR\d+)/(?P<rest>.+)$")
# RAW holds three or four repeats, SUBJ_111 their average, T88_111 that average in atlas space, with and without its
# skull: all one scan, so exactly one is taken.
_OASIS_VARIANTS = {
    "subj111": re.compile(r"PROCESSED/MPRAGE/SUBJ_111/OAS1[\w.-]+\.(hdr|img)", re.ASCII),
    "raw": re.compile(r"RAW/OAS1[\w.-]+_mpr-1_anon\.(hdr|img)", re.ASCII),
    "t88": re.compile(r"PROCESSED/MPRAGE/T88_111/OAS1[\w.-]+_t88_gfc\.(hdr|img)", re.ASCII),
}
_OASIS_NOTES = re.compile(r"OAS1_\d{4}_MR\d+\.(txt|xml)")


def place_ixi(path: PurePosixPath) -> PurePosixPath | None:
    """`IXI002-Guys-0828-T1.nii.gz` goes to `IXI-T1/`."""
    match = _IXI.fullmatch(path.name)
    return PurePosixPath(f"IXI-{match['modality']}", path.name) if match else None


def place_oasis(variant: str) -> Place:
    """One variant of each scan, and the session's notes; segmentations (FSL_SEG) and pictures are left out."""

    def place(path: PurePosixPath) -> PurePosixPath | None:
        match = _OASIS.search(path.as_posix())
        if not match:
            return None
        rest = match["rest"]
        if not (_OASIS_VARIANTS[variant].fullmatch(rest) or _OASIS_NOTES.fullmatch(rest)):
            return None
        return PurePosixPath(match["disc"] or "discs", match["session"], rest)

    return place


def place_tumors(path: PurePosixPath) -> PurePosixPath | None:
    """`Training/<class>/<image>` and `Testing/...`, under any folders.

    Leaves out what macOS adds to a zip: `__MACOSX/` and files that begin with a dot.
    """
    if path.name.startswith(".") or "__MACOSX" in path.parts:
        return None
    for split in ("Training", "Testing"):
        if split in path.parts:
            below = path.parts[path.parts.index(split) :]
            return PurePosixPath(*below) if len(below) == 3 else None
    return None


def write_table(folder: Path, files: Iterable[str]) -> int:
    """Write `volumes.csv`: one row per volume, which `mri-transfer slices --table` accepts.

    Args:
        files: paths below `folder`; for an Analyze pair, the image.

    Returns:
        The number of volumes.
    """
    names = sorted(name for name in files if name.endswith((".nii", ".nii.gz", ".img")))
    with atomic_write(folder / TABLE) as file:
        table = Table(file, ("file", "subject", "session", "sequence", "site"))
        for name in names:
            identity = identify(PurePosixPath(name))
            match = _IXI.fullmatch(PurePosixPath(name).name)
            site = match["site"] if match else ""
            table.write((name, identity.subject, identity.session, identity.sequence, site))
    return len(names)
