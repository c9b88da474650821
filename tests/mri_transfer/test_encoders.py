"""`mri-transfer encoders`: what comes with the program, in words and for programs."""

import json
import subprocess
import sys

import pytest

from mri_transfer.checkpoints.initialisation import PUBLISHED
from mri_transfer.encoders import EncodersConfig, described, encoders
from mri_transfer.errors import UserError
from mri_transfer.storage.files import read_object, write_card


def test_each_is_listed_with_its_card_without_tensorflow(tmp_path):
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "from mri_transfer.cli import main\n"
        "sys.exit(main(['encoders', '--json', sys.argv[1]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "encoders.json")],
        capture_output=True,
        text=True,
        check=True,
    )
    encoders = json.loads((tmp_path / "encoders.json").read_text())["encoders"]
    assert [entry["name"] for entry in encoders] == list(PUBLISHED) == ["mri", "imagenet-mri"]
    for entry in encoders:
        assert f"{entry['name']}: efficientnet_lite0" in done.stdout
        assert entry["card"]["provenance"]["published"]["licence"] == "CC BY-SA 4.0"


def test_pictures_that_were_seen_are_told():
    publication = {
        **{
            "from": "random weights",
            "method": "simclr",
            "hours": 1.5,
            "licence": "CC BY-SA 4.0",
            "scores": [],
        },
        "data": [{"source": "IXI", "people": 2}],
        "views": 1280,
        "audit": {"pictures": 100, "shared": 3},
        "limits": ["Pretrained once."],
    }
    provenance = {"data": {"slices": 20, "subjects": 2}, "published": publication}
    lines = described("mri", {"backbone": "resnet50", "size": 64, "provenance": provenance})
    assert "3 of the 100 distinct pictures of the public tumour set are among its slices" in lines[-3]
    assert "warning" in lines[-1]


@pytest.mark.parametrize(
    ("where", "value"),
    [
        *(((), 3), (("size",), "112"), (("provenance",), []), (("provenance", "data"), None)),
        *((("provenance", "data", "slices"), "1"), (("provenance", "published"), {})),
        *((("provenance", "published", "data"), [3]), (("provenance", "published", "limits"), "x")),
        *((("provenance", "published", "scores"), [["x"]]), (("provenance", "published", "hours"), "1")),
        (("provenance", "published", "audit", "shared"), None),
    ],
)
def test_a_card_with_other_values_is_one_line(tmp_path, monkeypatch, where, value):
    card = read_object(PUBLISHED["mri"] / "encoder.json")
    if where:
        inner = card
        for name in where[:-1]:
            inner = inner[name]
        inner[where[-1]] = value
    else:
        card = {"format": value}
    write_card(tmp_path / "encoder.json", card)
    monkeypatch.setitem(PUBLISHED, "mri", tmp_path)
    with pytest.raises(UserError, match=r"encoder\.json: is damaged \(.*\); install mri-transfer again"):
        encoders(EncodersConfig())


def test_a_card_that_tells_no_limits(tmp_path, monkeypatch, capsys):
    card = read_object(PUBLISHED["mri"] / "encoder.json")
    card["provenance"]["published"]["limits"] = []
    write_card(tmp_path / "encoder.json", card)
    monkeypatch.setitem(PUBLISHED, "mri", tmp_path)
    encoders(EncodersConfig())
    assert "\n  Not a medical device.\n" in capsys.readouterr().out
