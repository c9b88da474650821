"""Finding volumes: files, folders, BIDS trees; whose they are, and what is left out for which reason."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mri_transfer.datasets.naming import SEQUENCES, Identity, identify, stem_of, words_of
from mri_transfer.errors import UserError

SUFFIXES = (".nii.gz", ".nii", ".hdr", ".img")

_NOT_ANATOMY = {"derivatives", "func", "dwi", "fmap", "perf", "asl", "eeg", "meg", "pet", "sourcedata"}
_NOT_SCANS = {
    *(
        "mask",
        "masks",
        "brainmask",
        "seg",
        "segs",
        "dseg",
        "fseg",
        "probseg",
        "segmentation",
        "label",
        "labels",
    ),
    *("aseg", "aparc", "parc", "wmparc", "parcellation", "roi", "rois"),
}
_NOT_ANATOMY_SUFFIXES = {
    *("bold", "sbref", "cbv", "dwi", "adc", "epi", "phasediff", "phase", "phase1", "phase2", "magnitude"),
    *("magnitude1", "magnitude2", "fieldmap", "asl", "m0scan", "pet", "bvec", "bval"),
}


@dataclass(frozen=True)
class Source:
    """A volume on disk that seems worth reading.

    Attributes:
        files: absolute; one, or a pair's header and image.
        name: what it is called in tables: its path from the folder that was given, that folder included.
        identity: subject, session and sequence.
        bytes, mtime_ns: total size and latest change of its files, to recognise it later without reading.
    """

    files: tuple[Path, ...]
    name: str
    identity: Identity
    bytes: int
    mtime_ns: int

    @property
    def path(self) -> Path:
        """The file that stands for the volume."""
        return self.files[-1]


@dataclass(frozen=True)
class Skipped:
    """A file that is not used. `broken` tells a bad file from one that is left out by rule."""

    path: Path
    name: str
    reason: str
    broken: bool = False


@dataclass
class Found:
    """What was found, in a fixed order."""

    sources: list[Source] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def find_volumes(paths: Sequence[Path], table: Path | None = None) -> Found:
    """Look for volumes.

    Hidden files and folders are passed over in silence. Named files are taken whatever they are called; in
    folders, BIDS folders of other kinds of data, derivatives, masks and label images are left out.

    Args:
        paths: files and folders, searched to any depth.
        table: CSV or TSV with the columns file, subject, session, sequence, which overrides what names say.

    Raises:
        UserError: a path does not exist or is no volume, nothing was found, or the table is wrong.
    """
    found = Found()
    seen: set[Path] = set()
    for path in paths:
        path = Path(path)
        if path.is_dir():
            _search(path, found, seen)
        elif path.is_file():
            if _suffix(path) is None:
                raise UserError(f"{path}: not a volume; expected {', '.join(SUFFIXES)} or a folder of them")
            root = path.resolve()
            _add(
                root,
                PurePosixPath(printable(f"{root.parent.name}/{root.name}")),
                found,
                seen,
                _dataset_of(root.parent),
            )
        else:
            raise UserError(f"{path}: no such file or folder")
    if not found.sources:
        where = ", ".join(map(str, paths))
        left_out = f"; {len(found.skipped)} left out, {_first(found.skipped)}" if found.skipped else ""
        raise UserError(f"{where}: no volumes ({', '.join(SUFFIXES)}) found{left_out}")
    if table is not None:
        found.sources = _override(found.sources, Path(table))
    return found


def _first(skipped: list[Skipped]) -> str:
    return f"the first {skipped[0].name}: {skipped[0].reason}"


def _suffix(path: Path) -> str | None:
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)


def _dataset_of(folder: Path) -> str | None:
    """Name of the BIDS dataset around a folder."""
    for above in (folder, *folder.parents):
        if (above / "dataset_description.json").is_file():
            return above.name
    return None


def _search(top: Path, found: Found, seen: set[Path]) -> None:
    root = top.resolve()
    dataset = _dataset_of(root)
    visited: set[tuple[int, int]] = set()  # so that a link to a folder above ends the walk

    def unreadable(error: OSError) -> None:
        folder = Path(error.filename)
        reason = f"folder can't be read ({(error.strerror or str(error)).lower()})"
        found.skipped.append(Skipped(folder, _name(root, folder), reason, broken=True))

    for current, folders, files in os.walk(root, onerror=unreadable, followlinks=True):
        here = Path(current)
        state = here.stat()
        if (state.st_dev, state.st_ino) in visited:
            folders[:] = []
            continue
        visited.add((state.st_dev, state.st_ino))
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        dataset_here = here.name if "dataset_description.json" in files else None
        for file in sorted(files):
            path = here / file
            if file.startswith(".") or _suffix(path) is None:
                continue
            name = PurePosixPath(_name(root, path))
            reason = _left_out(name)
            if reason:
                found.skipped.append(Skipped(path, str(name), reason))
            else:
                _add(path, name, found, seen, dataset_here or _nearest(root, here, dataset))


def _nearest(root: Path, here: Path, outer: str | None) -> str | None:
    """The BIDS dataset of a folder below `root`, whose own is `outer`."""
    while here != root:
        if (here / "dataset_description.json").is_file():
            return here.name
        here = here.parent
    return outer


def _name(root: Path, path: Path) -> str:
    return printable(PurePosixPath(root.name, *path.relative_to(root).parts).as_posix())


def printable(text: str) -> str:
    """A file name as valid text: bytes that are not UTF-8 become question marks in a box."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _left_out(name: PurePosixPath) -> str | None:
    """Why a file in a folder is not wanted, by its name and the folders below the one that was given."""
    for folder in name.parts[1:-1]:
        if folder.lower() in _NOT_ANATOMY:
            return f"in {folder}/, which holds no raw anatomical images"
    stem = stem_of(name.name)
    words = words_of(stem)
    if unwanted := next((word for word in words if word in _NOT_SCANS), None):
        return f"a label or mask image by its name ({unwanted})"
    if stem.startswith("sub-") and words[-1] in _NOT_ANATOMY_SUFFIXES:
        return f"not an anatomical image by its name ({words[-1]})"
    return None


