import json
import shutil

import pytest

from mri_transfer.checkpoints.initialisation import weights_digest
from mri_transfer.errors import UserError
from mri_transfer.finetune.arms.arms import refuse_the_same, resolve_arms
from mri_transfer.finetune.arms.written import parse_arm
from mri_transfer.finetune.data.protocol import PUBLISHED
from mri_transfer.storage.files import read_object


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
    card = read_object(other / "encoder.json")
    (other / "encoder.json").write_text(json.dumps(card | {"backbone": "mobilenet"}))
    texts = [f"a={encoder_folder}", f"b={other}"]
    with pytest.raises(UserError, match=r"different backbones .*--mixed-backbones"):
        resolve_arms(texts)
    with pytest.raises(UserError, match="different backbones"):
        resolve_arms([f"a={encoder_folder}", "imagenet"], backbones=["mobilenet"])
    assert [arm.backbone for arm in resolve_arms(texts, mixed_backbones=True)] == [
        "efficientnet_lite0",
        "mobilenet",
    ]


def test_encoders_are_read_at_the_output_stride_that_is_asked_for(encoder_folder, tmp_path):
    whole, part = "efficientnet_lite0", "efficientnet_lite0/16"
    arms = resolve_arms(["imagenet", f"mri={encoder_folder}"], backbones=[part])
    assert [(arm.name, arm.backbone) for arm in arms] == [("imagenet", part), ("mri", part)]
    arms = resolve_arms(["imagenet", f"mri={encoder_folder}", "pixels"], backbones=[whole, part])
    names = [f"{name} ({backbone})" for name in ("imagenet", "mri") for backbone in (whole, part)]
    assert [arm.name for arm in arms] == [*names, "pixels"]
    refuse_the_same(arms)
    (tmp_path / "theirs.h5").write_bytes(b"weights")
    arms = resolve_arms([f"theirs={tmp_path / 'theirs.h5'}"], backbones=["mobilenet", "mobilenet/16"])
    assert [arm.name for arm in arms] == ["theirs (mobilenet)", "theirs (mobilenet/16)"]


def test_an_unknown_backbone():
    with pytest.raises(UserError, match="mobilenet"):
        resolve_arms(["random"], backbones=["mobilnet"])


def test_digest_follows_the_weights_and_nothing_else():
    from mri_transfer.checkpoints.backbones import build_encoder

    first, twin, other_seed, other_size = (
        build_encoder(size=size, seed=seed) for size, seed in ((32, 0), (32, 0), (32, 1), (48, 0))
    )
    digest = weights_digest(first)
    assert weights_digest(twin) == weights_digest(other_size) == digest
    assert weights_digest(other_seed) != digest
    variable = twin.weights[5]
    variable.assign(
        variable + 1e-7 * abs(variable).numpy().max() if hasattr(variable, "numpy") else variable + 1e-7
    )
    assert weights_digest(twin) != digest


def test_kinds_and_what_splits_start_from(encoder_folder):
    texts = ["random", "imagenet", "pixels", f"mri={encoder_folder}", "control=scaled:imagenet"]
    arms = resolve_arms([*texts, f"scaled:{encoder_folder}"])
    assert [arm.kind for arm in arms] == ["random", "imagenet", "pixels", "encoder", "scaled", "scaled"]
    assert arms[5].name == f"scaled {encoder_folder.name}"
    assert [arm.source(7, 0).seed for arm in arms] == [7, 0, 0, 0, 7, 7]
    assert arms[5].source(7, 0).origin == str(encoder_folder)
    assert [arm.can("finetune") for arm in arms] == [True, True, False, True, True, True]
    assert all(arm.can("nearest") for arm in arms)


def test_several_backbones_make_an_arm_of_every_built_in_start(encoder_folder):
    backbones = ["efficientnet_lite0", "mobilenet"]
    arms = resolve_arms(["random", "imagenet", "pixels", f"mri={encoder_folder}"], backbones=backbones)
    assert [arm.name for arm in arms] == [
        *("random (efficientnet_lite0)", "random (mobilenet)"),
        *("imagenet (efficientnet_lite0)", "imagenet (mobilenet)"),
        *("pixels", "mri"),
    ]
    assert [arm.backbone for arm in arms if arm.kind == "imagenet"] == backbones
    assert len(resolve_arms(["random"], backbones=["mobilenet", "mobilenet"])) == 1


def test_an_encoder_for_each_split(encoder_folder, tmp_path):
    splits = [(seed, fold) for seed in (0, 1) for fold in (0, 1)]
    for seed, fold in splits:
        shutil.copytree(encoder_folder, tmp_path / f"{seed}-{fold}")
    text = f"target={tmp_path}/{{seed}}-{{fold}}"
    (arm,) = resolve_arms([text], splits=splits)
    assert arm.per_split
    assert [arm.source(*split).origin for split in splits] == [f"{tmp_path}/{s}-{f}" for s, f in splits]
    assert arm.card == {}
    with pytest.raises(UserError, match=r"2 of 6 are missing.*--target-stores"):
        resolve_arms([text], splits=[*splits, (2, 0), (2, 1)])
    with pytest.raises(UserError, match=r"folds differ between seeds; write \{seed\}"):
        resolve_arms([f"target={tmp_path}/0-{{fold}}"], splits=splits)
    with pytest.raises(UserError, match="scaled: takes one encoder"):
        resolve_arms([f"control=scaled:{tmp_path}/{{seed}}-{{fold}}"], splits=splits)
    # A folder of that very name is an encoder like any other.
    shutil.copytree(encoder_folder, tmp_path / "{seed}-{fold}")
    assert not resolve_arms([text], splits=splits)[0].per_split


def test_an_encoder_for_each_seed(encoder_of_each_seed, tmp_path):
    splits = [(seed, fold) for seed in (0, 1) for fold in (0, 1, 2)]
    (arm,) = resolve_arms([f"mri={encoder_of_each_seed}"], splits=splits)
    assert arm.repeated
    assert not arm.per_split
    for seed, fold in [*splits, (1, PUBLISHED)]:
        assert arm.source(seed, fold).origin == encoder_of_each_seed.replace("{seed}", str(seed))
    with pytest.raises(
        UserError, match=r"mri-2: no such folder \(1 of 3 are missing\); pretrain once for each seed"
    ):
        resolve_arms([f"mri={encoder_of_each_seed}"], splits=[*splits, (2, 0)])


def test_copies_of_one_encoder_are_no_repetition(encoder_folder, tmp_path):
    for seed in (0, 1):
        shutil.copytree(encoder_folder, tmp_path / f"mri-{seed}")
    with pytest.raises(UserError, match=r"mri-0 and .*mri-1 are the same encoder"):
        resolve_arms([f"mri={tmp_path}/mri-{{seed}}"], splits=[(0, 0), (1, 0)])


@pytest.mark.parametrize("text", ["control=scaled:random", "scaled:pixels", "control=scaled:", "scaled:"])
def test_only_trained_weights_have_a_scale_worth_taking(text):
    with pytest.raises(UserError, match="--arm"):
        resolve_arms([text])


def test_pixels_need_no_network():
    (arm,) = resolve_arms(["pixels"])
    assert (arm.kind, arm.backbone, arm.cards) == ("pixels", "", {})
