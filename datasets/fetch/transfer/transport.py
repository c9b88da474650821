"""Download one address to one file: resumed, verified, with retries, and clear errors where retrying won't help.

pooch, parfive and fsspec restart after an interruption, and huggingface_hub's resume checks neither that the content is
still the same nor the range it received; so we use requests for HTTP and resume here.
"""

from __future__ import annotations

import datetime
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests

from mri_transfer.datasets.fetch.transfer.answers import (
    Again,
    Client,
    Refused,
    Unreachable,
    check_status,
    is_page,
    length_of,
    page_instead,
)
from mri_transfer.datasets.fetch.transfer.part import Part, Remote, digests, fault_of
from mri_transfer.datasets.fetch.transfer.space import need_space
from mri_transfer.datasets.fetch.transfer.threads import Stopped
from mri_transfer.errors import UserError
from mri_transfer.progress import say
from mri_transfer.storage.files import names_errors, write_all

T = TypeVar("T")

_BLOCK = 1 << 15  # bytes; the most a reset connection can lose
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE)
_WRONG_RANGES = 2  # after this many, stop requesting ranges from a server
_WRONG_SIZES = 3  # this many sizes in a row that differ from the listing are not an accident


@dataclass(frozen=True)
class Patience:
    """Retry limits.

    Attributes:
        tries: consecutive failures without progress before giving up.
        backoff: seconds before the second try; doubled each time.
        longest: most seconds to wait, whatever a server requests.
        timeout: seconds without data after which a connection counts as dead.
    """

    tries: int = 8
    backoff: float = 1.0
    longest: float = 600.0
    timeout: float = 60.0


class _Transfer:
    """The state of one file's download."""

    def __init__(self, part: Part, tick: Callable[[int], None]):
        self.part = part
        self.wrong_ranges = 0
        self.wrong_sizes = 0
        self._tick = tick
        self._counted_bytes = 0

    def count(self, size: int) -> None:
        """Update the progress bar."""
        self._tick(size - self._counted_bytes)
        self._counted_bytes = size


