"""`predict` with a network of one filter, whose answer is known: files in, rows, pictures and warnings out."""

import csv
import json
import shutil

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from mri_transfer.cli import main
from mri_transfer.errors import UserError
from mri_transfer.finetune.config import RUN_KIND, PredictConfig
from mri_transfer.finetune.heads import classifier as classifier_file
from mri_transfer.finetune.heads.classifier import build_classifier
from mri_transfer.finetune.prediction import out_of_distribution
from mri_transfer.finetune.prediction.out_of_distribution import InDistribution
from mri_transfer.finetune.prediction.predict import predict
from mri_transfer.storage.files import claim_folder

SIZE = 32


def brightness():
    """Calls a picture bright from a mean grey of 100 on; the logit grows by one in ten levels."""
    image = keras.Input((SIZE, SIZE, 1))
    encoder = keras.Model(image, layers.GlobalAveragePooling2D()(layers.AveragePooling2D(4)(image)))
    unit = np.ones(1, np.float32)
    kernel, bias = np.array([[0.0, 1.0]], np.float32), np.zeros(2, np.float32)
    return build_classifier(
        encoder, ("dark", "bright"), mean=100 * unit, scale=10 * unit, kernel=kernel, bias=bias
    )


@pytest.fixture(scope="module")
def network():
    return brightness()


@pytest.fixture
def run(network, tmp_path, monkeypatch):
    """A run folder that loads the network above; images of 60 to 160 on average are in distribution."""
    unit = np.ones(1, np.float32)
    figures = InDistribution(
        110 * unit, 10 * unit, np.ones((1, 1), np.float32), unit, 1.0, threshold=25.0, held_out=50
    )
    claim_folder(tmp_path / "run", RUN_KIND)
    monkeypatch.setattr(classifier_file, "load_classifier", lambda run: network)
    monkeypatch.setattr(out_of_distribution, "load_in_distribution", lambda run, features: figures)
    return tmp_path / "run"


