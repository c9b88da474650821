"""Lines of JSON: a torn end is dropped, a changed byte is noticed, and what older versions wrote is read."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_transfer.storage.json_lines import LineFile, line_of, read_lines, text_in

OBJECTS = st.dictionaries(
    st.text(max_size=8).filter(lambda key: key != "crc32"),
    st.one_of(
        st.integers(), st.text(max_size=8), st.floats(allow_nan=False, allow_infinity=False), st.none()
    ),
    min_size=1,
    max_size=4,
)


def values(content: bytes) -> list:
    return [line.value for line in read_lines(io.BytesIO(content))]


@given(st.lists(OBJECTS, max_size=4))
def test_what_was_written_is_read_and_any_program_reads_it(objects):
    content = b"".join(map(line_of, objects))
    assert values(content) == objects
    plain = [json.loads(line) for line in content.decode().split("\n")[:-1]]
    assert [{key: value for key, value in line.items() if key != "crc32"} for line in plain] == objects


def test_of_no_flipped_bit_another_object_comes():
    """Whatever is read is what was written; that includes lines split or joined by a flip, and torn last ones."""
    objects = [
        {"kind": "settings", "size": 16},
        {"kind": "volume", "position": [0.25, -3e-5], "ü": "é"},
        {"a": 0},
    ]
    content = b"".join(map(line_of, objects))
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        results = [value for value in values(bytes(flipped)) if value is not None]
        assert len(results) in (1, 2)
        assert all(value in objects for value in results)


@pytest.mark.parametrize(
    "line",
    [
        b"{torn",
        b"[1]",
        b"3",
        b"\xff",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 99999,
    ],
)
def test_a_damaged_line_is_none_and_its_neighbours_are_read(line):
    assert values(line_of({"a": 1}) + line + b"\n" + line_of({"a": 2})) == [{"a": 1}, None, {"a": 2}]


def test_lines_of_older_versions_are_read(tmp_path):
    path = tmp_path / "old.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n{"a"')
    with LineFile(path) as file:
        assert [line.value for line in file.read()] == [{"a": 1}, {"a": 2}]
        file.add([line_of({"a": 3})])
        assert [line.value for line in file.read()] == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert path.read_bytes() == b'{"a": 1}\n{"a": 2}\n' + line_of({"a": 3})


def test_what_a_damaged_line_seems_to_name():
    line = line_of({"kind": "volume", "source": 'ü "1".nii\n', "path": "/b"})
    assert text_in(line.replace(b"volume", b"vol\x00me"), "source") == 'ü "1".nii?'
    assert text_in(line, "nothing") == text_in(b"\xff\xfe", "source") == ""
