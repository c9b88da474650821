"""Archives with anything in them: nothing escapes, trees arrive byte for byte, damage is noticed."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import random
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_transfer.datasets.fetch.transfer.members import DamagedArchive, UnsafeName, safe_path
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


def pack(tree: Iterable[tuple[str, bytes]], kind: str) -> bytes:
    """An archive of files, whatever their names."""
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in tree:
                file.writestr(name, content)
    else:
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for name, content in tree:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return gzip.compress(stream.getvalue(), 1) if kind == "tar.gz" else stream.getvalue()


# Names that reach for the edges: separators, dots, drives, controls, other scripts, lone surrogates.
PIECES = st.sampled_from(
    ["..", ".", "", "a", "B", "b", "C:", "con", "x y", "\u00e9", "\u202e", "\x00", "~", "脳", " "]
)
NAMES = st.one_of(
    st.lists(PIECES, min_size=1, max_size=6).flatmap(
        lambda parts: st.sampled_from(["/", "\\", "//"]).map(lambda separator: separator.join(parts))
    ),
    st.text(min_size=1, max_size=40),
    st.text(st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF), min_size=1, max_size=3),
)
TREES = st.lists(st.tuples(NAMES, st.binary(max_size=300)), min_size=1, max_size=6)


@given(name=NAMES)
def test_a_safe_path_stays_below_whatever_the_name(name):
    try:
        path = safe_path(name)
    except UnsafeName:
        return
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert path.parts
    root = "/folder/of/it"
    assert os.path.normpath(os.path.join(root, path)).startswith(root + "/")  # noqa: PTH118
    assert safe_path(path.as_posix()) == path


@pytest.mark.filterwarnings("ignore:Duplicate name")
@settings(max_examples=100)
@given(tree=TREES, kind=st.sampled_from(KINDS))
def test_whatever_the_names_nothing_escapes(tmp_path_factory, tree, kind):
    place = tmp_path_factory.mktemp("any")
    box = place / "outer" / "box"
    box.mkdir(parents=True)
    archive = place / "a"
    try:
        archive.write_bytes(pack(tree, kind))
    except (UnicodeEncodeError, ValueError, IndexError):  # not even the writer takes such a name
        return
    result = unpack(archive, box, everything)
    assert {path.name for path in place.iterdir()} == {"outer", archive.name}
    assert [path.name for path in (place / "outer").iterdir()] == ["box"]
    files = {
        os.fsencode(path.relative_to(box)): path.read_bytes() for path in box.rglob("*") if path.is_file()
    }
    assert files.keys() == {os.fsencode(name) for name in result.files}
    contents = [content for _, content in tree]
    assert all(content in contents for content in files.values())


@settings(max_examples=40)
@given(
    tree=st.dictionaries(
        st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12).map(str.casefold),
        st.binary(max_size=5000),
        max_size=6,
    ),
    kind=st.sampled_from(KINDS),
)
def test_a_random_tree_arrives_byte_for_byte(tmp_path_factory, tree, kind):
    place = tmp_path_factory.mktemp("tree")
    tree = {f"d/{name}": content for name, content in tree.items() if len(name.encode()) < 200}
    keys = [unicodedata.normalize("NFC", name).casefold() for name in tree]
    if len(set(keys)) < len(keys) or not tree:
        return
    (place / "a").write_bytes(pack(tree.items(), kind))
    (place / "box").mkdir()
    result = unpack(place / "a", place / "box", everything)
    assert below(place / "box") == tree
    assert result.skipped == []


@settings(max_examples=100)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_a_damaged_archive_never_yields_wrong_bytes_of_a_zip_or_an_unknown_error(
    tmp_path_factory, data, kind
):
    """Bytes changed anywhere: files, a list of bad ones or DamagedArchive; a zip's checksums hold."""
    place = tmp_path_factory.mktemp("damage")
    content = bytearray(pack(GOOD.items(), kind))
    interesting = st.one_of(st.integers(0, len(content) - 1), st.integers(0, min(600, len(content) - 1)))
    if kind == "zip":
        tail = len(content) - 300
        interesting = st.one_of(interesting, st.integers(tail, len(content) - 1))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(interesting)] = data.draw(st.integers(0, 255))
    (place / "a").write_bytes(content)
    (place / "box").mkdir()
    with contextlib.suppress(DamagedArchive, UserError):
        unpack(place / "a", place / "box", everything)
    assert {path.name for path in place.iterdir()} == {"a", "box"}
    if kind == "zip":
        assert all(body in GOOD.values() for body in below(place / "box").values())
