"""Archives, good and hostile: what is wanted arrives byte for byte, and nothing is written anywhere else."""

from __future__ import annotations

import contextlib
import gzip
import os
import random
import struct
import tarfile
import threading
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from mri_transfer.datasets.fetch.transfer.members import DamagedArchive, members_of
from mri_transfer.datasets.fetch.transfer.threads import Stopped
from mri_transfer.datasets.fetch.unpack import unpack
from mri_transfer.errors import UserError

GOOD = {"a.txt": b"a" * 3000, "deep/er/b.bin": random.Random(1).randbytes(50_000), "empty": b""}
KINDS = ("tar", "tar.gz", "zip")


def everything(path: PurePosixPath) -> PurePosixPath:
    return path


def below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def box(tmp_path):
    """A folder to unpack to, in a folder where nothing else may appear."""
    (tmp_path / "box").mkdir()
    return tmp_path / "box"


@pytest.fixture
def write(tmp_path, tools):
    """Write an archive of a kind."""

    def make(kind: str, members: dict[str, bytes]) -> Path:
        path = tmp_path / f"archive.{kind}"
        if kind == "zip":
            path.write_bytes(tools.make_zip(members))
        else:
            path.write_bytes(tools.make_tar(members, "w:gz" if kind == "tar.gz" else "w"))
        return path

    return make


def raw_tar(*infos: tuple[tarfile.TarInfo, bytes], end: bool = True) -> bytes:
    """A tar of headers as they are given, true or not."""
    blocks = b""
    for info, content in infos:
        blocks += info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        blocks += content + bytes(-len(content) % 512)
    return blocks + (bytes(1024) if end else b"")


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", size=None):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(content) if size is None else size
    return info, content


@pytest.mark.parametrize("kind", KINDS)
def test_a_tree_arrives_byte_for_byte(write, box, kind):
    result = unpack(write(kind, GOOD), box, everything)
    assert below(box) == GOOD
    assert set(result.files) == set(GOOD)
    assert (result.skipped, result.left_out) == ([], 0)


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_wanted_arrives_where_it_is_wanted(write, box, kind):
    result = unpack(
        write(kind, GOOD), box, lambda path: PurePosixPath("x", path.name) if path.suffix else None
    )
    assert set(below(box)) == {"x/a.txt", "x/b.bin"}
    assert result.left_out == 1


@pytest.mark.parametrize("kind", KINDS)
def test_unpacking_again_mends_and_touches_nothing_else(write, box, kind):
    archive = write(kind, GOOD)
    first = unpack(archive, box, everything)
    (box / "a.txt").write_bytes(b"b" * 3000)  # of the same length
    (box / "deep/er/b.bin").write_bytes(b"short")
    inode = (box / "empty").stat().st_ino
    (box / ".archive.member.part").write_bytes(b"left behind")
    assert unpack(archive, box, everything).files == first.files
    (box / ".archive.member.part").unlink()
    assert below(box) == GOOD
    assert (box / "empty").stat().st_ino == inode


