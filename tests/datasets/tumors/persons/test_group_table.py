"""A table of groups that is none is one line."""

from __future__ import annotations

import numpy as np
import pytest

from mri_transfer.datasets.tumors.images import ImageFile
from mri_transfer.datasets.tumors.persons.group_table import read_groups
from mri_transfer.errors import UserError


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "needs a heading"),
        (b"file,group\n", "needs a heading"),
        (b"\xff\xfef", "not readable as a table .*; save it as CSV in UTF-8"),
        (b"file,group\na\0,b\n", "not readable as a table .*; save it as CSV in UTF-8"),
        (b"file,group\n" + b"x" * 200_000 + b",a\n", "not readable as a table .*; save it as CSV in UTF-8"),
        (b"file,group\n\xff.png,g,h,i\n", "gives no group to any image"),
    ],
)
def test_a_table_that_is_none(tmp_path, content, words):
    (tmp_path / "groups.csv").write_bytes(content)
    with pytest.raises(UserError, match=rf"groups\.csv: {words}"):
        read_groups(tmp_path / "groups.csv", [ImageFile("1.png", "all", 0, "", 1)], np.array([0]))
