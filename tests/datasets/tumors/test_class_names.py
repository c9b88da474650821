"""Class names of other sets."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_transfer.datasets.tumors.class_names import class_map, kind, match_classes
from mri_transfer.datasets.tumors.tumors import CLASSES
from mri_transfer.errors import UserError

SPELLINGS = {
    "glioma_tumor": (
        "glioma",
        "Glioma",
        "glioma tumour",
        "Glioma-Tumor",
        "GLIOMA",
        "brain_glioma",
        "gliomas",
    ),
    "meningioma_tumor": ("meningioma", "Meningioma Tumor", "meningioma-tumour", "brain_menin"),
    "no_tumor": (
        "notumor",
        "no",
        "No Tumor",
        "healthy",
        "normal",
        "no-tumour",
        "NORMAL",
        "nontumor",
        "no_tumors",
    ),
    "pituitary_tumor": ("pituitary", "Pituitary Tumour", "pituitary adenoma", "pituitary-tumor"),
}


@pytest.mark.parametrize(
    ("ours", "theirs"), [(ours, name) for ours, names in SPELLINGS.items() for name in names]
)
def test_usual_names_are_understood_both_ways(ours, theirs):
    assert match_classes([theirs], CLASSES, {}, "x") == {theirs: ours}
    others = [theirs if name == ours else name for name in CLASSES]
    assert match_classes([ours], others, {}, "x") == {ours: theirs}


@pytest.mark.parametrize(
    "name", ["yes", "tumor", "brain_tumor", "brain", "sarcoma", "Astrocitoma T1", "plots", "1", ""]
)
def test_others_are_not_guessed(name):
    assert kind(name) is None
    with pytest.raises(UserError, match="--class-map"):
        match_classes([name], CLASSES, {}, "--external x")


def test_what_is_said_counts():
    given_names = class_map(["yes = glioma", "Sarcoma=", "glioma=no_tumor", "elsewhere=glioma_tumor"])
    matches = match_classes(["Yes", "sarcoma", "glioma", "normal"], CLASSES, given_names, "x")
    assert matches == {"Yes": "glioma_tumor", "sarcoma": None, "glioma": "no_tumor", "normal": "no_tumor"}


@pytest.mark.parametrize(
    ("pairs", "words"),
    [(["a"], "write 'their name=our name'"), (["=b"], "write"), (["a=b", "a=c"], "means both b and c")],
)
def test_bad_maps_are_one_line(pairs, words):
    with pytest.raises(UserError, match=words):
        class_map(pairs)


def test_a_map_to_no_class_of_ours():
    with pytest.raises(UserError, match=r"'yes=tumour': tumour is not one of glioma_tumor"):
        match_classes(["yes"], CLASSES, {"yes": "tumour"}, "x")


@settings(max_examples=30)
@given(st.lists(st.text(min_size=1), min_size=2, max_size=4, unique=True))
def test_equal_names_are_always_themselves(names):
    assert match_classes(names, names, {}, "x") == {name: name for name in names}
