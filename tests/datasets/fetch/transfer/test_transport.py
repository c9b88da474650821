"""One file over a server that drops, lies, changes, ignores, refuses: whole in the end, or one clear line."""

from __future__ import annotations

import contextlib
import email.utils
import gzip
import hashlib
import json
import random
import socket
import threading
import time

import numpy as np
import pytest

from mri_transfer.datasets.fetch.transfer.answers import Refused, Unreachable
from mri_transfer.datasets.fetch.transfer.part import Part, Remote
from mri_transfer.datasets.fetch.transfer.threads import Stopped
from mri_transfer.datasets.fetch.transfer.transport import Downloader, Patience
from mri_transfer.errors import UserError

QUICK = Patience(tries=3, backoff=0.01, longest=2.0, timeout=0.4)
BODY = random.Random(0).randbytes(700_000)
MD5 = hashlib.md5(BODY).hexdigest()


class Bar:
    """What a progress bar was told."""

    def __init__(self):
        self.sum = 0

    def __call__(self, gained):
        self.sum += gained


@pytest.fixture
def get(site, tmp_path):
    """Download /data.bin, or another path, into the test's folder."""
    site.put("/data.bin", BODY)

    def run(path="/data.bin", patience=QUICK, stop=None, tick=lambda gained: None, **known):
        downloader = Downloader(patience, stop or threading.Event(), tick)
        remote = Remote(site.url + path, home="https://example.org/home", **known)
        return downloader.get(remote, tmp_path / path.strip("/").replace("/", "_"))

    return run


def test_a_file_arrives_with_its_checksums(get, site, tmp_path):
    bar = Bar()
    entry = get(tick=bar, md5=MD5, bytes=len(BODY))
    assert (tmp_path / "data.bin").read_bytes() == BODY
    assert (entry["bytes"], entry["md5"]) == (len(BODY), MD5)
    assert entry["sha256"] == hashlib.sha256(BODY).hexdigest()
    assert entry["checked"] == ["published MD5", "listed size"]
    assert bar.sum == len(BODY)
    assert [path.name for path in tmp_path.iterdir()] == ["data.bin"]
    assert site.gets("/data.bin")[0]["Accept-Encoding"] == "identity"


def test_a_file_without_bytes(get, site, tmp_path):
    site.put("/empty", b"")
    assert get("/empty")["bytes"] == 0
    assert (tmp_path / "empty").read_bytes() == b""


@pytest.mark.parametrize(
    "actions",
    [
        pytest.param([("drop", 100_000)] * 6, id="drops-the-connection-every-100-kB"),
        pytest.param(
            [("drop", 0), ("drop", 90_000), ("drop", 0), ("drop", 0)], id="drops-before-the-first-byte"
        ),
        pytest.param([("stall", 150_000, 1.0), ("stall", 50_000, 1.0)], id="stalls"),
        pytest.param([("drop", 200_000), ("ignore-range",)], id="ignores-range"),
        pytest.param([("drop", 200_000), ("wrong-range",)], id="sends-a-wrong-range-once"),
        pytest.param([("drop", 200_000), *[("wrong-range",)] * 2], id="sends-a-wrong-range-twice"),
        pytest.param([("drop", 200_000), *[("shifted-range",)] * 2], id="sends-a-range-of-the-right-length"),
        pytest.param([("chunked",)], id="tells-no-length"),
        pytest.param([("lie", 5_000)], id="announces-more-than-it-sends"),
        pytest.param([("lie", -5_000)], id="announces-less-than-it-has"),
        pytest.param([("status", 503)] * 2, id="503"),
        pytest.param([("status", 500), ("status", 502)], id="500-and-502"),
        pytest.param([("status", 429, ("Retry-After", "1"))], id="429-with-retry-after"),
        pytest.param([("drop", 100_000), ("status", 503), ("drop", 100_000)], id="all-sorts"),
    ],
)
def test_the_file_is_whole_though_the_server(get, site, tmp_path, actions):
    site.plan("/data.bin", *actions)
    bar = Bar()
    lies = any(action == "lie" for action, *_ in actions)  # then only a checksum can tell
    get(tick=bar, md5=MD5 if lies else None)
    assert (tmp_path / "data.bin").read_bytes() == BODY
    assert bar.sum == len(BODY)
    assert not site.plans["/data.bin"]
    assert [path.name for path in tmp_path.iterdir()] == ["data.bin"]


