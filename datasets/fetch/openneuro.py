"""The anatomical images of an OpenNeuro data set, from the listing of its public bucket."""

from __future__ import annotations

import re
import shlex
import urllib.parse
import xml.etree.ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mri_transfer.datasets.fetch.config import check_number
from mri_transfer.datasets.fetch.context import Run
from mri_transfer.datasets.fetch.terms import keep_terms, terms_text
from mri_transfer.datasets.fetch.transfer.answers import Refused
from mri_transfer.datasets.fetch.transfer.members import UnsafeName, safe_path
from mri_transfer.datasets.fetch.transfer.part import Remote
from mri_transfer.datasets.fetch.transfer.space import need_space
from mri_transfer.datasets.fetch.transfer.transport import Downloader
from mri_transfer.errors import UserError
from mri_transfer.storage.files import parse_json, read_whole

DESCRIPTION = "dataset_description.json"
_PAGE_BYTES = 16 << 20  # a page of 1,000 keys takes about half a megabyte
_MOST_PAGES = 5_000
_ROOT = re.compile(
    r"(dataset_description\.json|participants\.(tsv|json)|README(\.\w+)?|CHANGES|LICENSE"
    r"|([A-Za-z0-9-]+_)*(T1w|T2w|PDw|FLAIR|T2star|inplaneT1|inplaneT2|PDT2|T1map|T2map|UNIT1)\.json)"
)
_ANATOMY = re.compile(r"sub-[^/]+/(ses-[^/]+/)?anat/[^/]+\.(nii|nii\.gz|json)")
_NOT_SCANS = re.compile(r"_(defacemask|mask)\.(nii|nii\.gz|json)$")
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Listed:
    """A wanted file of the listing; `etag` distinguishes its content from earlier or later versions."""

    path: PurePosixPath
    bytes: int
    etag: str

    def remote(self, base: str, dataset: str) -> Remote:
        """Where to get it. The entity tag of an object stored in one part is its MD5."""
        return Remote(
            url=base + urllib.parse.quote(f"{dataset}/{self.path}"),
            home=f"https://openneuro.org/datasets/{dataset}",
            bytes=self.bytes,
            md5=self.etag if _MD5.fullmatch(self.etag) else None,
        )


def fetch_dataset(run: Run) -> dict[str, Any]:
    """Fetch one data set into a folder named by its number, by which `slices` distinguishes its subjects.

    Returns:
        The summary.

    Raises:
        UserError, OSError: see :func:`mri_transfer.datasets.fetch.fetch.fetch`.
    """
    number, out, receipts = check_number(run.config.name), run.out, run.receipts
    files = list_anatomy(run.downloader, run.base, number)

    def name_of(file: Listed) -> str:
        return f"{number}/{file.path}"

    def is_here(file: Listed) -> bool:
        entry = receipts.get(name_of(file))
        if entry is None or (entry.get("etag"), entry.get("bytes")) != (file.etag, file.bytes):
            return False
        return run.is_whole({name_of(file): (file.bytes, entry.get("sha256"))})

    def bring(file: Listed) -> None:
        known = receipts.get(name_of(file)) is not None  # then it is damaged, or its content has changed
        entry = run.downloader.get(file.remote(run.base, number), out / name_of(file), adopt=not known)
        receipts.add({"file": name_of(file), **entry, "etag": file.etag})

    def bring_all(files: list[Listed]) -> list[dict[str, str]]:
        return run.download(files, bring, sum(file.bytes for file in files), name_of)

    todo = [file for file in files if not is_here(file)]
    need_space(out, sum(file.bytes for file in todo), f"{number} ({len(todo)} files)")
    # Users should see its licence before its images are fetched.
    failed = bring_all([file for file in todo if file.path.as_posix() == DESCRIPTION])
    licence = licence_of(out / number / DESCRIPTION)
    terms = keep_terms(
        out, number, terms_text(run.source, f"OpenNeuro {number}", f"{run.base}{number}", licence)
    )
    failed += bring_all([file for file in todo if file.path.as_posix() != DESCRIPTION])
    missing = {failure["file"] for failure in failed}
    present = [file for file in files if name_of(file) not in missing]
    return {
        "name": number,
        "already_there": len(files) - len(todo),
        "files": len(present),
        "volumes": sum(file.path.name.endswith((".nii", ".nii.gz")) for file in present),
        "bytes": sum(file.bytes for file in present),
        "downloaded_bytes": run.gained,
        "skipped": [],
        "failed": failed,
        "terms": terms.name,
        "next": f"mri-transfer slices {shlex.quote(str(out / number))} --out store",
    }


