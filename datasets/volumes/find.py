"""Finding volumes and pictures: files, folders, BIDS trees, DICOM series; their subjects, and what is left out."""

from __future__ import annotations

import collections
import importlib.util
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from mri_transfer.datasets.image_files import SUFFIXES as PICTURES
from mri_transfer.datasets.volumes import left_out, sidecar
from mri_transfer.datasets.volumes.folders import (
    dataset_of,
    looks_like_dicom,
    name_below,
    nearest_dataset,
    partner_of,
    printable,
    state_of,
    walk,
)
from mri_transfer.datasets.volumes.identity_table import override
from mri_transfer.datasets.volumes.names_of_maps import tissue_classes
from mri_transfer.datasets.volumes.naming import Identity, stem_of
from mri_transfer.datasets.volumes.not_here import packed
from mri_transfer.datasets.volumes.people.decide import decide
from mri_transfer.datasets.volumes.people.evidence import File
from mri_transfer.datasets.volumes.people.pattern import Pattern, ways_to_write
from mri_transfer.errors import UserError
from mri_transfer.words import counted

SUFFIXES = (
    *(".nii.gz", ".nii", ".hdr", ".img", ".hdr.gz", ".img.gz", ".mgz", ".mgh", ".mgh.gz"),
    *(".mnc", ".mnc.gz", ".nrrd", ".nhdr", ".mha", ".mhd"),
)
_UNKNOWN = Identity("", "", "unknown")  # until all files are known
NO_PYDICOM = "DICOM, and reading it needs pydicom: pip install 'mri-transfer[dicom]'"


