"""What all sources share during a fetch: settings, folder, receipt, downloader, progress bar."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mri_transfer.datasets.fetch.config import FetchConfig
from mri_transfer.datasets.fetch.sources import Source
from mri_transfer.datasets.fetch.transfer.addresses import split_credentials
from mri_transfer.datasets.fetch.transfer.answers import Refused
from mri_transfer.datasets.fetch.transfer.receipts import Receipts
from mri_transfer.datasets.fetch.transfer.threads import run_all
from mri_transfer.datasets.fetch.transfer.transport import Downloader, Patience
from mri_transfer.progress import bar, say
from mri_transfer.storage.files import sha256

Job = TypeVar("Job")


class Run:
    """One call of the command.

    Attributes:
        base: base address of the files, ending in a slash.
        gained: bytes of the files this call downloaded, resumed ones in full.
    """

    def __init__(self, config: FetchConfig, source: Source, receipts: Receipts):
        self.config, self.source, self.receipts = config, source, receipts
        self.base = source.base_of(config.mirror)
        self.gained = self._unpacked = 0
        self.stop = threading.Event()
        self.downloader = Downloader(
            Patience(tries=config.retries, timeout=config.timeout), self.stop, self._tick
        )
        self._guard = threading.Lock()
        if config.mirror:
            self.downloader.client.auth = split_credentials(config.mirror)[1]
        self._bar: Any = None

    @property
    def out(self) -> Path:
        """The folder."""
        return self.config.out

    def _tick(self, gained: int) -> None:
        with self._guard:
            self.gained += gained
            if self._bar is not None:
                self._bar.update(gained)

    def count_unpacked(self) -> None:
        """Show on the bar that one more file has been unpacked."""
        with self._guard:
            self._unpacked += 1
            if self._bar is not None:
                self._bar.set_postfix_str(f"{self._unpacked} files unpacked")

    def download(
        self,
        jobs: Sequence[Job],
        work: Callable[[Job], Any],
        total: int,
        name_of: Callable[[Job], str],
    ) -> list[dict[str, str]]:
        """Run the jobs, several at a time.

        Args:
            total: approximate bytes to download.

        Returns:
            The name and reason of each unavailable file. With `strict`, the first of these, and in any case any other
            error, ends all jobs by raising it.
        """
        failed: list[dict[str, str]] = []
        if not jobs:
            return failed
        with (
            bar(total=total, desc="download", unit="B", unit_scale=True) as self._bar,
            contextlib.closing(run_all(jobs, work, self.config.parallel, self.stop)) as results,
        ):
            for done in results:
                try:
                    done.result()
                except Refused as refusal:
                    if self.config.strict:
                        raise
                    failed.append({"file": name_of(done.job), "reason": str(refusal)})
        self._bar = None
        self.stop.clear()
        return failed

    def is_whole(self, files: dict[str, Any]) -> bool:
        """Whether all files of a receipt exist, by size, and with `--verify` by checksum too.

        Args:
            files: paths below the folder, with size in bytes and SHA-256.
        """
        for name, (size, digest) in files.items():
            path = self.out / name
            fault = ""
            if not path.is_file():
                fault = "is missing"
            elif path.stat().st_size != size:
                fault = "has changed its size"
            elif self.config.verify and sha256(path) != digest:
                fault = "is not what was received, by its checksum"
            if fault:
                say(f"{path}: {fault}; fetching it again")
                return False
        return True
