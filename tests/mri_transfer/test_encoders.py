"""`mri-transfer encoders`: what comes with the program, in words and for programs."""

import json
import subprocess
import sys

from mri_transfer.checkpoints.initialisation import PUBLISHED
from mri_transfer.encoders import described


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
            "core_hours": 1.5,
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
