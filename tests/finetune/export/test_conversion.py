"""Exports say what Keras says, on images they were not calibrated with, or are not kept."""

import dataclasses
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from mri_transfer.errors import UserError
from mri_transfer.finetune.export import conversion as module
from mri_transfer.finetune.export.conversion import (
    Agreement,
    acceptable,
    agreement,
    export_run,
    sample_images,
)
from mri_transfer.finetune.prediction.inputs import Picture
from mri_transfer.verify import examine


@pytest.fixture(scope="session")
def classifier_run(tumor_folder, tmp_path_factory):
    """A classifier that knows its images, as `finetune` saves it: one that guesses has no class that must stay."""
    from sklearn.linear_model import LogisticRegression

    from mri_transfer.checkpoints.initialisation import Initialisation
    from mri_transfer.datasets.tumors.tumors import load_tumors
    from mri_transfer.finetune.heads.classifier import build_classifier, save_classifier
    from mri_transfer.finetune.heads.features import extract_features

    tumors = load_tumors(tumor_folder, 64)
    encoder, _ = Initialisation.read("imagenet").load(64)
    features = extract_features(encoder, tumors.images, None)
    mean, scale = features.mean(0), features.std(0) + 1e-6
    fitted = LogisticRegression(C=0.1, max_iter=1000).fit((features - mean) / scale, tumors.labels)
    run = tmp_path_factory.mktemp("classifier") / "run"
    save_classifier(
        build_classifier(
            encoder,
            tumors.classes,
            mean=mean,
            scale=scale,
            kernel=fitted.coef_.T.astype(np.float32),
            bias=fitted.intercept_.astype(np.float32),
        ),
        run,
        backbone="efficientnet_lite0",
        provenance={"config": {"tumors": str(tumor_folder)}},
    )
    return run


def test_agreement_is_what_numpy_says():
    expected = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], np.float32)
    answers = np.array([[0.2, 0.7, 0.1], [0.1, 0.8, 0.1]], np.float32)
    result = agreement(expected, answers, probabilities=True)
    assert result.images == 2
    assert result.top1 == 0.5
    assert result.largest_difference == pytest.approx(0.5)
    a, b = expected[0], answers[0]
    assert result.cosine == pytest.approx((a @ b / np.linalg.norm(a) / np.linalg.norm(b) + 1) / 2)
    features = agreement(100 * expected, 100 * answers, probabilities=False)
    assert features.top1 is None
    assert features.largest_difference == pytest.approx(0.5 / 0.8)


@pytest.mark.parametrize(
    ("found", "int8", "kept"),
    [
        (Agreement(200, 1.0, 1e-4, 1.0), False, True),
        (Agreement(200, 0.995, 1e-4, 1.0), False, False),
        (Agreement(200, 1.0, 0.01, 1.0), False, False),
        (Agreement(200, 0.98, 0.3, 0.99), True, True),
        (Agreement(200, 0.975, 0.1, 0.99), True, False),
        (Agreement(200, None, 1e-4, 0.99999), False, True),
        (Agreement(200, None, 1e-4, 0.99), False, False),
        (Agreement(200, None, 0.2, 0.96), True, True),
    ],
)
def test_what_may_be_kept(found, int8, kept):
    assert acceptable(found, int8=int8) == kept


def test_images_to_compare_and_to_calibrate_with_are_others(tumor_folder):
    compared, calibration = sample_images([tumor_folder], 32)
    assert compared.dtype == np.uint8
    assert compared.shape[1:] == (32, 32)
    assert abs(len(compared) - len(calibration)) <= 1
    digests = [
        {hashlib.sha256(image.tobytes()).digest() for image in pictures}
        for pictures in (compared, calibration)
    ]
    assert len(digests[0] & digests[1]) <= 8  # copies that were planted in the folder


def test_of_several_volumes_only_as_many_slices_are_kept_as_are_compared(monkeypatch, tmp_path):
    """Slices of hundreds of volumes would fill the memory."""
    sizes = [900, 3, 0, 900]
    monkeypatch.setattr(module, "find_inputs", lambda paths: sizes)
    monkeypatch.setattr(module, "COMPARED", 20)
    slices = [np.full((4, 4), i % 256, np.uint8) for i in range(900)]
    monkeypatch.setattr(
        module, "read_input", lambda count, size, spacing: (Picture("v", i) for i in slices[:count])
    )
    compared, calibration = sample_images([tmp_path], 4)
    assert len(compared) + len(calibration) == 10 + 3 + 10
    assert (compared[0] == slices[0]).all()
    assert (compared[-1] == slices[899]).all()


@pytest.mark.slow
def test_bad_requests_say_what_to_do(classifier_run, tmp_path):
    with pytest.raises(UserError, match="--int8 goes with --format litert"):
        export_run(classifier_run, tmp_path / "out", format="onnx", int8=True)
    with pytest.raises(UserError, match="no such file or folder"):
        export_run(classifier_run, tmp_path / "out", format="onnx", images=[tmp_path / "nothing"])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_saved_model_needs_no_keras(classifier_run, tumor_folder, tmp_path):
    summary = export_run(classifier_run, tmp_path / "out", format="saved_model")
    assert summary["files"][0]["agreement"]["top1"] == 1
    compared, _ = sample_images([tumor_folder], 64)
    np.save(tmp_path / "images.npy", compared[:4])
    code = """
import sys, numpy as np, tensorflow as tf
sys.modules["keras"] = None
loaded = tf.saved_model.load(sys.argv[1])
images = np.load(sys.argv[2])[..., None].astype("float32")
(found,) = loaded.signatures["serving_default"](images=tf.constant(images)).values()
print([name.decode() for name in loaded.classes()["classes"].numpy()])
np.save(sys.argv[3], found.numpy())
"""
    paths = [
        str(tmp_path / "out" / "saved_model"),
        *(str(tmp_path / f"{n}.npy") for n in ("images", "found")),
    ]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(summary["classes"])
    from mri_transfer.finetune.heads.classifier import load_classifier

    expected = load_classifier(classifier_run).probabilities(compared[:4], None)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-4)