@dataclass(frozen=True)
class Source:
    """A volume, or a picture, on disk that seems worth reading.

    Attributes:
        files: absolute; one, a header and its image, or the slices of a DICOM series.
        name: its name in tables: the path from the given folder, that folder included.
        identity: subject, session and sequence.
        bytes, mtime_ns: total size and latest change of its files, to recognise it later without reading it.
        plane: which plane a picture shows, or "unknown"; empty for a volume.
        is_series: whether it is a DICOM series.
        evidence: what its path and tags say about its subject.
        stated: the parts of its identity that a table gives.
    """

    files: tuple[Path, ...]
    name: str
    identity: Identity
    bytes: int
    mtime_ns: int
    plane: str = ""
    is_series: bool = False
    evidence: File | None = None
    stated: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The file that represents the volume."""
        return self.files[-1]


@dataclass(frozen=True)
class Skipped:
    """A file that is not used. `broken` distinguishes a bad file from one left out by a rule."""

    path: Path
    name: str
    reason: str
    broken: bool = False


class NothingFound(UserError):
    """No volume, or no picture, was found; `skipped` lists what was left out."""

    def __init__(self, text: str, skipped: Sequence[Skipped]):
        entries = [{"file": skip.name, "reason": skip.reason} for skip in skipped]
        super().__init__(text, {"skipped": entries})
        self.skipped = tuple(skipped)

    def __reduce__(self) -> tuple[Any, ...]:
        return NothingFound, (str(self), self.skipped)


@dataclass
class Inventory:
    """The results, in a fixed order; `remarks` are lines for the user."""

    sources: list[Source] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def find_volumes(
    paths: Sequence[Path],
    table: Path | None = None,
    include: Sequence[str] = (),
    pictures: bool = False,
    subject: Pattern | None = None,
) -> Inventory:
    """Look for volumes, or for pictures.

    Hidden files and folders are skipped silently. Files given explicitly are taken whatever their names; within
    folders, BIDS folders of other data types, derivatives, masks and label images are left out.

    Args:
        paths: files and folders, searched to any depth.
        table: CSV or TSV with the columns file, subject, session, sequence, plane, which overrides names.
        include: kinds in :data:`left_out.KINDS` to keep nevertheless.
        pictures: look for pictures (PNG, JPEG, ...), each one slice, instead of volumes.
        subject: pattern locating the person in a path; paths it doesn't match are decided as without it.

    Raises:
        NothingFound: there is nothing to use.
        UserError: a path does not exist or is of another kind, the table is wrong, or the pattern matches nothing.
    """
    search = _Search(tuple(include), pictures, subject)
    for path in paths:
        search.look(Path(path))
    inventory = search.finish()
    if not inventory.sources:
        places = ", ".join(map(str, paths))
        if any(NO_PYDICOM in skip.reason for skip in inventory.skipped):
            raise NothingFound(f"{places}: {NO_PYDICOM}", inventory.skipped)
        skipped = sorted(
            inventory.skipped, key=lambda skip: not skip.broken
        )  # bad files before those left out by a rule
        first = (
            f"; {len(skipped)} left out, the first {skipped[0].name}: {skipped[0].reason}" if skipped else ""
        )
        raise NothingFound(
            f"{places}: no {search.expected} found{first}{_other_kind(paths, pictures)}", skipped
        )
    inventory.sources = identified(inventory.sources)
    if subject is not None:
        _check_pattern(inventory, subject)
    if table is not None:
        inventory.sources = override(inventory.sources, Path(table))
    return inventory


def identified(sources: Sequence[Source]) -> list[Source]:
    """Sources with their identities, decided over all of them at once."""
    persons = decide([source.evidence for source in sources if source.evidence])
    return [
        replace(
            source,
            identity=Identity(
                person.subject, person.session, person.sequence, person.site, person.dataset, person.how
            ),
        )
        for source, person in zip(sources, persons, strict=True)
    ]


def _check_pattern(inventory: Inventory, subject: Pattern) -> None:
    missed = [source for source in inventory.sources if source.evidence and not source.evidence.told]
    if len(missed) == len(inventory.sources):
        below = missed[0].name.partition("/")[2] or missed[0].name
        raise UserError(
            f"--subject {subject.text}: matches none of the {len(missed)} paths, such as {below}; * is one level of "
            "the path, ** any number, and the folder that was given is not part of it"
        )
    if missed:
        inventory.remarks.append(
            f"--subject {subject.text} doesn't match {len(missed)} of {len(inventory.sources)} paths (such as "
            f"{missed[0].name}); the people on those are worked out without it"
        )


def _by_header(path: Path) -> str | None:
    """The reason from the header of a file left out by name, which is more informative."""
    if not path.name.lower().endswith((".nii", ".nii.gz")) or not path.is_file():
        return None
    from mri_transfer.datasets.volumes.formats.nifti import says_what_it_is

    evidence = says_what_it_is(path)
    return None if evidence is None else f"{evidence.reason}; see --include {evidence.kind}"


def _other_kind(paths: Sequence[Path], pictures: bool) -> str:
    """What a folder without volumes may be intended for."""
    if not pictures and any(
        file.suffix.lower() in PICTURES
        for path in paths
        if Path(path).is_dir()
        for file in Path(path).rglob("*")
    ):
        return (
            "; it holds pictures: `slices --images` reads folders of slices, and `audit`, `finetune` and `compare` "
            "take labelled ones"
        )
    return ""


class _Search:
    """One search over all the given paths."""

    def __init__(self, include: tuple[str, ...], pictures: bool, subject: Pattern | None = None):
        self.inventory = Inventory()
        self.include, self.pictures, self.subject = include, pictures, subject
        self.suffixes = PICTURES if pictures else SUFFIXES
        expected = (
            f"pictures ({', '.join(PICTURES)})" if pictures else f"volumes ({', '.join(SUFFIXES)}, DICOM)"
        )
        self.expected = expected
        self._visited: set[Path] = set()
        # file → its name, its BIDS dataset
        self._dicom: dict[Path, tuple[PurePosixPath, Path | None]] = {}

    def look(self, path: Path) -> None:
        """Take a file, or everything wanted in a folder."""
        if path.is_dir():
            before = self._met()
            self._look_into(path)
            if self._met() == before and not self._has_met(path.resolve()):
                self.inventory.remarks.append(
                    f"{path}: no {self.expected} found{_other_kind([path], self.pictures)}"
                )
        elif path.is_file():
            root = path.resolve()
            name = PurePosixPath(printable(f"{root.parent.name}/{root.name}"))
            if self._suffix(path) is not None and not self._is_lone_dicom(path):
                self._add(root, name, dataset_of(root.parent))
            elif not self.pictures and looks_like_dicom(path):
                self._dicom[root] = (name, dataset_of(root.parent))
            elif not self.pictures and (reason := packed(path, self.suffixes)):
                raise UserError(f"{path}: {reason}")
            else:
                kind = "picture" if self.pictures else "volume"
                raise UserError(
                    f"{path}: not a {kind}; expected {', '.join(self.suffixes)} or a folder of them"
                )
        else:
            raise UserError(f"{path}: no such file or folder")

    def finish(self) -> Inventory:
        """All results, once all paths are searched."""
        if self._dicom:
            self._group_dicom()
        names = [source.name for source in self.inventory.sources]
        classes = {} if "maps" in self.include or self.pictures else tissue_classes(names)
        for source in self.inventory.sources:
            if source.name in classes:
                reason = f"a tissue class of {classes[source.name]} by its name; see --include maps"
                self.inventory.skipped.append(Skipped(source.path, source.name, reason))
        self.inventory.sources = [source for source in self.inventory.sources if source.name not in classes]
        originals = left_out.same_scans([source.name for source in self.inventory.sources])
        for source in self.inventory.sources:
            if source.name in originals:
                reason = f"the same scan as {originals[source.name]}, in another state"
                self.inventory.skipped.append(Skipped(source.path, source.name, reason))
        self.inventory.sources = [source for source in self.inventory.sources if source.name not in originals]
        return self.inventory

    def _met(self) -> int:
        return len(self._visited) + len(self.inventory.skipped) + len(self._dicom)

    def _has_met(self, root: Path) -> bool:
        """Whether another given path has already yielded a file below this one."""
        skipped = (skip.path for skip in self.inventory.skipped)
        return any(root in path.parents for path in (*self._visited, *self._dicom, *skipped))

    def _suffix(self, path: Path) -> str | None:
        name = path.name.lower()
        return next((suffix for suffix in self.suffixes if name.endswith(suffix)), None)

    def _is_lone_dicom(self, path: Path) -> bool:
        """Old scanners name a DICOM slice IMG0001.img; a pair has a header beside it."""
        is_img = not self.pictures and path.suffix.lower() == ".img"
        return is_img and partner_of(path) is None and looks_like_dicom(path)

    def _look_into(self, top: Path) -> None:
        root = top.resolve()
        dataset = dataset_of(root)

        def unreadable(folder: Path, why: str) -> None:
            reason = f"folder can't be read ({why})"
            self.inventory.skipped.append(Skipped(folder, name_below(root, folder), reason, broken=True))

        for folder, files in walk(root, unreadable):
            dataset_here = nearest_dataset(root, folder, dataset)
            not_wanted: collections.Counter[str] = collections.Counter()
            for path in files:
                name = PurePosixPath(name_below(root, path))
                is_dicom = self._suffix(path) is None or self._is_lone_dicom(path)
                if is_dicom and (self.pictures or not looks_like_dicom(path)):
                    if not self.pictures and (remark := packed(path, self.suffixes)):
                        self.inventory.skipped.append(Skipped(path, str(name), remark, broken=True))
                    continue
                reason = left_out.left_out(name, self.include)
                if reason and is_dicom:
                    not_wanted[reason] += 1
                elif reason:
                    self.inventory.skipped.append(Skipped(path, str(name), _by_header(path) or reason))
                elif is_dicom:
                    self._dicom.setdefault(path, (name, dataset_here))
                else:
                    self._add(path, name, dataset_here)
            for reason, count in not_wanted.items():
                remark = f"{reason} ({count} DICOM files)"
                self.inventory.skipped.append(Skipped(folder, name_below(root, folder), remark))

    def _add(self, path: Path, name: PurePosixPath, dataset: Path | None) -> None:
        if path in self._visited:
            return
        self._visited.add(path)
        files: tuple[Path, ...] = (path,)
        suffix = self._suffix(path) or ""
        if suffix.removesuffix(".gz") in (".hdr", ".img"):
            partner = partner_of(path)
            if partner is None:
                other = path.name[: -len(suffix)] + (".img" if suffix.startswith(".hdr") else ".hdr")
                reason = f"its other half, {printable(other)}, is missing"
                self.inventory.skipped.append(Skipped(path, str(name), reason, broken=True))
                return
            self._visited.add(partner)
            files = (path, partner) if suffix.startswith(".hdr") else (partner, path)
            name = name.with_name(printable(files[1].name))
        elif suffix in (".nrrd", ".nhdr", ".mha", ".mhd"):
            from mri_transfer.datasets.volumes.formats import metaimage, nrrd
            from mri_transfer.datasets.volumes.formats.stored import BadVolume

            try:
                detached = (nrrd if suffix in (".nrrd", ".nhdr") else metaimage).data_file(path)
            except BadVolume as error:
                self.inventory.skipped.append(Skipped(path, str(name), str(error), broken=True))
                return
            except OSError:
                detached = None  # reported below, or by the reader
            files = (path,) if detached is None else (path, detached)
        self._take(files, name, dataset)

    def _take(self, files: tuple[Path, ...], name: PurePosixPath, dataset: Path | None) -> None:
        state = state_of(files)
        if isinstance(state, str):
            self.inventory.skipped.append(Skipped(files[0], str(name), state, broken=True))
            return
        sequence = "unknown"
        if not self.pictures and (json_path := sidecar.beside(files[-1])):
            facts = sidecar.read(json_path, name.name, self.include)
            if facts and facts.reason is not None:
                self.inventory.skipped.append(Skipped(files[0], str(name), facts.reason))
                return
            sequence = facts.sequence if facts else sequence
        plane = "unknown" if self.pictures else ""
        evidence = replace(self._evidence(files[-1], name, dataset), beside=sequence)
        self.inventory.sources.append(
            Source(files, str(name), _UNKNOWN, *state, plane=plane, evidence=evidence)
        )

    def _evidence(
        self, path: Path, name: PurePosixPath, dataset: Path | None, is_folder: bool = False, first: str = ""
    ) -> File:
        """Evidence from a path; `name` is that of a file, or of the folder of a series whose first file is `first`."""
        stem = name.name if is_folder else stem_of(name.name) or name.name
        folder = path.parent if is_folder else path
        top = folder.parents[len(name.parts) - 2] if len(name.parts) > 1 else folder
        fields = self.subject.match(ways_to_write(name, stem, is_folder, first)) if self.subject else ()
        # Zip files made on a Mac spell an umlaut in two characters, others in one.
        parts = (unicodedata.normalize("NFC", part) for part in (*name.parts[:-1], stem))
        return File(
            parts=tuple(parts),
            top=printable(top.as_posix()),
            dataset=printable(dataset.as_posix()) if dataset else "",
            picture=self.pictures,
            told=fields,
            is_folder=is_folder,
        )

    def _group_dicom(self) -> None:
        if importlib.util.find_spec("pydicom") is None:
            path, (name, _) = next(iter(self._dicom.items()))
            reason = f"{len(self._dicom)} files of {NO_PYDICOM}" if len(self._dicom) > 1 else NO_PYDICOM
            self.inventory.skipped.append(Skipped(path.parent, str(name.parent), reason, broken=True))
            return
        from mri_transfer.datasets.volumes.formats.dicom.series import group_series

        series, rest = group_series(list(self._dicom), self.include)
        if unused := collections.Counter(scan.unused_id for scan in series if scan.unused_id):
            (patient, count), *others = unused.most_common()
            more = f", and {counted(len(others), 'more such ID')}" if others else ""
            self.inventory.remarks.append(
                f"PatientID {printable(patient)} ({counted(count, 'scan')}) seems to be several people's, by folders, "
                f"bodies or makers{more}: folders say who is who"
            )
        counts: collections.Counter[str] = collections.Counter()
        for scan in series:
            first, dataset = self._dicom[scan.files[0]]
            name = first if len(scan.files) == 1 else first.parent / printable(scan.label)
            counts[str(name)] += 1
            if counts[str(name)] > 1:  # series of two studies with the same number
                name = name.with_name(f"{name.name} ({counts[str(name)]})")
            state = state_of(scan.files)
            if isinstance(state, str):
                self.inventory.skipped.append(Skipped(scan.files[0], str(name), state, broken=True))
                continue
            # A single file may be named after the person; with several, the folder is.
            alone = len(scan.files) == 1
            evidence = replace(
                self._evidence(
                    scan.files[0], first if alone else first.parent, dataset, not alone, scan.files[0].name
                ),
                patient=printable(scan.patient),
                study=scan.session,
                sequence=scan.sequence,
            )
            self.inventory.sources.append(
                Source(scan.files, str(name), _UNKNOWN, *state, is_series=True, evidence=evidence)
            )
        for out in rest:
            first, _ = self._dicom[out.files[0]]
            label = str(first if len(out.files) == 1 else first.parent / printable(out.label))
            self.inventory.skipped.append(Skipped(out.files[0], label, out.reason, out.broken))
