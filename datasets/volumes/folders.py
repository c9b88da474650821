"""Folders and files on disk: walking, naming, and recognising what belongs together and what is DICOM."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from mri_transfer.datasets.volumes.not_here import absent


def printable(text: str) -> str:
    """A file name as valid text: bytes that are not UTF-8 become replacement characters."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def name_below(root: Path, path: Path) -> str:
    """The path of a file from the folder `root`, that folder included, as text."""
    return printable(PurePosixPath(root.name, *path.relative_to(root).parts).as_posix())


def walk(root: Path, unreadable: Callable[[Path, str], None]) -> Iterator[tuple[Path, list[Path]]]:
    """Every folder below `root` with its files, in a fixed order; links are followed once, hidden folders skipped.

    Args:
        unreadable: called with each folder that can't be read, and why.
    """
    visited: set[tuple[int, int]] = set()  # so that a link to a parent folder ends the walk

    def report(error: OSError) -> None:
        unreadable(Path(error.filename), (error.strerror or str(error)).lower())

    for current, folders, files in os.walk(root, onerror=report, followlinks=True):
        folder = Path(current)
        state = folder.stat()
        if (state.st_dev, state.st_ino) in visited:
            folders[:] = []
            continue
        visited.add((state.st_dev, state.st_ino))
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        yield folder, [folder / file for file in sorted(files) if not file.startswith(".")]


def state_of(files: tuple[Path, ...]) -> tuple[int, int] | str:
    """Total size and latest modification of files, or why they can't be accessed."""
    for file in files:
        if (reason := absent(file)) is not None:
            return reason
    try:
        states = [file.stat() for file in files]
    except OSError as error:
        link = any(file.is_symlink() for file in files)
        return "a link to a file that is not there" if link else str(error.strerror).lower()
    if not all(file.is_file() for file in files):
        return "not a regular file"
    return sum(state.st_size for state in states), max(state.st_mtime_ns for state in states)


def partner_of(path: Path) -> Path | None:
    """The other half of a `.hdr`/`.img` pair, either of which may be gzipped."""
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    stem, ending = name[:-4], name[-4:].lower()
    other = ".img" if ending == ".hdr" else ".hdr"
    for candidate in (other, f"{other}.gz", other.upper(), f"{other.upper()}.GZ"):
        if (sibling := path.with_name(stem + candidate)).is_file():
            return sibling
    return None


# DICOM files often have no suffix or a numeric one, so all files except these are checked.
_NEVER_DICOM = {
    *(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif"),
    *(".json", ".tsv", ".csv", ".txt", ".md", ".rst", ".pdf", ".html", ".xml", ".yml", ".yaml", ".log"),
    *(".bval", ".bvec", ".mat", ".npy", ".npz", ".h5", ".hdf5", ".py", ".m", ".sh", ".xls", ".xlsx"),
    *(".zip", ".gz", ".tar", ".tgz", ".bz2", ".xz", ".7z", ".mp4", ".avi", ".raw", ".lta", ".xfm", ".stats"),
}


def looks_like_dicom(path: Path) -> bool:
    """Whether a file has DICOM's magic after its preamble, or is named like those without one."""
    suffix = path.suffix.lower()
    if suffix in _NEVER_DICOM or path.name.upper() == "DICOMDIR":
        return False
    try:
        if not path.is_file():  # opening a pipe would block
            return False
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return suffix in (".dcm", ".dicom", ".ima")
    return start[128:] == b"DICM" or (suffix in (".dcm", ".dicom", ".ima") and bool(start))


def dataset_of(folder: Path) -> Path | None:
    """The BIDS dataset around a folder; for derivatives, which may be datasets too, the one they derive from."""
    dataset = None
    for above in (folder, *folder.parents):
        if (above / "dataset_description.json").is_file():
            dataset = above
            if "derivatives" not in above.parts:
                break
    return dataset


def nearest_dataset(root: Path, folder: Path, outer: Path | None) -> Path | None:
    """The BIDS dataset of a folder at or below `root`, whose own dataset is `outer`."""
    while folder != root:
        derived = outer is not None and "derivatives" in folder.relative_to(root).parts
        if not derived and (folder / "dataset_description.json").is_file():
            return folder
        folder = folder.parent
    return outer