class Downloader:
    """Downloads for several threads, which share retry limits.

    Args:
        stop: once set, downloads end with :class:`Stopped`; received data is kept.
        tick: called with bytes gained, or lost (negative) if a file restarts.
    """

    def __init__(
        self, patience: Patience, stop: threading.Event, tick: Callable[[int], None] = lambda gained: None
    ):
        self.client = Client(patience.timeout)
        self._patience, self._stop, self._tick = patience, stop, tick
        self._not_before = 0.0  # a server's request to wait applies to all our connections

    def get(self, remote: Remote, target: Path, adopt: bool = True) -> dict[str, Any]:
        """Download a file, resuming an earlier call's part; replace the target once the new file is complete.

        Args:
            adopt: accept an existing intact target, as left by a call killed after finishing it.

        Returns:
            The receipt entry: url, bytes, md5, sha256, how it was checked, when.

        Raises:
            Refused: the server refuses, sends something else, or sends damaged data twice.
            Unreachable: the server does not answer; the part is kept.
            OSError: it can't be written; the part is kept.
            Stopped: see `stop`.
        """
        part = Part(target)
        if adopt and target.is_file():
            digest = digests(target)
            if not fault_of(target, target.name, digest, remote):
                part.discard()
                self._tick(digest["bytes"])
                return _receipt(remote, digest, target.name)
        fault: str | None = None
        for _ in range(2):
            transfer = _Transfer(part, self._tick)
            if part.begins(remote):
                transfer.count(part.size())
            try:
                self._persist(remote, lambda transfer=transfer: self._receive(remote, transfer), part.size)  # type: ignore[misc]
            finally:
                part.close()
            digest = digests(part.path)
            fault = fault_of(part.path, target.name, digest, remote)
            if fault is None:
                part.finish()
                return _receipt(remote, digest, target.name)
            say(f"{remote.url}: {fault}; fetching it again")
            part.discard()
            transfer.count(0)
        raise Refused(
            f"{remote.url}: damaged twice: {fault}; run the same command later, look at {remote.home}, or name a "
            "--mirror"
        )

    def read(self, remote: Remote, max_bytes: int) -> bytes:
        """The content of a small file of at most `max_bytes` bytes; raises as :meth:`get` does."""

        def once() -> bytes:
            with self.client.ask(remote, {}) as response:
                check_status(response, remote)
                content = b""
                for block in response.raw.stream(_BLOCK, decode_content=True):
                    content += block
                    if len(content) > max_bytes:
                        raise Refused(f"{remote.url}: longer than {max_bytes} bytes; look at {remote.home}")
                if len(content) < (length_of(response) or 0):
                    raise Again("the connection dropped")
                return content

        return self._persist(remote, once, lambda: 0)

    def size(self, remote: Remote) -> int | None:
        """A file's size as announced by the server, or None if unknown; asked once."""
        try:
            with self.client.ask(remote, {}, "HEAD") as response:
                plain = response.status_code == 200 and not is_page(response)
                return length_of(response) if plain else None
        except (Again, UserError):
            return None

    def _persist(self, remote: Remote, action: Callable[[], T], progress: Callable[[], int]) -> T:
        """Retry `action` until it works; a try that got further than any before does not count as a failure."""
        failures, best = 0, progress()
        while True:
            self._sleep_until(self._not_before)
            try:
                return action()
            except Again as trouble:
                failures = 0 if progress() > best else failures + 1
                best = max(best, progress())
                if failures >= self._patience.tries:
                    raise Unreachable(
                        f"{remote.url}: {trouble}, {failures} times in a row; run the same command again to "
                        "continue"
                    ) from None
                if trouble.wait > self._patience.longest:
                    raise Unreachable(
                        f"{remote.url}: {trouble} and asks to wait {trouble.wait / 60:.0f} minutes; run the "
                        "same command then to continue"
                    ) from None
                wait = self._patience.backoff * 2.0 ** (failures - 1) if failures else 0.0
                wait = min(max(wait, trouble.wait), self._patience.longest)
                if wait >= 1:
                    say(f"{remote.url}: {trouble}; again in {wait:.0f} s")
                if trouble.wait:
                    self._not_before = max(self._not_before, time.monotonic() + trouble.wait)
                self._sleep_until(time.monotonic() + wait)

    def _sleep_until(self, moment: float) -> None:
        if self._stop.wait(max(0.0, moment - time.monotonic())):
            raise Stopped

    def _receive(self, remote: Remote, transfer: _Transfer) -> None:
        """One request for the missing data; returns when the part has the length the server states."""
        part = transfer.part
        offset = part.size() if part.begins(remote) and transfer.wrong_ranges < _WRONG_RANGES else 0
        if offset and offset == part.total:
            return
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and (validator := part.validator(remote)):
            headers["If-Range"] = validator
        with self.client.ask(remote, headers) as response:
            if response.status_code == 416 and offset:
                _settle_end(response, remote, transfer)
                return
            check_status(response, remote)
            total: int | None
            if response.status_code == 206:
                total = _check_range(response, remote, transfer, offset)
                if offset and part.total is None:
                    part.note({**part.card, "bytes": total})
            else:
                total = length_of(response)
                if remote.bytes is not None and total is not None and total != remote.bytes:
                    transfer.wrong_sizes += 1
                    trouble = f"the source lists {remote.bytes} bytes and sends {total}"
                    if transfer.wrong_sizes < _WRONG_SIZES:
                        raise Again(trouble)
                    raise Refused(f"{remote.url}: {trouble}; run the same command again to look afresh")
                if offset and _changed(response, part, remote):
                    say(f"{remote.url}: has changed at its source; starting over")
                offset = 0
            self._append(response, remote, transfer, offset, total)
        if part.total is None:
            part.note({**part.card, "bytes": part.size()})  # a stream of unknown length that ended in order
        elif part.size() < part.total:
            raise Again(f"the connection dropped after {part.size()} of {part.total} bytes")

    def _append(
        self,
        response: requests.Response,
        remote: Remote,
        transfer: _Transfer,
        offset: int,
        total: int | None,
    ) -> None:
        part, began = transfer.part, False
        for block in response.raw.stream(_BLOCK, decode_content=False):
            if not began:
                if offset == 0:  # only now: don't discard the part for a login page
                    if is_page(response, block):
                        raise page_instead(response, remote)
                    self._begin(response, remote, transfer, total)
                need_space(part.path, (part.total or 0) - offset, "the download")
                began = True
            if self._stop.is_set():
                raise Stopped
            if part.total is not None and part.size() + len(block) > part.total:
                part.discard()
                transfer.count(0)
                raise Again("the server sent more than it announced")
            with names_errors(part.path):
                try:
                    write_all(part.descriptor(), block)
                finally:
                    transfer.count(part.size())
        if not began and offset == 0:
            if total:
                raise Again("the connection dropped before the first byte")
            self._begin(response, remote, transfer, total)  # an empty file

    def _begin(
        self, response: requests.Response, remote: Remote, transfer: _Transfer, total: int | None
    ) -> None:
        card = {
            "url": remote.url,
            "etag": response.headers.get("ETag"),
            "last_modified": response.headers.get("Last-Modified"),
            "bytes": total,
        }
        transfer.count(0)
        transfer.part.restart(card)


def _receipt(remote: Remote, digest: dict[str, Any], name: str) -> dict[str, Any]:
    """The receipt entry of a received file."""
    checks = ["published MD5"] if remote.md5 else ["gzip checksum"] if name.endswith((".gz", ".tgz")) else []
    checks += ["listed size"] if remote.bytes is not None else []
    now = datetime.datetime.now(datetime.timezone.utc)
    return {"url": remote.url, **digest, "checked": checks, "received": now.isoformat(timespec="seconds")}


def _changed(response: requests.Response, part: Part, remote: Remote) -> bool:
    """Whether a response has different content from the part, judging by its validators."""
    for header, key in (("ETag", "etag"), ("Last-Modified", "last_modified")):
        before, now = part.card.get(key), response.headers.get(header)
        if before and now:
            return part.card["url"] == remote.url and before != now
    return False


def _check_range(response: requests.Response, remote: Remote, transfer: _Transfer, offset: int) -> int:
    """The total size stated by a partial response, after checking that it continues the part."""
    part = transfer.part
    match = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    total = int(match[2]) + 1 if match and match[3] == "*" else int(match[3]) if match else 0
    if offset and match and (_changed(response, part, remote) or part.total not in (None, total)):
        part.discard()
        transfer.count(0)
        raise Again("the file has changed at its source")
    if not match or int(match[1]) != offset or not offset <= int(match[2]) < total:
        transfer.wrong_ranges += 1
        raise Again(f"the server was asked for bytes from {offset} and sent others")
    return total


def _settle_end(response: requests.Response, remote: Remote, transfer: _Transfer) -> None:
    """The server says nothing follows the part: it is complete, or belongs to another file."""
    part = transfer.part
    match = re.fullmatch(r"bytes \*/(\d{1,18})", response.headers.get("Content-Range", "").strip())
    if match and int(match[1]) == part.size():
        part.note({**part.card, "bytes": part.size()})
        return
    part.discard()
    transfer.count(0)
    raise Again("the server has no more of this file")
