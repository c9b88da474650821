"""A web server on loopback that misbehaves on request, and small faithful copies of what the sources serve."""

from __future__ import annotations

import email.utils
import functools
import hashlib
import io
import tarfile
import threading
import time
import urllib.parse
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import nibabel
import numpy as np
import pytest

LOGIN = b"<!DOCTYPE html><html><body>Please log in</body></html>"


@dataclass
class Content:
    """A file of the server."""

    body: bytes
    etag: str | None = None
    modified: float | None = None
    kind: str = "application/octet-stream"


@dataclass
class Site:
    """Files by path, and how to misbehave: `plans` hold what happens to the next requests of a path, `rule` is
    asked for each request that has no plan, with the path and the number of its requests so far. An action is a
    word and its arguments; see `Handler.do_GET`."""

    files: dict[str, Content] = field(default_factory=dict)
    plans: dict[str, list[tuple]] = field(default_factory=dict)
    rule: Callable[[str, int], tuple | None] = lambda path, number: None
    page: int = 1000  # keys of a listing's page
    pause: float = 0.0  # seconds between two blocks of 16 KiB
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    url: str = ""
    guard: threading.Lock = field(default_factory=threading.Lock)

    def put(self, path: str, body: bytes, validators: bool = True, kind: str = "application/octet-stream"):
        etag = f'"{hashlib.md5(body).hexdigest()}"' if validators else None
        self.files[path] = Content(body, etag, 1.4e9 + len(body) if validators else None, kind)

    def plan(self, path: str, *actions: tuple):
        self.plans[path] = list(actions)

    def gets(self, path: str) -> list[dict[str, str]]:
        return [headers for method, address, headers in self.requests if (method, address) == ("GET", path)]

    def next_action(self, path: str) -> tuple | None:
        with self.guard:
            if self.plans.get(path):
                return self.plans[path].pop(0)
            return self.rule(path, len(self.gets(path)))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        content = self.site.files.get(urllib.parse.unquote(urllib.parse.urlsplit(self.path).path))
        self.site.requests.append(("HEAD", self.path, dict(self.headers)))
        self.send_response(200 if content else 404)
        self.send_header("Content-Length", str(len(content.body) if content else 0))
        self.end_headers()

    def do_GET(self):
        address = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(address.path)
        self.site.requests.append(("GET", path, dict(self.headers)))
        action, *how = self.site.next_action(path) or ("serve",)
        query = urllib.parse.parse_qs(address.query)
        if action == "status":
            return self.short(how[0], b"busy", dict(how[1:]))
        if action == "page":  # a login page where a file was expected
            kind = how[0] if how else "text/html; charset=utf-8"
            return self.short(200, how[1] if len(how) > 1 else LOGIN, {"Content-Type": kind})
        if action == "redirect":
            return self.short(302, b"", {"Location": how[0]})
        if "list-type" in query:
            return self.listing(query)
        content = self.site.files.get(path)
        if content is None:
            return self.short(404, b"no such file", {})
        self.serve(content, action, how)

    def short(self, code: int, body: bytes, headers: dict[str, str]):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def serve(self, content: Content, action: str, how: list):
        body, begin, end = content.body, 0, len(content.body)
        span = self.headers.get("Range")
        same = self.headers.get("If-Range") in (None, content.etag, self.date(content))
        if action == "ignore-if-range":
            same = True
        partial = span is not None and same and action != "ignore-range"
        if partial:
            begin = int(span.removeprefix("bytes=").split("-")[0])
            if begin >= end:
                return self.short(416, b"", {"Content-Range": f"bytes */{end}"})
        if action in ("wrong-range", "shifted-range") and partial:
            begin, end = max(0, begin - 10), end - (10 if action == "shifted-range" else 0)
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(body)}")
        if content.etag:
            self.send_header("ETag", content.etag)
        if content.modified:
            self.send_header("Last-Modified", self.date(content))
        self.send_header("Content-Type", content.kind)
        length = end - begin
        if action == "lie":
            length += how[0]
        chunked = action == "chunked"
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        stop = begin + how[0] if action in ("drop", "stall") else end
        if action == "lie" and how[0] < 0:
            stop = end + how[0]
        for at in range(begin, min(stop, end), 1 << 14):
            block = body[at : min(at + (1 << 14), stop, end)]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)
            if self.site.pause:
                time.sleep(self.site.pause)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")
        if action == "stall":
            self.wfile.flush()
            time.sleep(how[1])
        if action in ("drop", "stall", "lie"):
            self.close_connection = True

    def date(self, content: Content) -> str | None:
        return email.utils.formatdate(content.modified, usegmt=True) if content.modified else None

    def listing(self, query: dict[str, list[str]]):
        """S3's ListObjectsV2."""
        prefix, start = query["prefix"][0], query.get("continuation-token", [""])[0].removeprefix("after:")
        keys = sorted(path[1:] for path in self.site.files if path[1:].startswith(prefix))
        keys = [key for key in keys if key > start]
        page = keys[: self.site.page]
        entries = "".join(
            f"<Contents><Key>{key}</Key><ETag>&quot;{(self.site.files['/' + key].etag or '').strip(chr(34))}&quot;"
            f"</ETag><Size>{len(self.site.files['/' + key].body)}</Size></Contents>"
            for key in page
        )
        more = len(keys) > len(page)
        token = f"<NextContinuationToken>after:{page[-1]}</NextContinuationToken>" if more else ""
        xml = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{entries}</ListBucketResult>"
        )
        self.short(200, xml.encode(), {"Content-Type": "application/xml"})


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        """A client that was killed is no error of the server."""