def test_dropped_connections_cost_no_byte_twice(get, site):
    site.plan("/data.bin", *[("drop", 200_000)] * 3)
    get()
    begins = [int(headers.get("Range", "bytes=0-")[6:-1]) for headers in site.gets("/data.bin")]
    assert begins == [0, 200_000, 400_000, 600_000]
    assert all(headers["If-Range"] == site.files["/data.bin"].etag for headers in site.gets("/data.bin")[1:])


def test_a_drop_with_progress_is_no_failure(get, site, tmp_path):
    site.plan("/data.bin", *[("drop", 40_000)] * 20)  # more often than there are tries
    get()
    assert (tmp_path / "data.bin").read_bytes() == BODY


def test_another_process_continues_where_one_was_stopped(get, site, tmp_path):
    site.rule = lambda path, number: ("drop", 250_000) if number == 1 else ("status", 503)
    with pytest.raises(Unreachable, match=r"503.*3 times in a row.*to continue"):
        get()
    assert Part(tmp_path / "data.bin").size() == 250_000
    site.rule = lambda path, number: None
    get()
    assert (tmp_path / "data.bin").read_bytes() == BODY
    assert site.gets("/data.bin")[-1]["Range"] == "bytes=250000-"


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_a_file_that_changes_midway_is_begun_again(get, site, tmp_path, heeds_if_range):
    new = bytes(reversed(BODY))

    def rule(path, number):
        if number == 1:
            return ("drop", 300_000)
        site.put("/data.bin", new)
        return None if heeds_if_range else ("ignore-if-range",)

    site.rule = rule
    get()
    assert (tmp_path / "data.bin").read_bytes() == new


def test_a_file_that_changes_to_the_same_length_without_validators(get, site, tmp_path):
    """Only a published checksum can tell; it does, and the file is fetched again."""
    new = bytes(reversed(BODY))
    site.put("/data.bin", BODY, validators=False)

    def rule(path, number):
        if number == 1:
            return ("drop", 300_000)
        site.put("/data.bin", new, validators=False)
        return None

    site.rule = rule
    get(md5=hashlib.md5(new).hexdigest())
    assert (tmp_path / "data.bin").read_bytes() == new
    assert [headers.get("Range") for headers in site.gets("/data.bin")] == [None, "bytes=300000-", None]


def test_the_part_of_another_address_is_continued_only_if_a_checksum_will_tell(get, site, tmp_path):
    site.put("/mirror/data.bin", BODY)
    part = Part(tmp_path / "data.bin")
    part.restart({"url": "http://elsewhere/data.bin", "etag": '"x"', "bytes": len(BODY)})
    part.path.write_bytes(BODY[:400_000])
    part.close()
    get(md5=MD5)
    assert site.gets("/data.bin")[-1]["Range"] == "bytes=400000-"
    assert "If-Range" not in site.gets("/data.bin")[-1]
    (tmp_path / "data.bin").unlink()
    part.restart({"url": "http://elsewhere/data.bin", "etag": '"x"', "bytes": len(BODY)})
    part.path.write_bytes(b"x" * 400_000)
    part.close()
    get()
    assert "Range" not in site.gets("/data.bin")[-1]
    assert (tmp_path / "data.bin").read_bytes() == BODY


@pytest.mark.parametrize("card", ["torn", "[]", '{"url": 3}', None])
def test_a_part_without_a_readable_card_is_not_trusted(get, tmp_path, card):
    (tmp_path / "data.bin.part").write_bytes(b"x" * 1000)
    if card is not None:
        (tmp_path / "data.bin.part.json").write_text(card)
    get()
    assert (tmp_path / "data.bin").read_bytes() == BODY


def test_a_part_longer_than_the_file_is_not_trusted(get, site, tmp_path):
    card = {"url": f"{site.url}/data.bin", "etag": site.files["/data.bin"].etag, "bytes": len(BODY)}
    (tmp_path / "data.bin.part.json").write_text(json.dumps(card))
    (tmp_path / "data.bin.part").write_bytes(BODY + b"more")
    get()
    assert (tmp_path / "data.bin").read_bytes() == BODY