def _add(path: Path, name: PurePosixPath, found: Found, seen: set[Path], dataset: str | None) -> None:
    if path in seen:
        return
    seen.add(path)
    suffix = _suffix(path)
    files: tuple[Path, ...] = (path,)
    if suffix in (".hdr", ".img"):
        other = ".img" if suffix == ".hdr" else ".hdr"
        partner = next(
            (there for ending in (other, other.upper()) if (there := path.with_suffix(ending)).is_file()),
            None,
        )
        if partner is None:
            reason = f"its other half, {path.with_suffix(other).name}, is missing"
            found.skipped.append(Skipped(path, str(name), reason, broken=True))
            return
        seen.add(partner)
        files = (path, partner) if suffix == ".hdr" else (partner, path)
        name = name.with_name(files[1].name)
    try:
        states = [file.stat() for file in files]
    except OSError as error:
        link = path.is_symlink()
        reason = "a link to a file that is not there" if link else str(error.strerror).lower()
        found.skipped.append(Skipped(path, str(name), reason, broken=True))
        return
    found.sources.append(
        Source(
            files=files,
            name=str(name),
            identity=identify(name, dataset),
            bytes=sum(state.st_size for state in states),
            mtime_ns=max(state.st_mtime_ns for state in states),
        )
    )


def _override(sources: list[Source], table: Path) -> list[Source]:
    """Identities from a table; an empty cell, or a missing column, leaves what the name says."""
    rows = _read_table(table)
    here = table.resolve().parent
    by_path: dict[Path, dict[str, str]] = {}
    by_name: dict[str, dict[str, str] | None] = {}
    for row in rows:
        by_path[(here / row["file"]).resolve()] = row
        base = PurePosixPath(row["file"].replace("\\", "/")).name
        by_name[base] = None if base in by_name else row  # a name met twice identifies nothing
    result, matched = [], 0
    for source in sources:
        rows_here = [by_path[file] for file in source.files if file in by_path]
        told = rows_here[0] if rows_here else by_name.get(source.path.name)
        if told:
            matched += 1
            old = source.identity
            new = Identity(
                subject=told.get("subject") or old.subject,
                session=told.get("session") or old.session,
                sequence=told.get("sequence") or old.sequence,
            )
            source = Source(source.files, source.name, new, source.bytes, source.mtime_ns)
        result.append(source)
    if not matched:
        raise UserError(
            f"{table}: none of its {len(rows)} rows names a volume that was found; check the column 'file'"
        )
    return result


def _read_table(table: Path) -> list[dict[str, str]]:
    if not table.is_file():
        raise UserError(f"{table}: no such file")
    delimiter = "\t" if table.suffix.lower() in (".tsv", ".txt") else ","
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = [
                {
                    str(key).strip().lower(): (value or "").strip()
                    for key, value in row.items()
                    if isinstance(value, str)
                }
                for row in csv.DictReader(file, delimiter=delimiter)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table}: not readable as a table ({error})") from None
    if not rows or "file" not in rows[0] or not {"subject", "session", "sequence"} & set(rows[0]):
        raise UserError(
            f"{table}: needs a heading with file and any of subject, session, sequence, and rows below it"
        )
    names = {sequence.lower(): sequence for sequence in SEQUENCES}
    for number, row in enumerate(rows, start=2):
        sequence = row.get("sequence", "")
        if sequence and sequence.lower() not in names:
            raise UserError(
                f"{table}: line {number}: sequence {sequence!r} is none of {', '.join(SEQUENCES)}"
            )
        if sequence:
            row["sequence"] = names[sequence.lower()]
    return [row for row in rows if row["file"]]