EVIL_NAMES = {
    "up": "../../x",
    "up-inside": "a/../../x",
    "up-with-backslashes": "..\\..\\x",
    "absolute": "/x",
    "absolute-deep": "/evil/deep/x",
    "backslash-absolute": "\\x",
    "drive": "C:/x",
    "drive-backslash": "c:\\x",
    "drive-relative": "C:x",
    "drive-below": "./C:/x",
    "line-break": "a\nb",
    "escape": "a\x1b[31mb",
    "long-part": "n" * 300,
    "long-path": "/".join(["d" * 200] * 8),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", EVIL_NAMES.values(), ids=EVIL_NAMES)
def test_an_unsafe_name_is_listed_and_the_rest_arrives(write, box, tmp_path, kind, name):
    archive = write(kind, {"before": b"1", name: b"evil", "after": b"2"})
    result = unpack(archive, box, everything)
    assert below(box) == {"before": b"1", "after": b"2"}
    assert [skip["reason"].split()[0] for skip in result.skipped] in (["a"], ["an"])
    assert not result.damaged
    assert {path.name for path in tmp_path.iterdir()} == {"box", archive.name}


NICE_NAMES = {
    "spaces": "a b/ c .txt",
    "cyrillic": "МРТ/снимок.nii",
    "japanese": "脳/画像.nii",
    "emoji": "🧠.nii",
    "combining": "Ü.nii",
    "dots": "..a/...b/c..",
    "dash": "-rf",
    "quotes": "a'b\"c$d;e",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NICE_NAMES.values(), ids=NICE_NAMES)
def test_unusual_names_are_kept(write, box, kind, name):
    assert unpack(write(kind, {name: b"x"}), box, everything).skipped == []
    assert below(box) == {name: b"x"}


def test_a_name_that_is_no_text_is_kept(box, tmp_path):
    info, content = member("caf\udce9.nii", b"latin-1")
    (tmp_path / "a.tar").write_bytes(raw_tar((info, content)))
    unpack(tmp_path / "a.tar", box, everything)
    assert [os.fsencode(path.name) for path in box.iterdir()] == [b"caf\xe9.nii"]


LINKS = {
    "symlink-up": [member("l", kind=tarfile.SYMTYPE, link="../../outside"), member("l/x", b"evil")],
    "symlink-absolute": [member("l", kind=tarfile.SYMTYPE, link="/etc"), member("l/x", b"evil")],
    "symlink-to-a-file": [member("l", kind=tarfile.SYMTYPE, link="../outside"), member("l", b"evil")],
    "chain-of-links": [
        member("a", kind=tarfile.SYMTYPE, link="b"),
        member("b", kind=tarfile.SYMTYPE, link="."),
        member("b/c", kind=tarfile.SYMTYPE, link=".."),
        member("a/c/x", b"evil"),
    ],
    "hardlink-out": [member("l", kind=tarfile.LNKTYPE, link="../outside"), member("l", b"evil")],
    "hardlink-absolute": [member("l", kind=tarfile.LNKTYPE, link="/etc/passwd")],
}


@pytest.mark.parametrize("infos", LINKS.values(), ids=LINKS)
def test_links_are_not_made_and_not_followed(box, tmp_path, infos):
    (tmp_path / "outside").write_bytes(b"mine")
    (tmp_path / "a.tar").write_bytes(raw_tar(*infos, member("good", b"good")))
    result = unpack(tmp_path / "a.tar", box, everything)
    assert (box / "good").read_bytes() == b"good"
    assert not any(path.is_symlink() for path in box.rglob("*"))
    assert (tmp_path / "outside").read_bytes() == b"mine"
    assert (tmp_path / "outside").stat().st_nlink == 1
    assert {path.name for path in tmp_path.iterdir()} == {"box", "outside", "a.tar"}
    links = [info for info, _ in infos if not info.isreg()]
    assert sum("link" in skip["reason"] for skip in result.skipped) == len(links)


def test_links_of_a_zip_are_not_made(box, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        link = zipfile.ZipInfo("l")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "../outside")
        file.writestr("l/x", "evil")
    result = unpack(tmp_path / "a.zip", box, everything)
    assert below(box) == {"l/x": b"evil"}
    assert not (box / "l").is_symlink()
    assert "link" in result.skipped[0]["reason"]


@pytest.mark.parametrize("where", ["sub", "sub/deeper"])
def test_a_folder_that_is_a_link_is_not_written_through(write, box, tmp_path, where):
    (tmp_path / "outside").mkdir()
    link = box / where
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / "outside")
    result = unpack(write("tar", {f"{where}/x": b"evil", "good": b"1"}), box, everything)
    assert list((tmp_path / "outside").iterdir()) == []
    assert [skip["reason"] for skip in result.skipped] == ["its folder is a link"]
    assert (box / "good").read_bytes() == b"1"


def test_a_file_that_is_a_link_is_replaced_and_not_written_through(write, box, tmp_path):
    (tmp_path / "outside").write_bytes(b"mine")
    (box / "x").symlink_to(tmp_path / "outside")
    unpack(write("tar", {"x": b"four"}), box, everything)
    assert (tmp_path / "outside").read_bytes() == b"mine"
    assert below(box) == {"x": b"four"}