@pytest.fixture
def site(monkeypatch):
    """A running server without files."""
    monkeypatch.setenv("NO_PROXY", "*")
    instance = Site()
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"site": instance}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    instance.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield instance
    server.shutdown()
    server.server_close()


def nifti(seed: int, side: int = 24) -> bytes:
    """A small NIfTI volume of noise, gzipped."""
    voxels = np.random.default_rng(seed).integers(0, 900, (side, side, side)).astype(np.int16)
    return _gzipped(nibabel.Nifti1Image(voxels, np.eye(4)).to_bytes())


def _gzipped(content: bytes) -> bytes:
    import gzip

    return gzip.compress(content, 1, mtime=0)


def analyze_pair(seed: int) -> tuple[bytes, bytes]:
    """Header and image of a 16-bit big-endian Analyze volume, as OASIS has them."""
    voxels = np.random.default_rng(seed).integers(0, 900, (12, 16, 12)).astype(">i2")
    header = nibabel.AnalyzeHeader(endianness=">")
    header.set_data_shape(voxels.shape)
    header.set_data_dtype(np.int16)
    return header.binaryblock, voxels.tobytes(order="F")


def make_tar(members: dict[str, bytes], mode: str = "w") -> bytes:
    """A tar with the folders and files of `members`, as GNU tar writes it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, format=tarfile.GNU_FORMAT) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1_400_000_000
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def make_zip(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


def ixi_members(modality: str, subjects: int = 4) -> dict[str, bytes]:
    sites = ("Guys", "HH", "IOP")
    return {
        f"IXI{number:03d}-{sites[number % 3]}-{900 + number}-{modality}.nii.gz": nifti(number)
        for number in range(1, subjects + 1)
    }


def oasis_members(disc: int, sessions: int = 2) -> dict[str, bytes]:
    members = {}
    for number in range(sessions):
        session = f"OAS1_{disc:02d}{number:02d}_MR1"
        place = f"disc{disc}/{session}"
        names = [f"RAW/{session}_mpr-{n}_anon" for n in (1, 2, 3)]
        names.append(f"PROCESSED/MPRAGE/SUBJ_111/{session}_mpr_n3_anon_sbj_111")
        names += [
            f"PROCESSED/MPRAGE/T88_111/{session}_mpr_n3_anon_111_t88_{kind}gfc" for kind in ("", "masked_")
        ]
        names.append(f"FSL_SEG/{session}_mpr_n3_anon_111_t88_masked_gfc_fseg")
        for at, name in enumerate(names):
            header, image = analyze_pair(disc * 1000 + number * 10 + at)
            members[f"{place}/{name}.hdr"], members[f"{place}/{name}.img"] = header, image
        members[f"{place}/PROCESSED/MPRAGE/SUBJ_111/{session}_sag_66.gif"] = b"GIF89a"
        members[f"{place}/{session}.txt"] = b"AGE: 74\n"
        members[f"{place}/{session}.xml"] = b"<session/>"
    return members


@functools.cache
def tumor_members(per_class: int = 3) -> dict[str, bytes]:
    from PIL import Image

    members = {}
    rng = np.random.default_rng(0)
    for split in ("Testing", "Training"):
        for label in ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor"):
            for number in range(per_class):
                stream = io.BytesIO()
                Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(stream, "JPEG")
                members[f"{split}/{label}/image({number}).jpg"] = stream.getvalue()
    return members


def openneuro_files(number: str = "ds000001", subjects: int = 3) -> dict[str, bytes]:
    files = {
        f"{number}/dataset_description.json": b'{"Name": "Test", "License": "CC0", "DatasetDOI": "10.1/x"}',
        f"{number}/participants.tsv": b"participant_id\tage\nsub-01\t20\n",
        f"{number}/README": "Größe\n".encode(),
        f"{number}/CHANGES": b"1.0.0\n",
        f"{number}/T1w.json": b"{}",
        f"{number}/task-rest_bold.json": b"{}",
        f"{number}/derivatives/sub-01/anat/sub-01_T1w.nii.gz": nifti(99),
    }
    for subject in range(1, subjects + 1):
        place = f"{number}/sub-{subject:02d}"
        files[f"{place}/anat/sub-{subject:02d}_T1w.nii.gz"] = nifti(subject)
        files[f"{place}/anat/sub-{subject:02d}_T1w.json"] = b'{"EchoTime": 0.002}'
        files[f"{place}/ses-a/anat/sub-{subject:02d}_ses-a_FLAIR.nii.gz"] = nifti(subject + 50)
        files[f"{place}/func/sub-{subject:02d}_task-rest_bold.nii.gz"] = nifti(7)
    return files


@dataclass(frozen=True)
class Faithful:
    """A source in small: what its server serves, how to fetch it, and what must be on disk in the end."""

    name: str
    served: dict[str, bytes]  # by path
    arguments: tuple[str, ...]
    expected: dict[str, bytes]  # by path below --out
    md5: dict[str, str] = field(default_factory=dict)  # of IXI's archives, by modality


@functools.cache
def _ixi() -> Faithful:
    members = {kind: ixi_members(kind) for kind in ("T1", "T2")}
    tars = {kind: make_tar(content) for kind, content in members.items()}
    return Faithful(
        "ixi",
        {f"/IXI-{kind}.tar": tar for kind, tar in tars.items()},
        ("ixi",),
        {f"IXI-{kind}/{name}": body for kind, content in members.items() for name, body in content.items()},
        {kind: hashlib.md5(tar).hexdigest() for kind, tar in tars.items()},
    )


@functools.cache
def _oasis() -> Faithful:
    discs = {disc: oasis_members(disc) for disc in (1, 12)}
    return Faithful(
        "oasis1",
        {
            f"/oasis_cross-sectional_disc{disc}.tar.gz": make_tar(members, "w:gz")
            for disc, members in discs.items()
        },
        ("oasis1", "--discs", "1,12", "--accept-terms"),
        {
            name: body
            for members in discs.values()
            for name, body in members.items()
            if ("SUBJ_111" in name and not name.endswith(".gif")) or name.endswith((".txt", ".xml"))
        },
    )


@functools.cache
def _openneuro() -> Faithful:
    files = openneuro_files()
    return Faithful(
        "openneuro",
        {f"/{name}": body for name, body in files.items()},
        ("openneuro", "ds000001"),
        {
            name: body
            for name, body in files.items()
            if not any(word in name for word in ("derivatives", "func", "task-rest"))
        },
    )


@functools.cache
def _tumors() -> Faithful:
    members = tumor_members()
    return Faithful(
        "tumors",
        {"/sartajbhuvaji/brain-tumor-classification-mri": make_zip(members)},
        ("tumors",),
        members,
    )


FAITHFUL = {"ixi": _ixi, "oasis1": _oasis, "openneuro": _openneuro, "tumors": _tumors}


@pytest.fixture(params=list(FAITHFUL))
def small(request, site) -> Faithful:
    """Each source in small, served by `site`."""
    source = FAITHFUL[request.param]()
    for path, body in source.served.items():
        site.put(path, body)
    return source


@pytest.fixture
def tools():
    """The makers of archives above, for tests that need their own."""
    import types

    return types.SimpleNamespace(
        make_tar=make_tar,
        make_zip=make_zip,
        nifti=nifti,
        faithful=FAITHFUL,
        tumors=tumor_members,
        login=LOGIN,
    )


@pytest.fixture
def published(monkeypatch):
    """Let IXI's published checksums be those of the small archives."""
    import dataclasses

    from mri_transfer.datasets.fetch.sources import IXI_ARCHIVES

    def publish(md5: dict[str, str]) -> None:
        for kind, value in md5.items():
            monkeypatch.setitem(IXI_ARCHIVES, kind, dataclasses.replace(IXI_ARCHIVES[kind], md5=value))

    return publish


@pytest.fixture
def content_of():
    """Every data file below a folder, with its bytes: what is beside the data, and hidden, is left out."""

    def read(folder) -> dict[str, bytes]:
        beside = {"folder.json", "receipt.jsonl", "summary.json", "volumes.csv"}
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name not in beside and not path.name.startswith("TERMS-")
        }

    return read
