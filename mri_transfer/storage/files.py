"""Files that survive interruption: written under a temporary name, fsynced and renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import stat
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import GenericAlias, MappingProxyType
from typing import IO, Any, TypeAlias, get_args

import numpy as np

from mri_transfer import __version__
from mri_transfer.errors import UserError
from mri_transfer.storage.cards import SEAL, is_broken, sealed

FOLDER_CARD = "folder.json"
DEEPEST = 100  # levels of JSON
LONGEST_NUMBER = 300  # digits
LONGEST_NAME = 255  # bytes of a file name, nearly everywhere
MOST_BYTES = 100_000_000
"""Limit for a card or table read as a whole, and for a line of a JSON-lines file. Real ones have a few megabytes."""
BINARY = getattr(os, "O_BINARY", 0)  # for `os.open`: else Windows converts line ends and stops at Ctrl-Z
Kind: TypeAlias = type | GenericAlias | tuple[type, ...] | list[Any] | Mapping[str, Any]
"""Expected JSON value: a type or one of several, `[str]` for a list, `dict[str, int]`, or an object's fields."""


def fsync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut, if folders can be opened for that (not on Windows)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def names_errors(path: str | Path) -> Iterator[None]:
    """Add the file name, which the operating system leaves out, to a read or write error."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from None
        raise


def require_place(path: Path, option: str) -> None:
    """Check that a file can be written there before doing the work to fill it.

    Raises:
        UserError: its folder doesn't exist, or it is a folder itself.
    """
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {path.parent}; make it first, or name another")
    if path.is_dir():
        raise UserError(f"{option} {path}: is a folder; name a file")


def name_with(name: str, end: str) -> str:
    """A file name with a suffix, cut if the two exceed the 255 bytes that file systems allow."""
    if len(os.fsencode(name + end)) <= LONGEST_NAME:
        return name + end
    end = f"~{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}{end}"
    while len(os.fsencode(name + end)) > LONGEST_NAME:
        name = name[:-1]
    return name + end


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open `path` for writing so that it holds either its old content or all of the new, never a part.

    Only regular files are replaced. A link is kept and its target written; a device, a pipe or this process's own
    output is written to directly.

    Args:
        path: the final name; its folder must exist.
        mode: "w" for text (UTF-8) or "wb" for bytes.

    Raises:
        OSError: the disk is full or the folder can't be written; the old file is untouched.
    """
    path = Path(path)
    text = "b" not in mode
    encoding, newline = ("utf-8", "") if text else (None, None)
    # File names may be any bytes; Python represents those that are not UTF-8 as surrogates.
    errors = "surrogateescape" if text else None
    stream = _stream(path)
    if stream is not None:
        with (
            names_errors(path),
            os.fdopen(stream, mode, encoding=encoding, errors=errors, newline=newline) as file,
        ):
            yield file
        return
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    part = path.with_name(name_with(path.name, f".{uuid.uuid4().hex[:8]}.part"))
    try:
        with names_errors(path), part.open(mode, encoding=encoding, errors=errors, newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        fsync_folder(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _stream(path: Path) -> int | None:
    """A descriptor to write to, if a path leads to a device, a pipe, or the target of standard output or error.

    Raises:
        IsADirectoryError: it leads to a folder.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    for descriptor, printed in ((1, sys.stdout), (2, sys.stderr)):
        with contextlib.suppress(OSError):  # closed
            if os.path.samestat(status, os.fstat(descriptor)):
                if printed is not None:
                    printed.flush()
                return os.dup(descriptor)
    return None if stat.S_ISREG(status.st_mode) else os.open(path, os.O_WRONLY | BINARY)


def _plain(value: Any) -> Any:
    """Convert what JSON can't hold: paths to strings, NumPy scalars and arrays to numbers and lists."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} does not go into JSON")


def finite(value: Any) -> Any:
    """The same, with null for non-finite numbers, which JSON lacks (the loss of a diverged run)."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, (float, np.floating)) and not math.isfinite(value):
        return None
    return value


def to_json(value: Any, indent: int | None = 2) -> str:
    """Readable JSON of dictionaries, paths and NumPy values; a non-finite float is an error."""
    text = json.dumps(value, indent=indent, default=_plain, allow_nan=False, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is not UTF-8, which JSON must be, so escape it
        return json.dumps(value, indent=indent, default=_plain, allow_nan=False)
    return text


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON, atomically."""
    with atomic_write(path) as file:
        file.write(to_json(value) + "\n")


def write_card(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object atomically and sealed, so that :func:`read_object` notices any change."""
    with atomic_write(path) as file:
        file.write(sealed(to_json(value)))


def parse_json(content: bytes | str) -> Any:
    """The single parser for all JSON read from disk.

    Raises:
        ValueError: it is not UTF-8 or not JSON, holds a number that isn't finite or has more than 300 digits, more than
            a float can hold, or text that no file can hold, or nests more than 100 levels deep.
    """
    text = content.decode("utf-8") if isinstance(content, bytes) else content
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_float, parse_int=_integer)
    except RecursionError:
        raise ValueError("it nests too deeply") from None
    if text.count("[") + text.count("{") > DEEPEST:
        level = [value]
        for _ in range(DEEPEST):
            level = [child for value in level for child in _parts(value)]
        if level:
            raise ValueError("it nests too deeply")
    if (
        "\\ud" in text.lower()
    ):  # escaped surrogates, which are characters in pairs, and bytes of file names alone
        json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")
    return value


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")


def _float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text[:20])


def _integer(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def read_json(path: Path, remedy: str = "restore it or make it again") -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing, unreadable or rejected by :func:`parse_json`; the message ends in the remedy.
    """
    return _content_and_json(path, remedy)[1]


def read_whole(path: Path, max_bytes: int = MOST_BYTES) -> bytes:
    """All of a file, or of a pipe's content, if at most `max_bytes` bytes.

    Raises:
        OSError: it can't be read, or holds more.
    """
    with names_errors(path), Path(path).open("rb") as file:
        content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return content


def _content_and_json(path: Path, remedy: str) -> tuple[bytes, Any]:
    try:
        content = read_whole(path)
        return content, parse_json(content)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); {remedy}") from None


class NewerFormat(UserError):
    """The file is not damaged: this program is too old for it."""


def read_object(
    path: Path,
    kinds: Mapping[str, Kind] = MappingProxyType({}),
    *,
    newest: int | None = None,
    fault: str = "is damaged",
    remedy: str = "restore it or make it again",
) -> dict[str, Any]:
    """Read a JSON file that holds an object with fields of known types.

    Args:
        path: the file.
        kinds: its fields and their types; a float, true or false is not accepted for an int.
        newest: the latest format number, in the field "format", that this program knows.
        fault: the message's words for a file that differs.
        remedy: how the message ends.

    Raises:
        NewerFormat: its format is later.
        UserError: as in :func:`read_json`; or its fields differ, and the message names them; or it was changed after
            :func:`write_card` wrote it.
    """
    content, fields = _content_and_json(path, remedy)
    if newest is not None and not wrong_fields(fields, {"format": int}) and fields["format"] > newest:
        raise NewerFormat(
            f"{path}: was written by a newer mri-transfer (format {fields['format']}); update this one"
        )
    wrong = wrong_fields(fields, kinds)
    if wrong:
        raise UserError(f"{path}: {fault} ({', '.join(wrong)}); {remedy}")
    if is_broken(content, fields):
        raise UserError(f"{path}: was changed after it was written; {remedy}")
    fields.pop(SEAL, None)
    return fields


def object_or_none(path: Path) -> dict[str, Any] | None:
    """The object in an optional JSON file; None if it is missing, unreadable or something else."""
    try:
        return read_object(path)
    except UserError:
        return None


def wrong_fields(
    card: Any, kinds: Mapping[str, Kind], where_given: Mapping[str, Kind] = MappingProxyType({})
) -> list[str]:
    """The fields in `kinds` that are missing from a parsed JSON file or have another type.

    Those in `where_given` may be missing.
    """
    if not isinstance(card, dict):
        return list(kinds) or ["not a JSON object"]
    expected = {**{key: kind for key, kind in where_given.items() if key in card}, **kinds}
    return [key for key, kind in expected.items() if key not in card or not _is(card[key], kind)]


def _is(value: Any, kind: Kind) -> bool:
    if isinstance(kind, Mapping):
        return not wrong_fields(value, kind)
    if isinstance(kind, list):
        return isinstance(value, list) and _are(value, kind[0])
    if isinstance(kind, GenericAlias):
        return isinstance(value, dict) and _are(value.values(), get_args(kind)[1])
    return _are((value,), kind)


def _are(values: Iterable[Any], kind: Any) -> bool:
    if isinstance(kind, (Mapping, list, GenericAlias)):
        return all(_is(value, kind) for value in values)
    # Check the few types that occur: a store's journal has lists of a million numbers.
    return all(
        issubclass(of, kind) and (of is not bool or kind in (bool, object)) for of in set(map(type, values))
    )


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data` unbuffered, so that a full disk fails here and not on closing."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def claim_folder(folder: Path, kind: str) -> bool:
    """Claim `folder` for one kind of content ("slice store", "pretraining run", ...), or confirm the claim.

    Returns:
        True if the folder was already claimed for this kind (so there may be work to resume), False if it is new.

    Raises:
        UserError: it is a file, holds something else, or is claimed for other content.
    """
    if check_claim(folder, kind):
        return True
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: can't be made ({error.strerror}); choose another --out") from None
    write_card(folder / FOLDER_CARD, {"kind": kind, "made_by": f"mri-transfer {__version__}"})
    return False


def check_outside(out: Path, data: Path) -> None:
    """Check that an output folder isn't inside a folder of images, whose pictures its own would join the next time.

    Raises:
        UserError: it is.
    """
    if Path(out).resolve().is_relative_to(Path(data).resolve()):
        raise UserError(
            f"--out {out}: lies in {data}, so the pictures written there would count as its images; choose a folder "
            "outside"
        )


def check_claim(folder: Path, kind: str) -> bool:
    """What :func:`claim_folder` would return or raise, without writing anything."""
    folder = Path(folder)
    if folder.is_file():
        raise UserError(f"{folder}: is a file; name a folder that does not exist yet")
    if folder_kind(folder) == kind:
        return True
    if (folder / FOLDER_CARD).is_file():
        raise UserError(f"{folder}: holds a {folder_kind(folder)}, not a {kind}; choose another --out")
    if folder.is_dir() and any(not entry.name.endswith(".part") for entry in folder.iterdir()):
        raise UserError(f"{folder}: holds something else; choose a new or empty folder for the {kind}")
    return False


def folder_kind(folder: Path) -> str | None:
    """The kind a folder was claimed for, or None if this program didn't claim it.

    Raises:
        UserError: its card is damaged.
    """
    path = Path(folder) / FOLDER_CARD
    card = read_object(path) if path.is_file() else {}
    if wrong_fields(card, {}, {"kind": str}):
        raise UserError(f"{path}: is damaged (kind); restore it or choose another folder")
    return card.get("kind")


def require_folder(folder: Path, kind: str, made_by: str) -> Path:
    """The folder itself, after checking that it holds `kind`.

    Raises:
        UserError: there is no such folder, or it holds something else. `made_by` names the command that makes one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; `mri-transfer {made_by}` makes a {kind}")
    actual = folder_kind(folder)
    if actual != kind:
        holds = f"holds a {actual}" if actual else "was not made by this program"
        raise UserError(f"{folder}: {holds}, and a {kind} is needed; `mri-transfer {made_by}` makes one")
    return folder