def test_killed_between_the_last_byte_and_the_rename(get, site, tmp_path):
    card = {"url": f"{site.url}/data.bin", "etag": None, "bytes": len(BODY)}
    (tmp_path / "data.bin.part.json").write_text(json.dumps(card))
    (tmp_path / "data.bin.part").write_bytes(BODY)
    get()
    assert (tmp_path / "data.bin").read_bytes() == BODY
    assert site.gets("/data.bin") == []


def test_killed_between_the_rename_and_the_receipt(get, site, tmp_path):
    (tmp_path / "data.bin").write_bytes(BODY)
    (tmp_path / "data.bin.part.json").write_text("{}")
    assert get(md5=MD5)["sha256"] == hashlib.sha256(BODY).hexdigest()
    assert site.gets("/data.bin") == []
    assert [path.name for path in tmp_path.iterdir()] == ["data.bin"]


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        pytest.param([("status", 403)], ("access refused (403)", "--mirror"), id="403"),
        pytest.param([("status", 401)], ("access refused (401)",), id="401"),
        pytest.param([("status", 404)], ("not found (404)", "may have moved", "example.org/home"), id="404"),
        pytest.param([("status", 418)], ("answers 418",), id="an-odd-status"),
        pytest.param([("page",)], ("a web page came instead", "log in", "browser"), id="login-page"),
        pytest.param(
            [("page", "application/octet-stream")], ("a web page came instead",), id="login-page-in-disguise"
        ),
        pytest.param(
            [("page", "text/html", b"Welcome.")], ("a web page came instead",), id="page-without-a-doctype"
        ),
        pytest.param([("redirect", "/login")], ("a web page came instead", "/login"), id="redirect-to-login"),
        pytest.param(
            [("redirect", "/data.bin")] * 40, ("redirects without end",), id="redirects-without-end"
        ),
        pytest.param(
            [("redirect", "http://[::1/y?signature=SECRET")],
            ("redirects to none",),
            id="redirect-to-no-address",
        ),
        pytest.param(
            [("redirect", f"http://{'a' * 70}.example/y?token=SECRET")],
            ("redirects to none",),
            id="redirect-to-no-host",
        ),
        pytest.param(
            [("redirect", "/login?token=SECRET")],
            ("a web page came instead", "/login)"),
            id="redirect-with-a-token",
        ),
        pytest.param([("redirect", "ftp://x/y")], ("only http and https",), id="redirect-to-ftp"),
        pytest.param([("redirect", "file:///etc/passwd")], ("only http and https",), id="redirect-to-a-file"),
    ],
)
def test_one_clear_line_where_patience_does_not_help(get, site, tmp_path, actions, words, tools):
    site.put("/login", tools.login, kind="text/html")
    site.plan("/data.bin", ("drop", 100_000), *actions)
    with pytest.raises(Refused) as error:
        get()
    line = str(error.value)
    assert "\n" not in line
    assert f"{site.url}/data.bin" in line
    assert "SECRET" not in line
    for word in words:
        assert word in line
    # What had come before is kept: a login page does not replace it.
    assert Part(tmp_path / "data.bin").size() == 100_000
    site.plan("/data.bin")
    get()
    assert site.gets("/data.bin")[-1]["Range"] == "bytes=100000-"
    assert (tmp_path / "data.bin").read_bytes() == BODY


def test_retry_after_is_honoured_and_bounded(get, site):
    site.plan("/data.bin", ("status", 429, ("Retry-After", "1")))
    start_time = time.monotonic()
    get()
    assert time.monotonic() - start_time >= 1.0
    date = email.utils.formatdate(time.time() + 3 * 3600, usegmt=True)
    site.plan("/again.bin", ("status", 503, ("Retry-After", date)))
    with pytest.raises(Unreachable, match="asks to wait 180 minutes"):
        get("/again.bin")
    site.put("/never.bin", BODY)
    site.plan("/never.bin", ("status", 429, ("Retry-After", "7200")))
    start_time = time.monotonic()
    with pytest.raises(Unreachable, match="asks to wait 120 minutes"):
        get("/never.bin")
    assert time.monotonic() - start_time < 1


