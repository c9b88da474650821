"""Arms are called what their provenance says they are, whatever their names."""

import json

import pytest

from mri_transfer.finetune.arms.wording import described, kind_of, pretraining_of, subject
from mri_transfer.finetune.comparison.verdict import verdict


def card(method="simclr", init="random", store=None, seconds=1800, **data):
    provenance = {"start": {"init": init}, "method": method, "seconds": seconds}
    provenance |= {"data": {"slices": 7148, "subjects": 153, **data}, "config": {"store": store or "gone"}}
    return {"backbone": "efficientnet_lite0", "provenance": provenance}


def write_store(folder, sequences, **summary):
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps({"by_sequence": sequences, **summary}), encoding="utf-8")
    return str(folder)


def report_of(arm, kind, pretraining, lead=0.05):
    """A comparison with ImageNet that `arm` wins by `lead`."""
    interval = {"estimate": lead, "low": lead - 0.02, "high": lead + 0.02}
    pair = {"a": arm, "b": "imagenet", "mode": "probe", "fraction": 1.0, "difference": interval}
    pair |= {"p_a_better": 0.9995, "p_value": 0.001, "p_holm": 0.001, "smallest_detectable": 0.03}
    return {
        "results": [
            {"arm": name, "mode": "probe", "fraction": 1.0, "macro_f1": {"estimate": score}}
            for name, score in ((arm, 0.8 + lead), ("imagenet", 0.8))
        ],
        "pairs": [pair],
        "kinds": {arm: kind, "imagenet": "imagenet"},
        "pretraining": {arm: pretraining} if pretraining else {},
        "arm_names": [arm, "imagenet"],
    }


@pytest.mark.parametrize("name", ["no-mri-control", "ct-not-mri", "Smriti", "mri", "imagenet-like"])
def test_a_name_says_nothing(name, tmp_path):
    ct = pretraining_of({"run": card(store=write_store(tmp_path / "ct", {"CT": 7148}))})
    conclusion = verdict(report_of(name, "encoder", ct))
    assert conclusion["short"] == "This encoder is the better start"
    assert conclusion["sentence"].startswith(f"This encoder is the better start: {name} is 5.0 points")
    (description,) = conclusion["about"]
    assert description == (
        f"{name}: pretrained once (simclr, 30 min, on 7,148 CT slices of 153 subjects (CT), from random weights); "
        "another run of the same pretraining may come out differently."
    )
    assert "MRI" not in conclusion["sentence"] + description


