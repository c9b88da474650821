"""Headline figures leave the development groups out, and say so."""

from types import SimpleNamespace

import numpy as np
import pytest

from mri_transfer.datasets.tumors.development import development_images
from mri_transfer.errors import UserError
from mri_transfer.finetune.data.scored_images import scored_images


class Tumors(SimpleNamespace):
    def __len__(self):
        return len(self.labels)


def tumors(images=200, per_group=2, classes=4) -> Tumors:
    """Groups of neighbours, each of one class."""
    groups = np.arange(images) // per_group
    return Tumors(
        files=[SimpleNamespace(path=f"Training/c/{n:04d}.jpg") for n in range(images)],
        image_of=np.arange(images),
        groups=groups,
        known=SimpleNamespace(sources=[""] * images, persons=[""] * images),
        labels=groups % classes,
        classes=tuple("abcd"[:classes]),
    )


def test_the_two_parts_share_no_group_and_make_up_all():
    dataset = tumors()
    parts = {which: scored_images(dataset, which) for which in ("headline", "development", "all")}
    headline, development = parts["headline"].images, parts["development"].images
    assert np.array_equal(development, development_images(dataset))
    assert np.array_equal(headline, ~development)
    assert not set(dataset.groups[headline]) & set(dataset.groups[development])
    assert parts["all"].images.all()
    facts = parts["headline"].about
    assert facts["images"] + facts["left_out"]["images"] == 200
    assert facts["groups"] + facts["left_out"]["groups"] == 100
    assert parts["all"].about["left_out"] == {"images": 0, "groups": 0}


def test_the_words_give_the_counts():
    facts = scored_images(tumors(), "headline").about
    for count in (facts["images"], facts["groups"], *facts["left_out"].values()):
        assert str(count) in facts["words"]


def test_a_class_that_would_not_be_scored_is_one_line():
    dataset = tumors()
    development = development_images(dataset)
    dataset.labels = np.where(development, dataset.labels, np.minimum(dataset.labels, 2))
    with pytest.raises(
        UserError, match=r"class d has no group outside the development groups; use --scored all"
    ):
        scored_images(dataset, "headline")
    assert scored_images(dataset, "all").about["images"] == 200


def test_a_single_scored_group_is_refused():
    dataset = tumors(images=40, per_group=40, classes=1)
    with pytest.raises(UserError, match="one group"):
        scored_images(dataset, "all")
