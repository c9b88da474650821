"""`verify` on what every command wrote, after single bits of it were flipped anywhere."""

import json
import random
import shutil

import numpy as np
import pytest

from mri_transfer.checkpoints.encoders import save_encoder
from mri_transfer.errors import UserError
from mri_transfer.storage.files import claim_folder, read_object, write_card, write_json
from mri_transfer.storage.json_lines import line_of
from mri_transfer.storage.sums import BEFORE, LEFT_OUT, SUMS, files_in, signed, write_sums
from mri_transfer.verify import VerifyConfig, examine, verify
from tests.finetune.small_network import CLASSES, SIZE, small_encoder, stripes

KINDS = ("store", "run", "classifier", "comparison")


@pytest.fixture(scope="module")
def made(tmp_path_factory, small_volumes):
    """One small folder of every kind, by the functions that the commands write them with."""
    from mri_transfer.api import slices
    from mri_transfer.finetune.comparison.trials import Trial, TrialStore
    from mri_transfer.finetune.heads.classifier import save_classifier, with_probe_head
    from mri_transfer.finetune.heads.features import extract_features
    from mri_transfer.finetune.heads.probe import fit_probe
    from mri_transfer.finetune.prediction.out_of_distribution import fit, save_in_distribution

    base = tmp_path_factory.mktemp("made")
    slices(small_volumes, out=base / "store", size=24, workers=1)
    images, labels = stripes()
    encoder = small_encoder()
    card = {"backbone": "efficientnet_lite0", "size": SIZE, "provenance": {"steps": 3}}
    claim_folder(base / "run", "pretraining run")
    save_encoder(encoder, base / "run" / "encoder", **card)
    write_card(base / "run" / "config.json", {"config": {"seed": 1}, "data": {}})
    (base / "run" / "metrics.jsonl").write_bytes(line_of({"step": 1, "loss": 2.5}))
    write_json(base / "run" / "summary.json", {"steps": 3})
    write_sums(base / "run")
    claim_folder(base / "classifier", "fine-tuning run")
    features = extract_features(encoder, images)
    classifier = with_probe_head(encoder, fit_probe(features, labels, np.arange(len(labels)), 0), CLASSES)
    save_classifier(classifier, base / "classifier", backbone="efficientnet_lite0", provenance={})
    save_in_distribution(fit(features, features), base / "classifier")
    write_sums(base / "classifier")
    claim_folder(base / "comparison", "comparison")
    with signed(base / "comparison", "comparison"):
        trials = TrialStore(base / "comparison" / "trials")
        trials.save(Trial({"mode": "probe"}, np.arange(4), np.full((4, 2), 0.5, np.float32), {}))
        write_json(base / "comparison" / "report.json", {"images": 4})
        (base / "comparison" / "report.html").write_text("<p>A report</p>\n")
    return base


def flip(folder, rng, only=None):
    """Flip a bit, evenly over files and then over their bytes; returns how to undo it, and where it was."""
    paths = [folder / SUMS, *files_in(folder).values()]
    path = rng.choice([path for path in paths if path.stat().st_size])
    content = path.read_bytes()
    place = rng.randrange(len(content))
    flipped = bytearray(content)
    flipped[place] ^= 1 << rng.randrange(8)
    path.write_bytes(flipped)
    return path, content, place


def flips(made, kind, count):
    rng = random.Random(f"{kind} {count}")
    for _ in range(count):
        path, content, place = flip(made / kind, rng)
        try:
            assert not examine(made / kind)["whole"], (path, place)
        finally:
            path.write_bytes(content)
    assert examine(made / kind)["whole"]


@pytest.mark.parametrize("kind", KINDS)
def test_single_bits_are_found(made, kind):
    flips(made, kind, 15)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_single_bits_are_found(made, kind):
    flips(made, kind, 250)


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_older_version_wrote_is_verified_as_far_as_it_goes(made, tmp_path, kind):
    folder = tmp_path / kind
    shutil.copytree(made / kind, folder)
    (folder / SUMS).unlink()
    result = examine(folder)
    assert result["whole"]
    assert "made by an older version" in result["notes"][0]
    if weights := next(iter([*folder.rglob("encoder-*.npz"), *folder.rglob("00000.npy")]), None):
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 4
        weights.write_bytes(content)
        assert not examine(folder)["whole"]


def test_the_command_says_what_is_whole_and_what_to_do(made, cli, tmp_path):
    done = cli("verify", *(made / kind for kind in KINDS), made / "run" / "encoder")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("whole (") == 5
    broken = tmp_path / "classifier"
    shutil.copytree(made / "classifier", broken)
    card = read_object(broken / "classifier.json")
    (broken / "classifier.json").write_text(json.dumps(card | {"classes": card["classes"][::-1]}))
    done = cli("verify", made / "run", broken, tmp_path / "none", "--json", tmp_path / "found.json")
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert "classifier: not whole, 1 problem, the first in" in last
    assert "mri-transfer finetune" in last
    paths = json.loads((tmp_path / "found.json").read_text())["paths"]
    assert [entry["whole"] for entry in paths] == [True, False, False]
    assert paths[1]["problems"][0]["file"].endswith("classifier.json")
    assert paths[2]["problems"][0]["problem"] == "no such folder"


def test_what_was_damaged_is_not_signed_anew(made, tmp_path):
    folder = tmp_path / "comparison"
    shutil.copytree(made / "comparison", folder)
    with signed(folder, "comparison"):
        pass
    report = folder / "report.html"
    report.write_text("<p>a report</p>\n")
    with signed(folder, "comparison"):
        write_json(folder / "report.json", {"images": 5})
    result = examine(folder)
    assert [problem["file"] for problem in result["problems"]] == [str(report)]
    with signed(folder, "comparison"):
        report.write_text("<p>a new report</p>\n")
    assert examine(folder)["whole"]


def test_an_interrupted_command_is_told_from_damage(made, tmp_path):
    folder = tmp_path / "comparison"
    shutil.copytree(made / "comparison", folder)
    listed = (folder / SUMS).read_bytes()
    with pytest.raises(UserError), signed(folder, "comparison"):
        raise UserError("refused")
    assert (folder / SUMS).read_bytes() == listed

    def interrupted():
        with signed(folder, "comparison"):
            write_json(folder / "report.json", {"images": 5})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (folder / BEFORE).is_file()
    result = examine(folder)
    assert result["whole"]
    assert "was interrupted" in result["notes"][0]
    with signed(folder, "comparison"):
        write_json(folder / "report.json", {"images": 5})
    assert not (folder / BEFORE).exists()
    assert examine(folder)["whole"]


def test_the_list_is_what_sha256sum_reads(made):
    shasum = shutil.which("sha256sum")
    if shasum is None:
        pytest.skip("no sha256sum here")
    import subprocess

    done = subprocess.run(
        [shasum, "-c", "--strict", SUMS], cwd=made / "store", capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not set(LEFT_OUT) & {line.split(b":")[0].decode() for line in done.stdout.splitlines()}


def test_a_folder_of_something_else_is_named(tmp_path):
    with pytest.raises(UserError, match=r"holds nothing that this program made.*; name a store"):
        verify(VerifyConfig(paths=(tmp_path,)))
