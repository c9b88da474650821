"""A volume's answer: from slices that show a lesion, none where most slices are strange, and in words."""

import pytest

from mri_transfer.finetune.prediction.volume_answer import volume_answer

CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor")


def slices(*probabilities, strange=()):
    return [
        {
            **{"file": "v", "plane": "axial", "position_mm": 4.0 * number},
            "class": CLASSES[max(range(3), key=lambda k, shares=shares: shares[k])],
            "probabilities": dict(zip(CLASSES, shares, strict=True)),
            "out_of_distribution": number in strange,
        }
        for number, shares in enumerate(probabilities)
    ]


HEALTHY = (0.3, 0.1, 0.6)


def test_slices_without_a_lesion_are_no_votes_for_one():
    """Twenty of them lean to glioma, two of three that show a lesion say meningioma."""
    rows = slices(*[HEALTHY] * 20, (0.1, 0.8, 0.1), (0.2, 0.7, 0.1), (0.6, 0.3, 0.1))
    result = volume_answer("v", rows, CLASSES)
    assert result["class"] == "meningioma_tumor"
    assert result["probabilities"]["meningioma_tumor"] == pytest.approx(0.6)
    assert result["by_class"] == {"glioma_tumor": 1, "meningioma_tumor": 2, "no_tumor": 20}
    assert [entry["position_mm"] for entry in result["deciding"]] == [80.0, 84.0, 88.0]
    assert result["words"] == (
        "meningioma tumor: by the mean of 3 of 23 slices (axial +80.0 mm, axial +84.0 mm, axial +88.0 mm), on 2 of "
        "which it is the likeliest; the other 20 show no lesion and are no votes for one"
    )


def test_more_healthy_slices_change_nothing():
    lesions = [(0.1, 0.8, 0.1), (0.6, 0.3, 0.1)]
    few, many = (volume_answer("v", slices(*lesions, *[HEALTHY] * n), CLASSES) for n in (1, 50))
    assert few["probabilities"] == many["probabilities"]
    assert few["class"] == many["class"]


def test_no_lesion_anywhere():
    result = volume_answer("v", slices(*[HEALTHY] * 4), CLASSES)
    assert result["class"] == "no_tumor"
    assert result["words"] == "no tumor: on each of the 4 slices that count"


def test_a_healthy_mean_of_the_deciding_slices_is_still_a_lesion():
    """ "No tumour" is second in every deciding slice; it can't win by their mean."""
    rows = slices((0.5, 0.05, 0.45), (0.05, 0.5, 0.45))
    assert volume_answer("v", rows, CLASSES)["class"] != "no_tumor"


@pytest.mark.parametrize(("strange", "answer"), [(2, "glioma_tumor"), (3, None)])
def test_where_most_slices_are_unlike_the_training_images_there_is_no_class(strange, answer):
    rows = slices(*[(0.9, 0.05, 0.05)] * 4, strange=range(strange))
    result = volume_answer("v", rows, CLASSES)
    assert result["class"] == answer
    assert result["out_of_distribution"] == strange
    if answer is None:
        assert set(result["probabilities"].values()) == {None}
        assert result["deciding"] == []
        assert result["words"] == "no class: 3 of 4 slices are unlike the training images"


def test_without_a_class_for_no_lesion_every_slice_decides():
    rows = slices((0.6, 0.4, 0.0), (0.1, 0.9, 0.0))
    for row in rows:
        row["probabilities"] = {
            "a": row["probabilities"]["glioma_tumor"],
            "b": row["probabilities"]["meningioma_tumor"],
        }
        row["class"] = max(row["probabilities"], key=row["probabilities"].get)
    result = volume_answer("v", rows, ("a", "b"))
    assert result["class"] == "b"
    assert result["probabilities"]["b"] == pytest.approx(0.65)
    assert result["words"] == "b: mean of 2 of 2 slices"
