"""The demo's own files, damaged or changed by hand, are made again or left out."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mri_transfer.datasets.synthetic import generate
from mri_transfer.demo import DemoConfig, _first_picture, _generate


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"seed": 0}'])
def test_a_damaged_record_of_what_was_generated(tmp_path, monkeypatch, content):
    made = []
    for name in ("write_volumes", "write_tumors"):
        monkeypatch.setattr(generate, name, lambda *places, **settings: made.append(places))
    config = DemoConfig(out=tmp_path)
    (tmp_path / "generated.json").write_bytes(content)
    for _ in range(2):
        _generate(config, tmp_path / "volumes", tmp_path / "tumors")
        assert made == [(tmp_path / "volumes",), (tmp_path / "tumors",)]
    assert json.loads((tmp_path / "generated.json").read_text())["seed"] == 0


def test_a_class_is_shown_by_its_first_readable_picture(tmp_path):
    assert _first_picture(tmp_path) is None
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    assert _first_picture(tmp_path) is None
    Image.fromarray(np.full((8, 8), 99, np.uint8)).save(tmp_path / "b.jpg")
    shutil.copy(tmp_path / "b.jpg", tmp_path / "c.jpg")
    assert _first_picture(tmp_path).shape == (8, 8)
