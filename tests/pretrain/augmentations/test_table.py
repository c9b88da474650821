import pytest

from mri_transfer.pretrain.augmentations.table import (
    AUGMENTATIONS,
    NAMES,
    amounts,
    described,
    strengths_of,
    view_strength,
)


def test_every_augmentation_says_what_it_stands_for():
    assert len(set(NAMES)) == len(NAMES)
    for augmentation in AUGMENTATIONS:
        assert augmentation.amount > 0
        assert 0 < augmentation.share <= 1
        assert augmentation.name in described()
        assert augmentation.stands_for in described()


def test_strengths_multiply():
    strengths = amounts(0.5, {"jpeg": 0, "rotation": 2})
    table = {augmentation.name: augmentation.amount for augmentation in AUGMENTATIONS}
    assert strengths["jpeg"] == 0
    assert strengths["rotation"] == pytest.approx(table["rotation"])
    assert strengths["noise"] == pytest.approx(0.5 * table["noise"])
    assert tuple(strengths) == NAMES


def test_settings_are_read_and_the_last_one_counts():
    assert view_strength(" JPEG=0.50") == "jpeg=0.5"
    assert strengths_of(("jpeg=0", "noise=2", "jpeg=1")) == {"jpeg": 1.0, "noise": 2.0}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("jpeg", "NAME=X"),
        ("jpg=1", "rotation"),
        ("jpeg=-1", "at least 0"),
        ("jpeg=nan", "at least 0"),
        ("jpeg=", "at least 0"),
    ],
)
def test_wrong_settings_are_told_with_a_remedy(text, says):
    with pytest.raises(ValueError, match=says):
        view_strength(text)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="fog"):
        amounts(1.0, {"fog": 1.0})
