"""`mri-transfer verify`: are stores, runs, encoders, classifiers and comparisons still as they were written?

It reads every byte, changes nothing, and needs neither TensorFlow nor the original data.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from mri_transfer import progress
from mri_transfer.datasets.store.store import KIND as STORE
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.errors import UserError
from mri_transfer.options import argument
from mri_transfer.storage.files import FOLDER_CARD, folder_kind, read_json, read_object, sha256
from mri_transfer.storage.json_lines import read_lines
from mri_transfer.storage.sums import BEFORE, SUMS, files_in, read_sums
from mri_transfer.words import counted

ENCODER = "encoder.json"
CLASSIFIER = "classifier.json"
# By name of the card: its fields that name a file (or a file's own name) and give its SHA-256.
VOUCHED = (
    (ENCODER, "weights", "weights_sha256"),
    (CLASSIFIER, "head", "head_sha256"),
    ("familiarity.json", "=familiarity.npz", "arrays_sha256"),
)
OF_ENCODER = (CLASSIFIER, "familiarity.json")  # they belong to an encoder, identified by its SHA-256
RESTORE = "copy it again from where it came, or "
REMEDIES = {
    STORE: "remove the store and extract it again",
    "comparison": "delete what is damaged and run the same `mri-transfer compare` again, which keeps the rest",
    "pretraining run": RESTORE + "run `mri-transfer pretrain` again into a new folder",
    "classifier": RESTORE + "run `mri-transfer finetune` again into a new folder",
    "encoder": RESTORE + "make it again with `mri-transfer pretrain`",
    "export": RESTORE + "run the same `mri-transfer export` again",
    "training graph": RESTORE + "run the same `mri-transfer export` again into a new folder",
    "audit": "run the same `mri-transfer audit` again",
}
UNKNOWN = "name a store, a run, an encoder, a classifier, a comparison, an audit or an export"


@dataclasses.dataclass(frozen=True)
class VerifyConfig:
    """What to look at."""

    EXAMPLE: ClassVar[str] = """\
