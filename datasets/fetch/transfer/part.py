"""A partially downloaded file, and the card beside it that identifies the whole."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mri_transfer.datasets.fetch.transfer.space import most_unpacked
from mri_transfer.errors import UserError
from mri_transfer.storage.files import (
    BINARY,
    fsync_folder,
    name_with,
    names_errors,
    read_object,
    write_json,
)

CARD = ".part.json"


@dataclass(frozen=True)
class Remote:
    """A file at its source.

    Attributes:
        url: its address.
        home: the page to consult if it is unavailable.
        bytes, md5: its expected size and checksum, if published.
        denied: what to do when the server refuses access.
    """

    url: str
    home: str
    bytes: int | None = None
    md5: str | None = None
    denied: str = ""


class Part:
    """`<name>.part` and its card `<name>.part.json`: address, validators, total size.

    The part never mixes in bytes of content other than the card's: new content first empties the part.
    """

    def __init__(self, target: Path):
        self.target = target
        self.path = target.with_name(name_with(target.name, ".part"))
        self._card_path = target.with_name(name_with(target.name, CARD))
        self._descriptor: int | None = None
        self.card: dict[str, Any] = {}
        if self._card_path.is_file():
            with contextlib.suppress(UserError):
                self.card = read_object(self._card_path, {"url": str})

    def size(self) -> int:
        """Bytes received so far."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def total(self) -> int | None:
        """Total bytes, if the server stated them."""
        total = self.card.get("bytes")
        return total if isinstance(total, int) and total >= 0 else None

    def begins(self, remote: Remote) -> bool:
        """Whether it can be resumed: same address, or a published checksum to verify the result."""
        if not self.card or (self.total is not None and self.size() > self.total):
            return False
        return self.card["url"] == remote.url or remote.md5 is not None

    def validator(self, remote: Remote) -> str | None:
        """A valid value for an If-Range header (RFC 9110, 13.1.5: no weak entity tags)."""
        if self.card.get("url") != remote.url:
            return None
        etag, modified = self.card.get("etag"), self.card.get("last_modified")
        if isinstance(etag, str) and not etag.startswith("W/"):
            return etag
        return modified if isinstance(modified, str) else None

    def restart(self, card: dict[str, Any]) -> None:
        """Discard the part, and expect the content that `card` describes."""
        self.close()
        with names_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | BINARY
            self._descriptor = os.open(self.path, flags, 0o666)
        self.note(card)

    def note(self, card: dict[str, Any]) -> None:
        """Save the card."""
        self.card = card
        with names_errors(self._card_path):
            write_json(self._card_path, card)

    def descriptor(self) -> int:
        """Where to append."""
        if self._descriptor is None:
            with names_errors(self.path):
                self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | BINARY)
        return self._descriptor

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def finish(self) -> None:
        """Give the part its final name, after syncing its content to disk."""
        with names_errors(self.path):
            os.fsync(self.descriptor())
        self.close()
        self.path.replace(self.target)
        fsync_folder(self.target.parent)
        self._card_path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove part and card."""
        self.close()
        self.path.unlink(missing_ok=True)
        self._card_path.unlink(missing_ok=True)
        self.card = {}


def clear_cards(folder: Path) -> None:
    """Remove cards that a process killed at the end of a download left beside the whole file."""
    for card in folder.rglob(f"*{CARD}"):
        target = card.with_name(card.name.removesuffix(CARD))
        if target.is_file() and not target.with_name(f"{target.name}.part").exists():
            card.unlink(missing_ok=True)


def digests(path: Path) -> dict[str, Any]:
    """Size, MD5 and SHA-256 of a file, in one pass."""
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    with names_errors(path), path.open("rb") as file:
        while block := file.read(1 << 20):
            md5.update(block)
            sha256.update(block)
            size += len(block)
    return {"bytes": size, "md5": md5.hexdigest(), "sha256": sha256.hexdigest()}


def fault_of(path: Path, name: str, digest: dict[str, Any], remote: Remote) -> str | None:
    """The fault of a received file, or None.

    Args:
        path: its current path.
        name: its final name; identifies a gzip file, whose own checksum serves if none is published.
        digest: its :func:`digests`.
    """
    if remote.bytes is not None and digest["bytes"] != remote.bytes:
        return f"{digest['bytes']} bytes arrived, and the source lists {remote.bytes}"
    if remote.md5 is not None:
        if digest["md5"] != remote.md5:
            return f"its MD5 is {digest['md5']}, and {remote.md5} is published"
        return None
    return gzip_fault(path) if name.endswith((".gz", ".tgz")) else None


def gzip_fault(path: Path) -> str | None:
    """Check a gzip file by its own checksum; returns the fault, or None."""
    limit = most_unpacked(path)
    unpacked = 0
    try:
        with gzip.open(path) as file:
            while block := file.read(1 << 20):
                unpacked += len(block)
                if unpacked > limit:
                    return "it unpacks to an absurd multiple of its size"
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        return f"damaged gzip data ({str(error) or 'ends too early'})".replace("\n", " ")
    return None
