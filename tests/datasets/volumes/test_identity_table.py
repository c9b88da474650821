"""A table of subjects that is none is one line."""

from __future__ import annotations

import pytest

from mri_transfer.datasets.volumes.identity_table import override
from mri_transfer.errors import UserError


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "needs a heading"),
        (b"file,subject\n", "needs a heading"),
        (b"file,subject\n\xff,a\n", "not readable as a table .*; save it as CSV in UTF-8"),
        (b"file,subject\na\0.nii,b\n", "not readable as a table .*; save it as CSV in UTF-8"),
        (b"file,subject\n" + b"x" * 200_000 + b",a\n", "not readable as a table .*; save it as CSV in UTF-8"),
        (b"file,plane\na.nii,top\n", "line 2: plane 'top' is not one of"),
        (b"file,subject\n" + b"x" * 5000 + b",a\n", "none of its 1 rows names a file"),
        (b"file,subject\n,anna\n", "needs a heading .*, and rows below it"),
        (
            b"file,subject\na.nii,b\n\n./a.nii,b\na.nii,c\n",
            "line 5 contradicts an earlier line about a.nii",
        ),
        (b"file,subject\ncircle/a.nii,b,c,d\n", "none of its 1 rows names a file"),
    ],
)
def test_a_table_that_is_none(tmp_path, content, words):
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(UserError, match=rf"table\.csv: {words}"):
        override([], tmp_path / "table.csv")