def list_anatomy(downloader: Downloader, base: str, dataset: str) -> list[Listed]:
    """Every anatomical image with its sidecar, and the files describing the whole data set.

    Raises:
        UserError: there is no such data set, or nothing anatomical in it, or its listing can't be read.
    """
    files: list[Listed] = []
    keys = 0
    for key, size, etag in _objects(downloader, base, dataset):
        keys += 1
        name = key.removeprefix(f"{dataset}/")
        is_wanted = _ROOT.fullmatch(name) or (_ANATOMY.fullmatch(name) and not _NOT_SCANS.search(name))
        if name == key or not is_wanted:
            continue
        try:
            files.append(Listed(safe_path(name), size, etag))
        except UnsafeName:
            continue
    home = f"https://openneuro.org/datasets/{dataset}"
    if not keys:
        raise UserError(f"{dataset}: OpenNeuro has no files of such a data set; check the number at {home}")
    if not any(file.path.name.endswith((".nii", ".nii.gz")) for file in files):
        raise UserError(f"{dataset}: none of its {keys} files is an anatomical image (anat/); see {home}")
    return sorted(files, key=lambda file: file.path.as_posix())


def _objects(downloader: Downloader, base: str, dataset: str) -> Iterator[tuple[str, int, str]]:
    """Key, size and entity tag of every object, page by page (S3's ListObjectsV2)."""
    token: str | None = None
    for _ in range(_MOST_PAGES):
        query = {"list-type": "2", "prefix": f"{dataset}/"}
        if token:
            query["continuation-token"] = token
        url = f"{base}?{urllib.parse.urlencode(query)}"
        remote = Remote(url, home=f"https://openneuro.org/datasets/{dataset}")
        try:
            root = xml.etree.ElementTree.fromstring(downloader.read(remote, _PAGE_BYTES))
            space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
            if root.tag != f"{space}ListBucketResult":
                raise ValueError(f"<{root.tag}>")
            for entry in root.iterfind(f"{space}Contents"):
                key, size = entry.findtext(f"{space}Key"), int(entry.findtext(f"{space}Size") or "")
                if not key or size < 0:
                    raise ValueError("an object without a key")
                yield key, size, (entry.findtext(f"{space}ETag") or "").strip('"')
            more = (root.findtext(f"{space}IsTruncated") or "").lower() == "true"
            following = root.findtext(f"{space}NextContinuationToken")
        except (xml.etree.ElementTree.ParseError, ValueError) as error:
            raise Refused(f"{url}: no listing of a bucket ({error}); check --mirror") from None
        if not more:
            return
        if not following or following == token:
            raise Refused(
                f"{url}: the listing is incomplete and doesn't say where it continues; check --mirror"
            )
        token = following
    raise Refused(f"{base}: the listing of {dataset} does not end; check --mirror")


def licence_of(description: Path) -> str | None:
    """The licence that a dataset_description.json states, and how to acknowledge the data."""
    try:
        content = parse_json(read_whole(description).decode("utf-8-sig"))
        stated = [
            f"{label}: {content[key]}"
            for key, label in (
                ("License", "Licence"),
                ("HowToAcknowledge", "To acknowledge"),
                ("DatasetDOI", "DOI"),
            )
            if isinstance(content.get(key), str) and content[key].strip()
        ]
    except (OSError, ValueError, AttributeError):
        return None
    return "\n".join(" ".join(line.split()) for line in stated) or None