def test_numbers_without_end_are_one_line(get, site):
    for name, action in (
        ("/wait.bin", ("status", 503, ("Retry-After", "9" * 5000))),
        ("/date.bin", ("status", 503, ("Retry-After", "Fri, 01 Jan 99999 00:00:00 GMT"))),
    ):
        site.put(name, BODY)
        site.plan(name, action)
        with contextlib.suppress(Unreachable):
            get(name)


def test_a_server_that_asks_to_wait_means_all_connections(site, tmp_path):
    site.put("/a", BODY)
    site.put("/b", BODY)
    site.plan("/a", ("status", 429, ("Retry-After", "1")))
    downloader = Downloader(QUICK, threading.Event())
    first = threading.Thread(
        target=lambda: downloader.get(Remote(f"{site.url}/a", home="h"), tmp_path / "a"), daemon=True
    )
    first.start()
    while not site.gets("/a"):
        time.sleep(0.005)
    time.sleep(0.1)
    start_time = time.monotonic()
    downloader.get(Remote(f"{site.url}/b", home="h"), tmp_path / "b")
    assert time.monotonic() - start_time > 0.5
    first.join()


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (("status", 503), "503"),
        (("status", 429), "429"),
        (("drop", 0), "dropped"),
        (("stall", 0, 1.0), "no data for 0.4 s"),
    ],
    ids=["always-503", "always-429", "always-drops", "always-stalls"],
)
def test_patience_ends(get, site, rule, words):
    site.rule = lambda path, number: rule
    with pytest.raises(Unreachable) as error:
        get()
    line = str(error.value)
    assert words in line
    assert "3 times in a row; run the same command again to continue" in line
    assert len(site.gets("/data.bin")) == 3