examples:
  mri-transfer verify store runs/mri runs/classifier report
  mri-transfer verify runs/* --json found.json

The exit code is 0 if everything is intact, and 2 otherwise.
"""

    paths: tuple[Path, ...] = argument(
        metavar="PATH",
        help="stores of `slices`, runs of `pretrain` and `finetune`, encoders, comparisons, audits, exports",
        many=True,
    )


def verify(config: VerifyConfig) -> dict[str, Any]:
    """Read everything and report what is intact and what isn't.

    Returns:
        {"paths": [{"path", "kind", "files", "whole", "problems": [{"file", "problem"}], "remedy", "notes"}]}.

    Raises:
        UserError: something isn't intact; `details` has the same.
    """
    reports = [examine(Path(path)) for path in config.paths]
    for report in reports:
        for problem in report["problems"] if report["kind"] else ():
            progress.show(f"{problem['file']}: {problem['problem']}")
        for note in report["notes"]:
            progress.show(f"{report['path']}: {note}")
        if report["whole"]:
            progress.show(f"{report['path']}: whole ({report['kind']}, {counted(report['files'], 'file')})")
    if broken := [report for report in reports if not report["whole"]]:
        first, more = broken[0], f" (and {len(broken) - 1} more of the folders)" if len(broken) > 1 else ""
        problem = first["problems"][0]
        fault = f"not whole, {counted(len(first['problems']), 'problem')}, the first in {problem['file']}"
        raise UserError(
            f"{first['path']}: {fault if first['kind'] else problem['problem']}{more}; {first['remedy']}",
            {"paths": reports},
        )
    return {"paths": reports}


def examine(folder: Path) -> dict[str, Any]:
    """Read everything in a folder; returns its entry for :func:`verify`."""
    problems: dict[str, str] = {}  # by file; the first problem found
    notes: list[str] = []
    kind = _kind(folder, problems)
    if kind is not None:
        for check in (_sums, _cards, _lines, _vouched, _states):
            for file, problem in check(folder, notes):
                problems.setdefault(str(file), problem)
        if kind == STORE and not problems:
            _store(folder, problems)
    return {
        "path": str(folder),
        "kind": kind,
        "files": len(files_in(folder)) if kind else 0,
        "whole": not problems,
        "problems": [{"file": file, "problem": problem} for file, problem in problems.items()],
        "remedy": REMEDIES.get(kind, "make it again") if problems and kind else UNKNOWN if problems else "",
        "notes": notes,
    }


def _kind(folder: Path, problems: dict[str, str]) -> str | None:
    if not folder.is_dir():
        problems[str(folder)] = "no such folder"
        return None
    try:
        kind = folder_kind(folder)
    except UserError as error:
        problems[str(folder / FOLDER_CARD)] = _without(str(error), folder / FOLDER_CARD)
        kind = None
    if (folder / CLASSIFIER).is_file():
        kind = "classifier"
    elif kind is None and (folder / ENCODER).is_file():
        kind = "encoder"
    elif kind is None and not problems:
        problems[str(folder)] = "holds nothing that this program made as a store, run, encoder or comparison"
    return kind or ("damaged folder" if problems and (folder / FOLDER_CARD).is_file() else None)


def _without(text: str, path: Path) -> str:
    """An error message without the file name, which precedes it anyway, and without its remedy."""
    return text.removeprefix(f"{path}: ").partition(";")[0]


def _sums(folder: Path, notes: list[str]) -> Iterator[tuple[Path, str]]:
    path = folder / SUMS
    if not path.is_file():
        if (folder / BEFORE).is_file():
            notes.append(
                "a command is writing here or was interrupted; run it again to have all of it verified"
            )
        elif not (folder / ENCODER).is_file():
            notes.append(
                f"has no {SUMS}: made by an older version, or not finished; only what carries a checksum is verified"
            )
        return
    try:
        sums = read_sums(path)
    except (OSError, ValueError) as error:
        yield path, f"is damaged ({error})"
        return
    files = files_in(folder)
    for name, digest in progress.bar(sums.items(), desc=f"verifying {folder.name}", unit="file"):
        if name not in files:
            if not (name.startswith("cache/") and not (folder / "cache").is_dir()):  # that may be removed
                yield folder / name, "is missing"
        elif _digest(files[name]) != digest:
            yield folder / name, f"is damaged (its SHA-256 is not that of {SUMS})"
    if added := [name for name in files if name not in sums]:
        notes.append(f"{len(added)} files were added later, such as {added[0]}")


def _digest(path: Path) -> str | None:
    try:
        return sha256(path)
    except OSError:
        return None


def _cards(folder: Path, notes: list[str]) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.rglob("*.json")):
        try:
            if isinstance(read_json(path), dict):
                read_object(path)
        except UserError as error:
            yield path, _without(str(error), path)


def _lines(folder: Path, notes: list[str]) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.rglob("*.jsonl")):
        try:
            with path.open("rb") as file:
                damaged = [str(line.number) for line in read_lines(file) if line.value is None]
        except OSError as error:
            yield path, f"can't be read ({error.strerror})"
            continue
        if damaged:
            yield path, f"line {', '.join(damaged[:3])}{' and more' if len(damaged) > 3 else ''} is damaged"


def _vouched(folder: Path, notes: list[str]) -> Iterator[tuple[Path, str]]:
    """Check files whose SHA-256 a card gives, and cards that belong to an encoder."""
    for name, field, digest in VOUCHED:
        for path in sorted(folder.rglob(name)):
            card = _card(path)
            file_name = field[1:] if field.startswith("=") else card.get(field)
            if not isinstance(file_name, str) or Path(file_name).name != file_name:
                yield path, f"is damaged ({field})"
            elif not (path.parent / file_name).is_file():
                yield path.parent / file_name, "is missing"
            elif _digest(path.parent / file_name) != card.get(digest):
                yield path.parent / file_name, f"is damaged (its SHA-256 is not that of {name})"
            encoder = _card(path.parent / "encoder" / ENCODER)
            if name in OF_ENCODER and card.get("encoder_sha256") != encoder.get("weights_sha256"):
                yield path, "belongs to another encoder than the run's"


def _states(folder: Path, notes: list[str]) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.rglob("state-*.json")):
        if _digest(path.with_suffix(".npz")) != _card(path).get("sha256"):
            yield path.with_suffix(".npz"), f"is missing or damaged (its SHA-256 is not that of {path.name})"


def _card(path: Path) -> dict[str, Any]:
    with contextlib.suppress(UserError):
        return read_object(path)
    return {}


def _store(folder: Path, problems: dict[str, str]) -> None:
    """Check that a store's files belong together; such damage doesn't belong to a single file."""
    try:
        store = SliceStore.open(folder)
        if not (folder / SUMS).is_file():  # otherwise the shards were already read
            store.verify()
    except UserError as error:
        problems[str(folder)] = str(error).removeprefix(f"{folder}: ").partition(";")[0]
