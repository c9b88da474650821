import json
import pickle
import shutil
import signal
import time

import numpy as np
import pytest

from mri_transfer import api
from mri_transfer.cli import main
from mri_transfer.errors import UserError
from mri_transfer.finetune.config import FinetuneConfig, PredictConfig
from mri_transfer.finetune.finetune import finetune
from mri_transfer.finetune.heads import training
from mri_transfer.finetune.heads.classifier import CARD, load_classifier
from mri_transfer.finetune.prediction.predict import predict
from mri_transfer.finetune.prediction.predictions_table import table

SMALL = {"size": 64, "epochs": 2, "batch": 16, "unfreeze": 0.1, "folds": 3, "calibration": "none"}


@pytest.fixture(scope="module")
def run(tumor_folder, encoder_folder, tmp_path_factory):
    """Folder and summary of a finished run that was interrupted after its first epoch."""
    out = tmp_path_factory.mktemp("finetune") / "run"
    config = FinetuneConfig(tumors=tumor_folder, out=out, init=str(encoder_folder), **SMALL)
    epoch = training.Finetuning.train_epoch
    trained = []

    def interrupted(self, on_step=None):
        if self.epoch == 1 and not trained:
            trained.append(0)
            raise KeyboardInterrupt
        trained.extend([self.epoch] if trained else [])
        return epoch(self, on_step)

    training.Finetuning.train_epoch = interrupted
    try:
        with pytest.raises(KeyboardInterrupt):
            finetune(config)
        assert not (out / CARD).exists()
        summary = finetune(config)
    finally:
        training.Finetuning.train_epoch = epoch
    assert trained == [0, 1]  # the second process trained the second epoch only
    return out, summary, config


@pytest.mark.slow
def test_an_interrupted_run_goes_on_from_its_last_epoch(run):
    assert len(run[1]["training"]["losses"]) == 2
    assert not (run[0] / "state").exists()


def test_a_mistake_in_the_settings_leaves_the_folder_to_the_next_try(tumor_folder, encoder_folder, tmp_path):
    config = FinetuneConfig(
        tumors=tumor_folder, out=tmp_path / "run", init=str(encoder_folder), **{**SMALL, "folds": 1000}
    )
    with pytest.raises(UserError, match="fewer --folds"):
        finetune(config)
    assert not (config.out / "config.json").exists()


def test_the_summary_scores_the_held_out_fold(run):
    summary = json.loads((run[0] / "summary.json").read_text())
    held = summary["held_out"]
    assert 0 <= held["macro_f1"] <= 1
    assert held["balanced_accuracy"] == pytest.approx(np.mean(list(held["recall"].values())))
    assert held["images"] + summary["train_images"] > 100
    assert list(held["recall"]) == summary["classes"]
    assert summary["training"]["temperature"] == 1
    assert {key: held[key] for key in held["uncalibrated"]} == held["uncalibrated"]


def test_the_encoder_can_be_a_start_again(run):
    from mri_transfer.checkpoints.encoders import read_card

    card = read_card(run[0])
    assert card["provenance"]["method"] == "fine-tuning"
    assert card["provenance"]["start"]["provenance"]["method"] == "simclr"


def test_a_finished_run_says_so_and_other_settings_are_refused(run, capsys):
    assert finetune(run[2]) == run[1] | json.loads((run[0] / "summary.json").read_text())
    assert "finished before" in capsys.readouterr().err
    with pytest.raises(UserError, match="other settings"):
        finetune(FinetuneConfig(**{**run[2].__dict__, "rate": 0.01}))


def test_a_pickled_classifier_names_its_folder_and_answers_the_same(run, tumor_folder):
    classifier = api.load_classifier(run[0])
    content = pickle.dumps(classifier)
    assert len(content) < 1000
    picture = next((tumor_folder / "Testing").rglob("*.jpg"))
    assert np.array_equal(pickle.loads(content).predict_proba(picture), classifier.predict_proba(picture))


def test_predictions_are_the_models_own_output(run, tumor_folder):
    from mri_transfer.datasets.image_files import read_grey, square

    answer = predict(PredictConfig(run=run[0], images=(tumor_folder / "Testing",), batch=7))
    classifier = load_classifier(run[0])
    files = sorted((tumor_folder / "Testing").rglob("*.jpg"))
    assert [row["file"] for row in answer["images"]] == [str(file) for file in files]
    images = np.stack([square(read_grey(file), 64) for file in files])
    head = classifier.head_arrays()
    features = np.asarray(classifier.encoder.predict(images[..., None], verbose=0), np.float64)
    logits = (features - head["mean"]) / head["scale"] @ head["kernel"] + head["bias"]
    expected = np.exp(logits - logits.max(1, keepdims=True))
    expected /= expected.sum(1, keepdims=True)
    probabilities = np.array(
        [[row["probabilities"][name] for name in classifier.classes] for row in answer["images"]]
    )
    assert np.abs(probabilities - expected).max() < 1e-4
    assert [row["class"] for row in answer["images"]] == [classifier.classes[k] for k in expected.argmax(1)]


