import json
import shutil

import pytest

from mri_transfer.errors import UserError
from mri_transfer.finetune.arms import parse_arm, resolve_arms, weights_digest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("random", ("random", "random")),
        ("imagenet", ("imagenet", "imagenet")),
        ("imagenet+mri=runs/b", ("imagenet+mri", "runs/b")),
        ("runs/night", ("night", "runs/night")),
        ("scratch=random", ("scratch", "random")),
    ],
)
def test_forms_of_an_arm(text, expected):
    assert parse_arm(text) == expected


def test_a_folder_may_have_an_equals_sign_in_its_name(tmp_path):
    folder = tmp_path / "rate=3"
    folder.mkdir()
    assert parse_arm(str(folder)) == ("rate=3", str(folder))


@pytest.mark.parametrize("text", ["", "=run", "mri=", "imagenet=run", "random=imagenet", "a\nb=run"])
def test_badly_written_arms_are_refused(text):
    with pytest.raises(UserError, match="--arm"):
        parse_arm(text)


def test_default_arms_share_a_backbone():
    arms = resolve_arms([])
    assert [arm.name for arm in arms] == ["random", "imagenet"]
    assert {arm.backbone for arm in arms} == {"efficientnet_lite0"}
    assert [arm.per_seed for arm in arms] == [True, False]


def test_an_encoder_brings_its_card(encoder_folder):
    arms = resolve_arms(["imagenet", f"mri={encoder_folder}"])
    assert arms[1].card["provenance"]["method"] == "simclr"
    assert arms[1].backbone == arms[0].backbone == "efficientnet_lite0"


@pytest.mark.parametrize("texts", [["random", "random"], ["mri=ENC", "mri=ENC"], ["ENC", "mri=ENC"]])
def test_names_are_given_once(texts, encoder_folder):
    with pytest.raises(UserError, match="named twice"):
        resolve_arms([text.replace("ENC", str(encoder_folder)) for text in texts])


def test_a_missing_run_is_one_line_that_names_it(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        resolve_arms([f"mri={tmp_path / 'nowhere'}"])
    with pytest.raises(UserError, match=r"did you mean --arm imagenet"):
        resolve_arms(["ImageNet"])


def test_a_folder_without_an_encoder(tmp_path):
    with pytest.raises(UserError, match="encoder"):
        resolve_arms([str(tmp_path)])


def test_different_backbones_must_be_asked_for(encoder_folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(encoder_folder, other)
    card = json.loads((other / "encoder.json").read_text())
    (other / "encoder.json").write_text(json.dumps(card | {"backbone": "mobilenet"}))
    texts = [f"a={encoder_folder}", f"b={other}"]
    with pytest.raises(UserError, match=r"different backbones .*--mixed-backbones"):
        resolve_arms(texts)
    with pytest.raises(UserError, match="different backbones"):
        resolve_arms([f"a={encoder_folder}", "imagenet"], backbone="mobilenet")
    assert [arm.backbone for arm in resolve_arms(texts, mixed_backbones=True)] == [
        "efficientnet_lite0",
        "mobilenet",
    ]


def test_an_unknown_backbone():
    with pytest.raises(UserError, match="mobilenet"):
        resolve_arms(["random"], backbone="mobilnet")


def test_digest_follows_the_weights_and_nothing_else():
    from mri_transfer.checkpoints.backbones import build_encoder

    first, again, other_seed, other_size = (
        build_encoder(size=size, seed=seed) for size, seed in ((32, 0), (32, 0), (32, 1), (48, 0))
    )
    digest = weights_digest(first)
    assert weights_digest(again) == weights_digest(other_size) == digest
    assert weights_digest(other_seed) != digest
    variable = again.weights[5]
    variable.assign(
        variable + 1e-7 * abs(variable).numpy().max() if hasattr(variable, "numpy") else variable + 1e-7
    )
    assert weights_digest(again) != digest