def test_nobody_listens(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    downloader = Downloader(QUICK, threading.Event())
    with pytest.raises(Unreachable, match=r"can't be reached .*refused"):
        downloader.get(Remote(f"http://127.0.0.1:{port}/x", home="h"), tmp_path / "x")
    with pytest.raises(Refused, match="only http and https"):
        downloader.get(Remote("ftp://127.0.0.1/x", home="h"), tmp_path / "x")


def test_not_an_http_server(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        with pytest.raises(Unreachable):
            Downloader(QUICK, threading.Event()).get(Remote(url, home="h"), tmp_path / "x")


def test_a_wrong_checksum_is_fetched_again_once(get, site, tmp_path):
    right = site.files["/data.bin"]
    damaged = bytearray(BODY)
    damaged[1000] ^= 1
    site.put("/data.bin", bytes(damaged))

    def rule(path, number):
        if number == 2:
            site.files["/data.bin"] = right

    site.rule = rule
    bar = Bar()
    get(md5=MD5, tick=bar)
    assert (tmp_path / "data.bin").read_bytes() == BODY
    assert len(site.gets("/data.bin")) == 2
    assert bar.sum == len(BODY)


def test_a_wrong_checksum_twice_is_an_error_and_leaves_nothing(get, site, tmp_path):
    with pytest.raises(Refused, match=f"damaged twice: its MD5 is {MD5}, and {'0' * 32} is published"):
        get(md5="0" * 32)
    assert len(site.gets("/data.bin")) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_gzip_file_without_a_published_checksum_is_checked_by_its_own(get, site, tmp_path):
    good = gzip.compress(BODY)
    for name, body in (
        ("/cut.nii.gz", good[:-20]),
        ("/crc.nii.gz", good[:-8] + b"\0\0\0\0" + good[-4:]),
        ("/bits.nii.gz", good[:5000] + bytes(200) + good[5200:]),
        ("/text.tar.gz", b"not gzip at all, and long enough to look like something"),
    ):
        site.put(name, body)
        with pytest.raises(Refused, match="damaged twice: damaged gzip data"):
            get(name)
    site.put("/good.nii.gz", good)
    assert get("/good.nii.gz")["checked"] == ["gzip checksum"]


def test_a_gzip_bomb_is_refused(get, site, monkeypatch):
    monkeypatch.setattr("mri_transfer.datasets.fetch.transfer.space._SMALL", 1 << 20)
    site.put("/bomb.tar.gz", gzip.compress(bytes(40 << 20)))
    with pytest.raises(Refused, match="unpacks to an absurd multiple of its size"):
        get("/bomb.tar.gz")
    site.put("/dense.nii.gz", gzip.compress(np.arange(1 << 20, dtype=np.uint16).tobytes()))
    get("/dense.nii.gz")


def test_a_listed_size_is_checked(get):
    with pytest.raises(Refused, match=f"lists 5 bytes and sends {len(BODY)}"):
        get(bytes=5)


@pytest.mark.parametrize("lie", [5_000, -5_000])
def test_a_slip_about_the_listed_size_passes(get, site, tmp_path, lie):
    site.plan("/data.bin", ("lie", lie), ("lie", lie))
    get(bytes=len(BODY))
    assert (tmp_path / "data.bin").read_bytes() == BODY


def test_more_bytes_than_announced_by_the_range(get, site, tmp_path):
    """The card says less than the server now has: it is another content."""
    site.put("/data.bin", BODY, validators=False)
    card = {"url": f"{site.url}/data.bin", "etag": None, "last_modified": None, "bytes": 300_000}
    (tmp_path / "data.bin.part.json").write_text(json.dumps(card))
    (tmp_path / "data.bin.part").write_bytes(b"x" * 1000)
    get()
    assert (tmp_path / "data.bin").read_bytes() == BODY


@pytest.mark.parametrize("length", ["9" * 400, "9" * 5000, "1" + "0" * 15, "-1", "1e9", "\xb2", "12, 12", ""])
def test_lengths_that_are_none(tmp_path, length):
    """A server of a few lines, whose Content-Length no honest server sends."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    head = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                    connection.sendall(head.encode("latin-1") + BODY[:5000])

        threading.Thread(target=answer, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        with contextlib.suppress(UserError):
            Downloader(QUICK, threading.Event()).get(Remote(url, home="h"), tmp_path / "x")
    target = tmp_path / "x"
    assert not target.exists() or target.read_bytes() == BODY[:5000]


def test_stopping_keeps_what_came(get, site, tmp_path):
    stop = threading.Event()
    site.pause = 0.01

    def tick(gained):
        if Part(tmp_path / "data.bin").size() > 100_000:
            stop.set()

    with pytest.raises(Stopped):
        get(stop=stop, tick=tick)
    assert 100_000 < Part(tmp_path / "data.bin").size() < len(BODY)
    site.pause = 0.0
    get()
    assert (tmp_path / "data.bin").read_bytes() == BODY


def test_the_size_is_asked_without_trust(site):
    downloader = Downloader(QUICK, threading.Event())
    site.put("/data.bin", BODY)
    assert downloader.size(Remote(f"{site.url}/data.bin", home="h")) == len(BODY)
    assert downloader.size(Remote(f"{site.url}/none", home="h")) is None
    assert downloader.size(Remote("http://127.0.0.1:9/none", home="h")) is None


def test_a_small_file_has_a_largest_size(site):
    downloader = Downloader(QUICK, threading.Event())
    site.put("/list", b"x" * 1000)
    site.plan("/list", ("drop", 0), ("status", 503))
    assert downloader.read(Remote(f"{site.url}/list", home="h"), 1000) == b"x" * 1000
    site.put("/page", b"Please log in", kind="text/html")
    with pytest.raises(Refused, match="a web page came instead"):
        downloader.read(Remote(f"{site.url}/page", home="h"), 1000)
    with pytest.raises(Refused, match="longer than 999 bytes"):
        downloader.read(Remote(f"{site.url}/list", home="h"), 999)


@pytest.mark.parametrize("seed", range(4))
def test_anything_at_random(get, site, tmp_path, seed):
    """Whatever the server does, in any order: the file is whole, or nothing is called whole."""
    random_ = random.Random(seed)
    actions = [
        ("drop", 120_000),
        ("drop", 0),
        ("status", 503),
        ("ignore-range",),
        ("wrong-range",),
        ("lie", 3000),
        ("lie", -3000),
        ("chunked",),
        ("serve",),
    ]
    site.rule = lambda path, number: random_.choice(actions)
    for _ in range(60):
        try:
            get(md5=MD5)
            break
        except (Unreachable, Refused):
            assert not (tmp_path / "data.bin").exists()
    assert (tmp_path / "data.bin").read_bytes() == BODY