def test_table_csv_and_json_go_where_they_are_asked_to(run, tumor_folder, tmp_path, capsys):
    image = next((tumor_folder / "Testing").rglob("*.jpg"))
    assert main(["predict", str(run[0]), str(image)]) == 0
    assert str(image) in capsys.readouterr().out
    assert main(["predict", str(run[0]), str(image), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["images"][0]["file"] == str(image)
    assert main(["predict", str(run[0]), str(image), "--csv", str(tmp_path / "p.csv")]) == 0
    assert capsys.readouterr().out == ""
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert lines[0].startswith("file,class,glioma_tumor,meningioma_tumor,no_tumor,pituitary_tumor,")
    assert len(lines) == 2


def test_table_marks_the_most_probable_class():
    rows = [{"file": "a.png", "class": "x_tumor", "probabilities": {"x_tumor": 0.75, "no_tumor": 0.25}}]
    heads, line = table(rows, ("x_tumor", "no_tumor")).splitlines()[:2]
    assert heads.split() == ["image", "x", "no", "tumor"]
    assert "0.750*" in line


@pytest.mark.parametrize("name", ["classifier.json", "head", "encoder/encoder.json"])
def test_a_damaged_run_is_named(run, tmp_path, name):
    broken = tmp_path / "run"
    shutil.copytree(run[0], broken)
    path = next(broken.glob("head-*.npz")) if name == "head" else broken / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    image = tmp_path / "x.png"
    image.touch()
    with pytest.raises(UserError, match=path.name):
        predict(PredictConfig(run=broken, images=(image,)))


def test_an_encoder_of_another_run_is_noticed(run, encoder_folder, tmp_path):
    broken = tmp_path / "run"
    shutil.copytree(run[0], broken)
    shutil.rmtree(broken / "encoder")
    shutil.copytree(encoder_folder, broken / "encoder")
    with pytest.raises(UserError, match="not the encoder that this head"):
        load_classifier(broken)


def test_what_is_no_run_is_named(tmp_path, encoder_folder):
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match="fine-tuning run"):
            predict(PredictConfig(run=folder, images=(tmp_path,)))
    with pytest.raises(UserError, match="no such folder"):
        finetune(FinetuneConfig(tumors=tmp_path / "t", out=tmp_path / "o"))
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_bits(
    tumor_folder, encoder_folder, tmp_path, start_command
):
    """With everything on; each process is killed, without warning, after one more epoch than the one before it."""

    def start(out):
        options = ("--size", "64", "--epochs", "2", "--batch", "16", "--unfreeze", "0.1", "--folds", "3")
        grid = ("--rates", "1e-4,1e-3")
        return start_command(
            "finetune", tumor_folder, "--init", encoder_folder, "--out", out, *options, *grid
        )

    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert start(undisturbed).wait() == 0
    kills = 0
    while True:
        newest = max((file.name for file in (killed / "state").glob("state-*.json")), default="")
        process = start(killed)
        while process.poll() is None:
            actual = max((file.name for file in (killed / "state").glob("state-*.json")), default="")
            if actual != newest and kills < 3:
                process.kill()
                kills += 1
            time.sleep(0.02)
        if process.wait() == 0:
            break
        assert process.returncode == -signal.SIGKILL, process.communicate()[0]
    assert kills == 3
    for name in ("head-*.npz", "encoder/*.npz"):
        expected, actual = (sorted(folder.glob(name)) for folder in (undisturbed, killed))
        assert [file.name for file in expected] == [file.name for file in actual]  # named by their SHA-256
    reference, resumed = (
        json.loads((folder / "summary.json").read_text()) for folder in (undisturbed, killed)
    )
    assert reference["held_out"] == resumed["held_out"]
    assert {**reference["training"], "seconds": 0} == {**resumed["training"], "seconds": 0}
    training = reference["training"]
    assert training["temperature"] != 1
    assert load_classifier(killed).temperature == training["temperature"]
    assert list(training["rates"]) == ["0.0001", "0.001"]