def test_a_temporary_file_that_is_a_link_is_not_written_through(write, box, tmp_path):
    (tmp_path / "outside").write_bytes(b"mine")
    (box / ".archive.tar.member.part").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="symbolic links"):
        unpack(write("tar", {"x": b"four"}), box, everything)
    assert (tmp_path / "outside").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "kind",
    [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, b"Z"],
    ids=["character-device", "block-device", "named-pipe", "contiguous", "unknown"],
)
def test_special_files(box, tmp_path, kind):
    (tmp_path / "a.tar").write_bytes(raw_tar(member("dev", kind=kind), member("good", b"1")))
    unpack(tmp_path / "a.tar", box, everything)
    assert (box / "good").read_bytes() == b"1"
    assert all(path.is_file() for path in box.rglob("*"))


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("Scan.nii", "scan.NII"), "only in case"),
        (("Straße", "STRASSE"), "only in case"),
        (("\u00fc", "u\u0308"), "only in case"),
        (("x", "./x"), "twice"),
        (("x", "a//../x"), "out of the folder"),
        (("x", "x/y"), "a folder where there is a file"),
        (("x/y", "x"), "folder"),
    ],
    ids=["case", "sharp-s", "normalisation", "twice", "up", "file-then-folder", "folder-then-file"],
)
def test_names_that_collide(box, tmp_path, names, reason):
    content = [member(names[0], b"first"), member(names[1], b"second"), member("good", b"1")]
    (tmp_path / "a.tar").write_bytes(raw_tar(*content))
    for _ in range(2):  # also when it is continued
        result = unpack(tmp_path / "a.tar", box, everything)
        assert below(box) == {names[0]: b"first", "good": b"1"}
        assert len(result.skipped) == 1
        assert reason in result.skipped[0]["reason"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_truncated_anywhere_is_damaged(write, box, kind):
    """Cut at every part: no file in the folder differs from the archive's, and the cut is noticed."""
    archive = write(kind, GOOD)
    whole = archive.read_bytes()
    ends = range(0, len(whole) - (1024 if kind == "tar" else 0), max(1, len(whole) // 40))
    if kind == "tar":
        whole = whole.rstrip(b"\0") + bytes(1024 - len(whole.rstrip(b"\0")) % 512)
        ends = range(0, len(whole) - 1024, 512)
    for end in ends:
        archive.write_bytes(whole[:end])
        with pytest.raises(DamagedArchive):
            unpack(archive, box, everything)
        for name, content in below(box).items():
            assert content == GOOD[name]


def test_a_damaged_header_is_not_the_end(box, tmp_path):
    content = bytearray(raw_tar(member("a", b"1"), member("b", b"2"), member("c", b"3")))
    content[1024 + 150] ^= 0xFF  # in the checksum of the second header
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DamagedArchive, match="damaged header"):
        unpack(tmp_path / "a.tar", box, everything)


@pytest.mark.parametrize("at", [0.2, 0.5, 0.9])
def test_damaged_gzip_data(write, box, at):
    archive = write("tar.gz", GOOD)
    content = bytearray(archive.read_bytes())
    start = int(len(content) * at)
    content[start : start + 40] = bytes(40)
    archive.write_bytes(content)
    with pytest.raises(DamagedArchive):
        unpack(archive, box, everything)


def test_a_zip_member_with_a_wrong_checksum_is_listed_and_the_rest_arrives(write, box):
    archive = write("zip", GOOD)
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as file:
        info = file.getinfo("a.txt")
    central = content.index(b"PK\x01\x02")
    content[central + 16] ^= 1  # its CRC-32 in the central directory
    archive.write_bytes(content)
    assert info.filename == "a.txt"
    result = unpack(archive, box, everything)
    assert below(box) == {name: body for name, body in GOOD.items() if name != "a.txt"}
    assert [skip["member"] for skip in result.skipped] == ["a.txt"]
    assert result.damaged


@pytest.mark.parametrize("delta", [-100, 100], ids=["says-less", "says-more"])
def test_a_zip_member_of_another_size_than_stated(write, box, delta):
    archive = write("zip", {"a.txt": b"a" * 3000, "b": b"2"})
    content = bytearray(archive.read_bytes())
    central = content.index(b"PK\x01\x02")
    content[central + 24 : central + 28] = struct.pack("<L", 3000 + delta)
    archive.write_bytes(content)
    result = unpack(archive, box, everything)
    assert below(box) == {"b": b"2"}
    assert result.damaged


def test_an_encrypted_zip_member(write, box):
    archive = write("zip", {"secret": b"s" * 100, "open": b"1"})
    content = bytearray(archive.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    result = unpack(archive, box, everything)
    assert below(box) == {"open": b"1"}
    assert "encrypted" in result.skipped[0]["reason"]
    assert not result.damaged  # another copy would be no better


def test_a_zip_with_an_unknown_compression(write, box):
    archive = write("zip", {"odd": b"s" * 100, "open": b"1"})
    content = bytearray(archive.read_bytes())
    content[8] = 99
    content[content.index(b"PK\x01\x02") + 10] = 99
    archive.write_bytes(content)
    assert below(box) == {}
    result = unpack(archive, box, everything)
    assert below(box) == {"open": b"1"}
    assert result.damaged


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"\x1f\x8b", b"<!DOCTYPE html>" * 100, bytes(10_000), b"x" * 10_000],
    ids=["empty", "two-bytes", "gzip-magic", "web-page", "zeros", "text"],
)
def test_what_is_no_archive(box, tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DamagedArchive):
        unpack(tmp_path / "a.tar", box, everything)
    assert below(box) == {}


def test_a_tar_member_that_claims_terabytes(box, tmp_path):
    (tmp_path / "a.tar").write_bytes(raw_tar(member("good", b"1"), member("huge", b"x" * 512, size=50 << 40)))
    with pytest.raises(UserError, match=r"huge needs 55 TB and the disk has"):
        unpack(tmp_path / "a.tar", box, everything)
    assert below(box) == {"good": b"1"}


def test_a_zip_member_that_claims_terabytes(box, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("good", "1")
        file.writestr("huge", "x")
        file.infolist()[1].file_size = 50 << 40
    with pytest.raises(UserError, match=r"huge needs 55 TB and the disk has"):
        unpack(tmp_path / "a.zip", box, everything)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_bomb_of_many_members_is_stopped_before_the_disk_is_full(write, box, monkeypatch, kind):
    monkeypatch.setattr("mri_transfer.datasets.fetch.transfer.space._SMALL", 1 << 20)
    archive = write(kind, {str(number): bytes(200_000) for number in range(100)})
    assert archive.stat().st_size * 100 < 20_000_000
    with pytest.raises(DamagedArchive, match="absurd multiple"):
        unpack(archive, box, everything)
    assert sum(map(len, below(box).values())) <= max(1 << 20, archive.stat().st_size * 100)


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_damaged_data_of_every_compression_is_listed(box, tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as file:
        file.writestr("bad", GOOD["deep/er/b.bin"])
        file.writestr("good", "1")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[60:200] = bytes(140)
    (tmp_path / "a.zip").write_bytes(content)
    result = unpack(tmp_path / "a.zip", box, everything)
    assert below(box) == {"good": b"1"}
    assert [skip["member"] for skip in result.skipped] == ["bad"]
    assert result.damaged


@pytest.mark.parametrize("shift", [-3000, -1, 1, 3000, 2**31])
def test_a_zip_whose_members_are_said_to_lie_elsewhere(write, box, shift):
    """Where the central directory is, by its own words: members then seem to begin before the file does."""
    archive = write("zip", GOOD)
    content = bytearray(archive.read_bytes())
    end = content.rindex(b"PK\x05\x06")
    (offset,) = struct.unpack_from("<L", content, end + 16)
    struct.pack_into("<L", content, end + 16, (offset + shift) % 2**32)
    archive.write_bytes(content)
    with contextlib.suppress(DamagedArchive):
        result = unpack(archive, box, everything)
        assert result.damaged or below(box) == GOOD
    assert all(content in GOOD.values() for content in below(box).values())


def test_a_zip_member_without_a_name(box, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("x", "nameless")
        file.writestr("good", "1")
    content = (tmp_path / "a.zip").read_bytes().replace(b"xnameless", b"\x00nameless", 1)
    at = content.index(b"PK\x01\x02")
    (tmp_path / "a.zip").write_bytes(content[: at + 46] + b"\x00" + content[at + 47 :])
    result = unpack(tmp_path / "a.zip", box, everything)
    assert below(box) == {"good": b"1"}
    assert len(result.skipped) == 1


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
def test_a_header_that_claims_gigabytes_is_not_read_into_memory(box, tmp_path, kind):
    import resource

    with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=1) as file:
        file.write(raw_tar(member("name", kind=kind, size=4 << 30), end=False))
        file.write(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DamagedArchive, match="claims"):
        unpack(tmp_path / "a.tar.gz", box, everything)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_a_negative_size_does_not_loop(box, tmp_path):
    info, _ = member("a", b"")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 8 + struct.pack(">i", -1024)  # base 256, as GNU tar writes large sizes
    header[148:156] = b"%06o\0 " % (256 + sum(header) - sum(header[148:156]))
    (tmp_path / "a.tar").write_bytes(bytes(header) + raw_tar(member("good", b"1")))
    with pytest.raises(DamagedArchive):
        unpack(tmp_path / "a.tar", box, everything)


def test_a_sparse_member_is_not_written(box, tmp_path):
    (tmp_path / "a.tar").write_bytes(
        raw_tar(member("holes", b"", kind=tarfile.GNUTYPE_SPARSE), member("good", b"1"))
    )
    unpack(tmp_path / "a.tar", box, everything)
    assert below(box) == {"good": b"1"}


def test_it_stops_when_asked_and_continues(write, box):
    archive = write("tar.gz", GOOD)
    stop = threading.Event()
    with pytest.raises(Stopped):
        unpack(archive, box, everything, stop, tick=stop.set)
    assert below(box) == {"a.txt": GOOD["a.txt"]}
    unpack(archive, box, everything)
    assert below(box) == GOOD


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_read_in_the_archives_order_and_folders_passed_over(write, tmp_path, kind):
    archive = write(kind, GOOD)
    if kind == "tar":
        archive.write_bytes(
            raw_tar(member("d/", kind=tarfile.DIRTYPE), *(member(*item) for item in GOOD.items()))
        )
    assert [entry.name for entry in members_of(archive)] == list(GOOD)
