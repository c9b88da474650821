"""HDF5 files that are no MINC, lie about their size, lead to other files, or decompress without end."""

from __future__ import annotations

import re
import zlib

import h5py
import numpy as np
import pytest


@pytest.fixture
def minc(formats, scan, tmp_path):
    """A MINC2 file, opened to be changed: minc(change) -> its path."""

    def make(change, **storage):
        (file,) = formats.minc2(scan, tmp_path / "a.mnc", **storage)
        with h5py.File(file, "r+") as hdf:
            change(hdf)
        return file

    return make


IMAGE = "minc-2.0/image/0/image"


def _replace(file, name, **storage):
    old = dict(file[name].attrs)
    del file[name]
    new = file.create_dataset(name, **storage)
    new.attrs.update(old)
    return new


def _soft(file):
    file.move(IMAGE, "elsewhere")
    file[IMAGE] = h5py.SoftLink("/elsewhere")


def _external(file):
    del file[IMAGE]
    file[IMAGE] = h5py.ExternalLink("/tmp/other.mnc", "/image")


def _virtual(file):
    layout = h5py.VirtualLayout((17, 18, 16), "i2")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", (17, 18, 16))
    attrs = dict(file[IMAGE].attrs)
    del file[IMAGE]
    file.create_virtual_dataset(IMAGE, layout).attrs.update(attrs)


def _raw_outside(file):
    attrs = dict(file[IMAGE].attrs)
    del file[IMAGE]
    external = [("/etc/hostname", 0, 17 * 18 * 16 * 2)]
    file.create_dataset(IMAGE, (17, 18, 16), "i2", external=external).attrs.update(attrs)


def _chunk_bomb(file):
    image = _replace(file, IMAGE, shape=(17, 18, 16), dtype="i2", chunks=(17, 18, 16), compression="gzip")
    image[:] = 1
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 << 22)) for _ in range(40)) + packer.flush()
    image.id.write_direct_chunk((0, 0, 0), packed)


def _attribute(name, key, value):
    def change(file):
        file[name].attrs[key] = value

    return change


DIM = "minc-2.0/dimensions/xspace"
MINC2 = {
    "terabytes": (
        lambda f: _replace(f, IMAGE, shape=(10**5, 10**5, 10**3), dtype="i2", chunks=(1, 100, 100)),
        "promises",
    ),
    "an image never written": (
        lambda f: _replace(f, IMAGE, shape=(17, 18, 16), dtype="i2", chunks=True),
        "truncated",
    ),
    "an image without room": (lambda f: _replace(f, IMAGE, shape=(17, 18, 16), dtype="i2"), "truncated"),
    "an empty axis": (lambda f: _replace(f, IMAGE, shape=(17, 0, 16), dtype="i2"), "length 0"),
    "a chunk that is a bomb": (_chunk_bomb, "more than its header says"),
    "chunks far larger than the image": (
        lambda f: _replace(
            f, IMAGE, shape=(17, 18, 16), maxshape=(None,) * 3, dtype="i2", chunks=(4096, 128, 128)
        ),
        "far larger",
    ),
    "a million chunks": (
        lambda f: _replace(f, IMAGE, shape=(128, 128, 128), dtype="i2", chunks=(1, 1, 2)),
        "too many pieces",
    ),
    "a compression that is not MINC's": (
        lambda f: _replace(f, IMAGE, data=np.ones((17, 18, 16), "i2"), chunks=True, compression="lzf"),
        "not MINC's",
    ),
    "a soft link": (_soft, "is a link"),
    "a link to another file": (_external, "is a link"),
    "voxels in another file": (_raw_outside, "another file"),
    "a virtual image": (_virtual, "another file"),
    "complex voxels": (
        lambda f: _replace(f, IMAGE, data=np.ones((17, 18, 16), "c8")),
        "not real intensities",
    ),
    "text for voxels": (
        lambda f: _replace(f, IMAGE, data=np.full((17, 18, 16), b"abc")),
        "not real intensities",
    ),
    "no image": (lambda f: f.pop(IMAGE), "it has no"),
    "no ranges": (lambda f: f.pop("minc-2.0/image/0/image-max"), "it has no"),
    "a group for an image": (lambda f: (f.pop(IMAGE), f.create_group(IMAGE)), "MINC"),
    "a series": (
        lambda f: (
            _replace(f, IMAGE, data=np.ones((2, 17, 18, 16), "i2")),
            _attribute(IMAGE, "dimorder", np.bytes_("time,zspace,yspace,xspace"))(f),
        ),
        "MINC|4-D series",
    ),
    "irregular spacing": (_attribute(DIM, "spacing", np.bytes_("irregular")), "MINC|rregular"),
    "a step of zero": (_attribute(DIM, "step", 0.0), "singular"),
    "a step that is no number": (_attribute(DIM, "step", float("nan")), "not finite"),
    "directions in one line": (_attribute(DIM, "direction_cosines", [0.0, 1.0, 0.0]), "singular"),
    "a valid range upside down": (_attribute(IMAGE, "valid_range", [5.0, -5.0]), "valid range"),
    "a valid range of other numbers": (_attribute(IMAGE, "valid_range", [0.0, 1e9]), "valid range"),
    "ranges that are no numbers": (
        lambda f: f["minc-2.0/image/0/image-max"].write_direct(np.full(17, np.nan)),
        "not finite",
    ),
    "axes of no name": (_attribute(IMAGE, "dimorder", np.bytes_("a,b,c")), "MINC|0-D"),
}


@pytest.mark.parametrize("case", MINC2)
def test_a_minc2_file_with(formats, minc, case):
    change, pattern = MINC2[case]
    answer = formats.read([minc(change)])
    assert isinstance(answer, str)
    assert re.search(pattern, answer), answer


@pytest.mark.parametrize(
    "storage",
    [
        {"chunks": (4, 5, 16), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": (17, 18, 16), "compression": "gzip", "fletcher32": True},
        {"chunks": (5, 7, 3), "shuffle": True},
        {"chunks": None},
    ],
    ids=str,
)
def test_every_storage_of_hdf5_that_minc_may_have_reads_the_same(formats, minc, scan, storage):
    volume = formats.read([minc(lambda file: None, **storage)])
    np.testing.assert_allclose(volume.voxels, formats.canonical(scan), atol=1e-2)


def test_a_chunk_with_a_wrong_checksum(formats, minc):
    file = minc(lambda hdf: None, chunks=(17, 18, 16), fletcher32=True)
    with h5py.File(file) as hdf:
        at = hdf[IMAGE].id.get_chunk_info(0).byte_offset
    content = bytearray(file.read_bytes())
    content[at + 1000] ^= 4
    file.write_bytes(content)
    assert "damaged HDF5" in formats.read([file])


def test_a_chunk_of_a_damaged_compression(formats, minc):
    file = minc(lambda hdf: None)
    with h5py.File(file) as hdf:
        at = hdf[IMAGE].id.get_chunk_info(0).byte_offset
    content = bytearray(file.read_bytes())
    content[at + 60] ^= 4
    file.write_bytes(content)
    assert "damaged" in formats.read([file])
