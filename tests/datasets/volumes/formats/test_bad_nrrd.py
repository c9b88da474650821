"""NRRD headers that lie, or lead elsewhere."""

from __future__ import annotations

import contextlib
import re
import time

import pytest

from mri_transfer.datasets.volumes.find import find_volumes
from mri_transfer.errors import UserError

NRRD = {
    "terabytes": ({"sizes": "100000 100000 1000"}, "promises 20 TB"),
    "beyond 64 bits": ({"sizes": "9999999999 9999999999 9999999999"}, "promises|not understood"),
    "a number no integer holds": ({"sizes": "99999999999999999999999 1 1"}, "not understood|length -"),
    "an empty axis": ({"sizes": "16 0 17"}, "length 0"),
    "a negative axis": ({"sizes": "16 -18 17"}, "length -18"),
    "two axes": (
        {"dimension": "2", "sizes": "16 306", "space directions": "(1,0,0) (0,1,0)", "kinds": ""},
        "2-D",
    ),
    "fewer sizes than dimensions": ({"sizes": "16 18"}, "2 sizes for 3 dimensions"),
    "a list of values in each voxel": (
        {
            "dimension": "4",
            "sizes": "2 16 18 17",
            "space directions": "none (1,0,0) (0,1,0) (0,0,1)",
            "kinds": "list domain domain domain",
        },
        "4-D series",
    ),
    "colour": (
        {
            "dimension": "4",
            "sizes": "3 16 18 17",
            "space directions": "none (1,0,0) (0,1,0) (0,0,1)",
            "kinds": "RGB-color domain domain domain",
        },
        "colour",
    ),
    "blocks of bytes": ({"type": "block"}, "block voxels"),
    "an unknown type": ({"type": "quaternion"}, "quaternion voxels"),
    "no byte order": ({"endian": None}, "byte order"),
    "no type": ({"type": None}, "lacks type"),
    "no encoding": ({"encoding": None}, "lacks encoding"),
    "hexadecimal": ({"encoding": "hex"}, "hex encoding"),
    "directions of no length": ({"space directions": "(0,0,0) (0,1,0) (0,0,1)"}, "singular"),
    "directions in one line": ({"space directions": "(1,0,0) (2,0,0) (0,0,1)"}, "singular"),
    "directions that are no numbers": ({"space directions": "(nan,0,0) (0,1,0) (0,0,1)"}, "."),
    "an origin of two numbers": ({"space origin": "(1,2)"}, "origin"),
    "a negative skip": ({"byte skip": "-7"}, "negative"),
    "a skip behind the end": ({"byte skip": "99999999"}, "truncated"),
    "no space": (
        {"space": None, "space directions": None, "space origin": None, "spacings": "1 1.5 2"},
        None,
    ),
    "a newer version": ({"NRRD0005": "NRRD0009"}, "not understood"),
}


@pytest.mark.parametrize("case", NRRD)
def test_an_nrrd_header_with(formats, scan, tmp_path, case):
    fields, pattern = NRRD[case]
    (file,) = formats.nrrd(scan, tmp_path / "a.nrrd", encoding="raw")
    header, data = file.read_bytes().split(b"\n\n", 1)
    lines = [line for line in header.decode().splitlines() if line.split(":")[0] not in fields]
    lines += [
        f"{key}: {value}"
        for key, value in fields.items()
        if value is not None and not key.startswith("NRRD0")
    ]
    if "NRRD0005" in fields:
        lines[0] = fields["NRRD0005"]
    file.write_bytes("\n".join(lines).encode() + b"\n\n" + data)
    answer = formats.read([file])
    if pattern is None:
        assert answer.voxels.shape == (16, 18, 17)
        assert answer.zooms == pytest.approx((1.0, 1.5, 2.0))
        assert any("left-posterior-superior" in note for note in answer.notes)
    else:
        assert isinstance(answer, str)
        assert re.search(pattern, answer), answer


@pytest.mark.parametrize(
    "named",
    [
        "/etc/hostname",
        "../secret.raw",
        "a/../../secret.raw",
        "C:\\secret.raw",
        "gone.raw",
        "LIST",
        "s%02d.raw 1 9 1",
    ],
)
def test_a_detached_header_that_leads_elsewhere(formats, scan, tmp_path, named):
    (tmp_path / "d" / "a").mkdir(parents=True)
    (tmp_path / "secret.raw").write_bytes(bytes(20000))
    header, data = formats.nrrd(scan, tmp_path / "d" / "x.nhdr", encoding="raw")
    header.write_bytes(header.read_bytes().replace(data.name.encode(), named.encode()))
    with pytest.raises(UserError, match=r"out of its folder|is missing|several files"):
        find_volumes([tmp_path / "d"])


@pytest.mark.parametrize(
    "line",
    [
        b"data file: " + b" " * 240_000 + b"x",
        b'labels: "' + b"a" * 240_000,
        b"spacings: " + b"1 " * 120_000,
        b"a" * 240_000,
    ],
    ids=["blanks", "an open quote", "numbers", "no colon"],
)
def test_an_endless_line_takes_no_time(formats, scan, tmp_path, line):
    start_time = time.process_time()
    (file,) = formats.nrrd(scan, tmp_path / "a.nrrd", encoding="raw")
    file.write_bytes(file.read_bytes().replace(b"kinds", line + b"\nkinds", 1))
    with contextlib.suppress(UserError):
        find_volumes([tmp_path])
    formats.read([file])
    assert time.process_time() - start_time < 10