@pytest.mark.parametrize("summary", [["T1"], {"by_sequence": ["T1"]}, {"by_sequence": {"T1": "all"}}])
@pytest.mark.parametrize("settings", [["made_from"], {"made_from": 3}])
def test_a_store_that_says_it_in_another_way_says_nothing(tmp_path, summary, settings):
    (tmp_path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    (tmp_path / "manifest.json").write_text(json.dumps({"settings": settings}), encoding="utf-8")
    for provenance in (card(store=str(tmp_path)), card(summary=summary)):
        facts = pretraining_of({"run": provenance})
        assert (facts["sequences"], facts["modality"]) == ([], "")


def test_a_scaled_control_is_no_pretraining():
    conclusion = verdict(report_of("mri-scaled", "scaled", {}))
    assert conclusion["short"] == "The scaled control is the better start"
    assert conclusion["about"] == [
        "mri-scaled: a control, random weights with the scale of trained ones; it has learned nothing."
    ]


def test_what_was_repeated_is_this_pretraining(tmp_path):
    store = write_store(tmp_path / "mri", {"T1w": 5000, "T2w": 2148})
    several = {f"run-{n}": card(init="imagenet", store=store) for n in range(3)}
    conclusion = verdict(report_of("b", "encoder", pretraining_of(several)))
    assert conclusion["short"] == "This pretraining is the better start"
    assert conclusion["about"] == [
        "b: pretrained 3 times (simclr, 30 min, on 7,148 MRI slices of 153 subjects (T1w, T2w), from ImageNet’s "
        "weights)."
    ]


def test_two_encoders_are_told_apart_by_name():
    report = report_of("a", "encoder", {"runs": 1})
    report["kinds"]["b"] = "encoder"
    report["arm_names"].append("b")
    assert subject(report, "a") == "This encoder (a)"
    assert subject(report, "imagenet") == "ImageNet"


@pytest.mark.parametrize(
    ("sequences", "summary", "modality"),
    [
        ({"T1w": 5, "FLAIR": 2}, {}, "MRI"),
        ({"CT": 5, "T2": 9}, {}, "MRI and CT"),
        ({"T1w": 5, "mystery": 1}, {}, ""),
        ({}, {}, ""),
        ({"T1w": 5}, {"banner": "generated heads, no evidence"}, "generated"),
    ],
)
def test_modality_is_what_the_store_says(tmp_path, sequences, summary, modality):
    store = write_store(tmp_path / "store", sequences, **summary)
    assert pretraining_of({"run": card(store=store)})["modality"] == modality


def test_a_store_that_is_gone_leaves_counts(tmp_path):
    pretraining = pretraining_of({"run": card()})
    report = report_of("mri", "encoder", pretraining)
    assert "on 7,148 slices of 153 subjects, from random weights" in described(report, "mri")


def test_an_encoder_without_provenance_is_not_made_up():
    pretraining = pretraining_of({"run": {"backbone": "x", "provenance": {}}})
    assert described(report_of("mri", "encoder", pretraining), "mri").endswith("doesn’t say how it was made.")


def test_every_step_of_a_chain_counts():
    first = card(init="imagenet", seconds=3600)
    second = {
        "provenance": {
            **card("byol")["provenance"],
            "start": {"init": "x", "provenance": first["provenance"]},
        }
    }
    pretraining = pretraining_of({"run": second})
    assert (pretraining["method"], pretraining["hours"], pretraining["from"]) == (
        "simclr, then byol",
        1.5,
        "imagenet",
    )


@pytest.mark.parametrize(
    ("arm", "kind", "said"),
    [
        ("imagenet", None, "ImageNet"),
        ("imagenet (b0)", "imagenet", "ImageNet (b0)"),
        ("imagenet-like", "imagenet", "ImageNet (imagenet-like)"),
        ("start", "imagenet", "ImageNet (start)"),
        ("random", None, "The random start"),
        ("scaled", None, "The scaled control"),
        ("pixels", None, "The pixel baseline"),
        ("figures", None, "The baseline of global figures"),
        ("mri", None, "This encoder"),
    ],
)
def test_every_kind_of_arm_has_its_words(arm, kind, said):
    report = json.loads(json.dumps({"kinds": {arm: kind} if kind else {}}))  # as it is read from disk
    assert subject(report, arm) == said
    if not said.startswith("ImageNet"):
        several = report | {
            "arm_names": [arm, "b"],
            "kinds": {arm: kind or kind_of({}, arm), "b": kind_of({}, arm)},
        }
        assert subject(several, arm) == f"{said} ({arm})"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("random", "weights drawn at random for each seed"),
        ("scaled", "a control"),
        ("pixels", "the image itself at 24 pixels a side"),
        ("figures", "global figures of the picture"),
    ],
)
def test_a_control_is_described_by_its_kind(kind, words):
    assert described(json.loads(json.dumps({"kinds": {"a": kind}})), "a").startswith(f"a: {words}")
    report = {"kinds": {"a": "imagenet"}, "pretraining": {"a": {"runs": 1}}}
    assert described(json.loads(json.dumps(report)), "a") == ""
    assert described({"kinds": {"a": "encoder"}}, "a") == ""


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"hours": 1.99}, "pretrained once (byol, 119 min)"),
        ({"hours": 2.0}, "pretrained once (byol, 2.0 h)"),
        ({"slices": 1234, "subjects": 0}, "pretrained once (byol, on 1,234 slices)"),
        (
            {"slices": 9, "subjects": 3, "modality": "MRI", "sequences": ["T1", "T2", "PD", "FLAIR", "T1c"]},
            "pretrained once (byol, on 9 MRI slices of 3 subjects (T1, T2, PD, FLAIR))",
        ),
        (
            {"slices": 9, "modality": "tumour images", "runs": 2},
            "pretrained 2 times (byol, on 9 tumour images, test images left out)",
        ),
        ({"method": "", "from": "imagenet"}, "pretrained once (from ImageNet’s weights)"),
    ],
)
def test_a_pretraining_in_words(about, words):
    text = described({"pretraining": {"a": {"method": "byol", "runs": 1, **about}}}, "a")
    caution = (
        "" if about.get("runs", 1) > 1 else "; another run of the same pretraining may come out differently"
    )
    assert text == f"a: {words}{caution}."


def test_all_that_a_card_says_of_a_pretraining(tmp_path):
    store = write_store(tmp_path / "store", {"T1w": 10, "FLAIR": 900, "T2w": 400})
    assert pretraining_of({"first": card("byol", store=store, seconds=5400), "second": card()}) == {
        "runs": 2, "method": "byol", "hours": 1.5, "from": "random", "slices": 7148, "subjects": 153,
        "modality": "MRI", "sequences": ["FLAIR", "T2w", "T1w"],
    }  # fmt: skip
    assert pretraining_of({}) == {}
    assert pretraining_of({"first": card(init="elsewhere.npz")})["from"] == "unknown"


def test_a_store_made_of_training_images_is_called_that(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    settings = {"made_from": "training images of one split"}
    (store / "manifest.json").write_text(json.dumps({"settings": settings}), encoding="utf-8")
    (store / "summary.json").write_text(json.dumps({"by_sequence": {"T1w": 9}}), encoding="utf-8")
    pretraining = pretraining_of({"first": card(store=str(store))})
    assert (pretraining["modality"], pretraining["sequences"]) == ("tumour images", [])
    (store / "summary.json").write_text("[1]", encoding="utf-8")  # no table
    (store / "manifest.json").unlink()
    assert pretraining_of({"first": card(store=str(store))})["modality"] == ""