def grey(path, level, side=SIZE):
    """A disc on black whose mean is about `level`."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    disc = (x**2 + y**2 < 0.8) * 1.0
    picture = np.clip(disc * level / disc.mean() * (1 + 0.2 * x), 0, 255).astype(np.uint8)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(picture).save(path)
    return path


def test_probabilities_and_what_is_out_of_distribution(run, tmp_path):
    files = [grey(tmp_path / f"{level}.png", level) for level in (90, 130, 30)]
    answer = predict(PredictConfig(run=run, images=tuple(files)))
    for row, file in zip(answer["images"], files, strict=True):
        mean = float(np.asarray(Image.open(file)).mean())
        odds = np.exp((mean - 100) / 10)
        assert row["probabilities"]["bright"] == pytest.approx(odds / (1 + odds), abs=1e-4)
        assert row["distance"] == pytest.approx(((mean - 110) / 10) ** 2, rel=1e-3)
        assert row["out_of_distribution"] == (row["distance"] > 25)
    assert [row["class"] for row in answer["images"]] == ["dark", "bright", "dark"]
    assert [row["out_of_distribution"] for row in answer["images"]] == [False, False, True]
    assert "further from the training images" in answer["images"][2]["why"][0]
    assert answer["out_of_distribution"] == 1
    json.dumps(answer)


def test_a_photograph_is_not_classified_in_silence(run, tmp_path, capsys):
    path = tmp_path / "photo.jpg"
    y, x = np.mgrid[:80, :80]
    picture = np.stack([120 + x, 200 - y, 80 + (x + y) / 2], -1).astype(np.uint8)
    Image.fromarray(picture).save(path)
    answer = predict(PredictConfig(run=run, images=(path,)))
    assert answer["images"][0]["out_of_distribution"]
    output = capsys.readouterr()
    assert "? unlike the training images" in output.out
    assert "photographs" in output.out
    assert "1 of 1 images are unlike the training images" in output.err


def test_a_run_without_figures_of_its_images_says_so(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(out_of_distribution, "load_in_distribution", lambda run, features: None)
    answer = predict(PredictConfig(run=run, images=(grey(tmp_path / "a.png", 90),)))
    assert answer["images"][0]["out_of_distribution"] is None
    assert "images unlike them go unnoticed" in capsys.readouterr().err


def test_a_volume_is_a_row_for_each_slice_and_a_summary(run, small_volumes, tmp_path, capsys):
    volume = sorted(small_volumes.iterdir())[0]
    answer = predict(PredictConfig(run=run, images=(volume,), csv=tmp_path / "v.csv"))
    rows = answer["images"]
    assert len(rows) > 3
    assert {row["plane"] for row in rows} == {"axial", "coronal", "sagittal"}
    (total,) = answer["volumes"]
    assert total["slices"] == len(rows)
    assert (
        total["out_of_distribution"]
        == sum(row["out_of_distribution"] for row in rows)
        == answer["out_of_distribution"]
    )
    inliers = [row for row in rows if not row["out_of_distribution"]]
    for name in ("dark", "bright"):
        mean = np.mean([row["probabilities"][name] for row in inliers]) if inliers else None
        assert total["probabilities"][name] == (None if mean is None else pytest.approx(mean))
        assert total["by_class"][name] == sum(row["class"] == name for row in inliers)
    with (tmp_path / "v.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(rows)
    assert float(table[0]["position_mm"]) == rows[0]["position_mm"]
    few = predict(PredictConfig(run=run, images=(volume,), spacing=30.0))
    assert 0 < len(few["images"]) < len(rows)
    assert few["volumes"][0]["words"] in capsys.readouterr().out
    # All these slices are far darker than the training images: no class at all.
    assert total["class"] is few["volumes"][0]["class"] is None
    assert (
        f"no class: {len(few['images'])} of {len(few['images'])} slices are unlike"
        in few["volumes"][0]["words"]
    )


def test_a_folder_that_cannot_be_used_does_not_end_the_others(run, tmp_path, capsys):
    good = grey(tmp_path / "good" / "a.png", 100)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/read me.txt").write_text("nothing")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/x_T1w.nii.gz").write_bytes(b"\x1f\x8bnothing")
    folders = tuple(tmp_path / name for name in ("empty", "damaged", "good", "notes"))
    answer = predict(PredictConfig(run=run, images=folders))
    assert [row["file"] for row in answer["images"]] == [str(good)]
    assert len(answer["skipped"]) == 3
    output = capsys.readouterr().err
    assert "3 files skipped" in output
    assert "--" not in output.replace("--json FILE", "")


def test_where_it_looked_is_a_picture_of_its_own_for_every_image(run, small_volumes, tmp_path):
    images = tuple(grey(tmp_path / name, 120) for name in ("a/scan.png", "b/scan.png", "b/scan-2.png"))
    volume = sorted(small_volumes.iterdir())[0]
    config = PredictConfig(
        run=run, images=(*images, volume), gradcam=tmp_path / "deep" / "where", spacing=30.0
    )
    answer, plain = predict(config), predict(PredictConfig(run=run, images=images))
    pictures = sorted(path.name for path in config.gradcam.iterdir())
    assert len(pictures) == len(answer["images"]) == len({row["gradcam"] for row in answer["images"]})
    assert {"scan.png", "scan-2.png", "scan-2-2.png"} < set(pictures)
    assert any(name.startswith(f"{volume.name.split('.')[0]}-axial") for name in pictures)
    picture = np.asarray(Image.open(answer["images"][0]["gradcam"])).astype(int)
    assert picture.shape == (320, 640, 3)
    left, right = picture[:, :320], picture[:, 320:]
    assert np.ptp(left, axis=-1).max() == 0  # the picture as it is
    assert (right[..., 0] - right[..., 2]).max() > 60  # and with activation, as it speaks for "bright"
    for row, reference in zip(answer["images"][:3], plain["images"], strict=True):
        assert row["probabilities"] == pytest.approx(reference["probabilities"])
    with pytest.raises(UserError, match="--gradcam takes a folder"):
        predict(PredictConfig(run=run, images=images, gradcam=images[0]))


def test_what_can_not_be_read_is_skipped_counted_and_fatal_when_strict(run, small_volumes, tmp_path, capsys):
    folder = tmp_path / "mixed"
    grey(folder / "good.png", 100)
    shutil.copy(sorted(small_volumes.iterdir())[0], folder / "good_T1w.nii.gz")
    (folder / "bad.png").write_bytes(b"nothing")
    (folder / "bad_T1w.nii.gz").write_bytes(b"\x1f\x8bnothing")
    answer = predict(PredictConfig(run=run, images=(folder,)))
    assert {row["file"] for row in answer["images"]} == {
        str(folder / "good.png"),
        str(folder / "good_T1w.nii.gz"),
    }
    assert {entry["file"] for entry in answer["skipped"]} == {
        str(folder / "bad.png"),
        str(folder / "bad_T1w.nii.gz"),
    }
    assert "2 files skipped" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"bad\.png: can't be read as an image"):
        predict(PredictConfig(run=run, images=(folder / "bad.png", folder / "good.png"), strict=True))
    with pytest.raises(UserError, match="nothing that can be read"):
        predict(PredictConfig(run=run, images=(folder / "bad.png",)))
    (folder / "lone.hdr").write_bytes(b"half")
    with pytest.raises(UserError, match=r"lone\.hdr: can't be read as a volume"):
        predict(PredictConfig(run=run, images=(folder / "good.png", folder / "lone.hdr"), strict=True))


def test_batches_change_nothing(run, tmp_path):
    files = tuple(grey(tmp_path / f"{level}.png", level) for level in range(60, 160, 20))
    rows = [predict(PredictConfig(run=run, images=files, batch=batch))["images"] for batch in (1, 3, 32)]
    for first, second in zip(rows[0], rows[1], strict=True):
        assert first["file"] == second["file"]
        assert first["probabilities"] == pytest.approx(second["probabilities"], abs=1e-6)
    assert [row["file"] for row in rows[0]] == [row["file"] for row in rows[2]]


def test_json_and_table(run, tmp_path, capsys):
    image = grey(tmp_path / "a.png", 130)
    assert main(["predict", str(run), str(image), "--json", str(tmp_path / "p.json")]) == 0
    assert f"{image}" in capsys.readouterr().out
    content = json.loads((tmp_path / "p.json").read_text())
    assert content["images"][0]["class"] == "bright"
    assert content["volumes"] == content["skipped"] == []
    assert main(["predict", str(run), str(tmp_path / "none.png")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