@pytest.mark.slow
def test_lite_files_agree_and_the_small_one_holds_integers(classifier_run, tmp_path):
    from mri_transfer.finetune.export.litert import interpreter

    whole = export_run(classifier_run, tmp_path / "out", format="litert")
    assert whole["files"][0]["agreement"]["top1"] == 1
    small = export_run(classifier_run, tmp_path / "out", format="litert", int8=True)
    assert small["files"][0]["agreement"]["top1"] >= 0.98
    assert small["files"][0]["bytes"] < 0.4 * whole["files"][0]["bytes"]
    model = interpreter(tmp_path / "out" / "model-int8.tflite")
    kinds = [tensor["dtype"] for tensor in model.get_tensor_details()]
    assert kinds.count(np.int8) > 50
    assert {"litert.json", "litert-int8.json", "model.tflite", "model-int8.tflite"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    card = json.loads((tmp_path / "out" / "litert-int8.json").read_text())
    path = tmp_path / "out" / "model-int8.tflite"
    assert card["files"][0]["sha256"] == {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}


@pytest.mark.slow
def test_onnx_files_agree_and_carry_the_classes(classifier_run, tmp_path):
    onnx = pytest.importorskip("onnx", reason="pip install '.[export]'")
    pytest.importorskip("tf2onnx", reason="pip install '.[export]'")
    summary = export_run(classifier_run, tmp_path / "out", format="onnx")
    assert [entry["file"] for entry in summary["files"]] == ["model-opset13.onnx", "model-opset17.onnx"]
    assert all(entry["agreement"]["top1"] == 1 for entry in summary["files"])
    for opset in (13, 17):
        model = onnx.load(tmp_path / "out" / f"model-opset{opset}.onnx")
        onnx.checker.check_model(model)
        assert {o.version for o in model.opset_import if o.domain in ("", "ai.onnx")} == {opset}
        assert {o.domain for o in model.opset_import if o.version} <= {"", "ai.onnx", "ai.onnx.ml"}
        assert not [node for node in model.graph.node if node.domain not in ("", "ai.onnx")]
        assert json.loads({p.key: p.value for p in model.metadata_props}["classes"]) == summary["classes"]
        assert [o.name for o in model.graph.output] == ["probabilities"]
    assert "--shapes=images:1x64x64x1" in summary["commands"][0]


@pytest.mark.parametrize("format", [pytest.param("keras", marks=pytest.mark.slow), "safetensors"])
def test_an_encoder_for_others_needs_no_images(format, encoder_folder, tmp_path):
    if format == "safetensors":
        pytest.importorskip("safetensors")
    (entry,) = export_run(encoder_folder, tmp_path / "out", format=format)["files"]
    assert entry["agreement"]["cosine"] > 0.9999
    before = examine(tmp_path / "out")
    assert (before["whole"], before["notes"]) == (True, [])
    if format == "keras":  # which Keras alone reads, so nothing in it is of this package
        code = "import sys, keras; print(keras.saving.load_model(sys.argv[1]).output_shape)"
        path = str(tmp_path / "out" / entry["file"])
        done = subprocess.run(
            [sys.executable, "-c", code, path], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        assert done.stdout.strip() == "(None, 1280)"
    path = tmp_path / "out" / entry["file"]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert [problem["file"] for problem in examine(tmp_path / "out")["problems"]] == [str(path)]


@pytest.mark.slow
def test_an_encoder_alone_gives_features(encoder_folder, tumor_folder, tmp_path):
    summary = export_run(encoder_folder, tmp_path / "out", format="litert", images=[tumor_folder])
    assert summary["output"] == "features"
    assert summary["classes"] == []
    assert summary["files"][0]["agreement"]["cosine"] > 0.9999
    with pytest.raises(UserError, match="--images"):
        export_run(encoder_folder, tmp_path / "out", format="litert")


@pytest.mark.slow
def test_what_does_not_agree_is_not_kept(classifier_run, tmp_path, monkeypatch):
    def write(model, folder):
        path = folder / "wrong.bin"
        path.write_bytes(b"wrong")
        return path

    def load(path):
        return lambda images: np.tile(np.float32([0.1, 0.2, 0.3, 0.4]), (len(images), 1))

    monkeypatch.setattr(module, "_exports", lambda *_: [(write, load, "a wrong one")])
    with pytest.raises(UserError, match="does not agree with Keras"):
        export_run(classifier_run, tmp_path / "out", format="litert")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"folder.json", "lock"}


@pytest.mark.slow
def test_another_backend_is_refused(monkeypatch, classifier_run):
    from mri_transfer.finetune.export.served import served
    from mri_transfer.machine import device

    monkeypatch.setattr(device, "prepare", lambda: "jax")
    with pytest.raises(UserError, match="unset KERAS_BACKEND"):
        served(classifier_run)


def test_the_agreement_is_written_as_plain_values():
    assert set(dataclasses.asdict(Agreement(1, 1.0, 0.0, 1.0))) == {
        "images",
        "top1",
        "largest_difference",
        "cosine",
    }
