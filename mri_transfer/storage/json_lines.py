"""Append-only files of JSON objects, one per line: a torn end is dropped, and a changed byte is detected.

Every line's last field is a checksum of what precedes it, so it remains JSON that any program can read:

    {"kind": "skipped", "path": "a.nii", "crc32": "1f0e9d42"}

CRC-32 detects every single flipped bit and every burst of up to 32 (Koopman 2002, doi:10.1109/DSN.2002.1028931). Lines
of versions that wrote none are read unchecked.
"""

from __future__ import annotations

import errno
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

from mri_transfer.storage.files import MOST_BYTES, names_errors, parse_json, to_json, write_all
from mri_transfer.storage.locks import is_at, lock, moved

CHECKSUM = "crc32"
_TAIL = f', "{CHECKSUM}": "%08x"}}\n'.encode()
_LENGTH = len(_TAIL % 0)
_FIXED = [place for place, byte in enumerate(_TAIL % 0) if byte != ord("0")]


class Line(NamedTuple):
    """A complete line of a file.

    Attributes:
        number: from 1.
        end: where it ends in the file, bytes.
        value: the parsed object, or None if it is damaged.
        content: its bytes, including the line feed.
    """

    number: int
    end: int
    value: dict[str, Any] | None
    content: bytes


def line_of(value: dict[str, Any]) -> bytes:
    """The line for a non-empty object; its numbers must be finite."""
    start = to_json(value, indent=None).encode()[:-1]
    return start + _TAIL % zlib.crc32(start)


def value_of(line: bytes) -> dict[str, Any]:
    """The object of a line.

    Raises:
        ValueError: it is damaged, or not a JSON object.
    """
    start, tail = line[:-_LENGTH], line[-_LENGTH:]
    if _is_tail(tail):
        if tail != _TAIL % zlib.crc32(start):
            raise ValueError("its checksum differs")
        line = start + b"}"
    value = parse_json(line)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _is_tail(tail: bytes) -> bool:
    """Whether a line ends in a checksum, or did before part of it was changed."""
    expected = _TAIL % 0
    return len(tail) == _LENGTH and 2 * sum(tail[place] == expected[place] for place in _FIXED) > len(_FIXED)


def read_lines(file: IO[bytes]) -> Iterator[Line]:
    """The lines of a file open at its start; a torn last line doesn't count.

    Raises:
        OSError: it can't be read, or a line has more than 100 MB.
    """
    end = 0
    for number, content in enumerate(iter(lambda: file.readline(MOST_BYTES), b""), 1):
        if not content.endswith(b"\n"):
            if len(content) == MOST_BYTES:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), file.name)
            return
        end += len(content)
        try:
            yield Line(number, end, value_of(content), content)
        except ValueError:
            yield Line(number, end, None, content)


def append(descriptor: int, lines: bytes, sync: bool) -> None:
    """Append complete lines to a file: all of them or, on an error such as a full disk, none."""
    end = os.fstat(descriptor).st_size
    try:
        write_all(descriptor, lines)
        if sync:
            os.fsync(descriptor)
    except OSError:  # not on Ctrl-C, after which the caller continues as if they were written
        os.ftruncate(descriptor, end)
        raise


def text_in(content: bytes, field: str) -> str:
    """The apparent value of a text field in a damaged line, or ""."""
    match = re.search(rb'"%s": ("(?:[^"\\]|\\.)*")' % field.encode(), content)
    try:
        value = parse_json(match[1]) if match else ""
    except ValueError:
        return ""
    return "".join(character if character.isprintable() else "?" for character in value)


class LineFile:
    """Such a file, writable by one process at a time, with every line on disk when :meth:`add` returns.

    Raises:
        UserError: another process is writing to its folder.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        with names_errors(self.path):
            self._file = self.path.open("ab", buffering=0)
        try:
            lock(self._file, self.path.parent)
        except BaseException:
            self._file.close()
            raise

    def read(self) -> Iterator[Line]:
        """Every line, in order; a torn end is cut off once all are read."""
        end = 0
        with names_errors(self.path), self.path.open("rb") as file:
            for line in read_lines(file):
                end = line.end
                yield line
        if end < self.path.stat().st_size:
            os.ftruncate(self._file.fileno(), end)

    def add(self, lines: Iterable[bytes]) -> None:
        """Append lines from :func:`line_of` so that they survive a power cut.

        Raises:
            UserError: the file was moved or removed.
        """
        if not is_at(self._file, self.path):
            raise moved(self.path.parent)
        with names_errors(self.path):
            append(self._file.fileno(), b"".join(lines), sync=True)

    def close(self) -> None:
        """Let other processes write."""
        self._file.close()

    def __enter__(self) -> LineFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
