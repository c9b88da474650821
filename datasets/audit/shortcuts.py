"""Shortcuts: can a classifier predict the class from the file alone, without looking at anatomy?

A feature unrelated to the disease, such as the picture's size, is a shortcut if it predicts the class: a network may
learn it, and its score then says nothing about other hospitals' images. Each feature is tested alone with a shallow
decision tree, and all together with a random forest, both with classes weighted equally, in stratified folds that keep
groups whole. The score is balanced accuracy (the mean of the classes' recalls), which is 1/classes for any rule that
ignores the class; macro-F1 is given too. Intervals come from resampling whole groups.

Measured on the public four-class set, where guessing scores 0.25: all together 0.79 (0.75 to 0.84), bytes per pixel
0.57, file size 0.53, sharpness 0.52; the rule "512 pixels high" learnt in training finds every glioma there and 18% of
those in the test split. On generated uninformative features of 60 groups, 2 of 20 sets raised a false alarm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mri_transfer.datasets.audit.scores import recalls, scores
from mri_transfer.datasets.tumors.folds import grouped_folds
from mri_transfer.datasets.tumors.layout import published
from mri_transfer.errors import UserError
from mri_transfer.evaluation.metrics import balanced_accuracy, confusion

if TYPE_CHECKING:
    from mri_transfer.datasets.audit.measure import Measurements

CONFIDENCE = 0.95  # of all intervals jointly: each feature's is Bonferroni-corrected
MARGIN = 0.05
"""Least margin above chance for a shortcut worth a warning."""
DROP = 0.3  # gap in recall between splits, or in a size's share between classes, worth a sentence
LEAVES = 12  # of the decision tree
LEAST_LEAF = 10  # images

FEATURES = {
    "width": "image width",
    "height": "image height",
    "pixels": "number of pixels",
    "aspect": "aspect ratio",
    "bytes": "file size",
    "bytes_per_pixel": "bytes per pixel",
    "number": "file number",
    "quality": "JPEG quality",
    "depth": "bit depth",
    "colour": "share of coloured pixels",
    "border": "share of black margin",
    "offset_x": "left-right position in the frame",
    "offset_y": "up-down position in the frame",
    "mean": "mean intensity",
    "contrast": "contrast",
    "entropy": "entropy of intensity",
    "sharpness": "sharpness",
}
"""The features tested, with their display names."""

CONTENT = ("border", "offset_x", "offset_y", "mean", "contrast", "entropy", "sharpness")
"""Features of the picture, which plane and anatomy also affect; the others concern only the file."""

ALL = "all"


def features_of(measurements: Measurements) -> dict[str, np.ndarray]:
    """The features of :data:`FEATURES`, float (files,) each."""
    derived = {
        "pixels": measurements.width * measurements.height,
        "aspect": measurements.width / measurements.height,
        "bytes_per_pixel": measurements.bytes / (measurements.width * measurements.height),
    }
    return {name: derived[name] if name in derived else getattr(measurements, name) for name in FEATURES}


def _tree(seed: int) -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(
        max_leaf_nodes=LEAVES, min_samples_leaf=LEAST_LEAF, class_weight="balanced", random_state=seed
    )


def _forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(50, min_samples_leaf=3, class_weight="balanced", random_state=seed)


def _out_of_fold(model: Any, values: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    predicted = np.empty_like(labels)
    for number in np.unique(fold):
        held_out = fold == number
        predicted[held_out] = model.fit(values[~held_out], labels[~held_out]).predict(values[held_out])
    return predicted


def find_shortcuts(
    measurements: Measurements,
    labels: np.ndarray,
    groups: np.ndarray,
    splits: np.ndarray,
    classes: Sequence[str],
    *,
    folds: int = 5,
    seed: int = 0,
) -> dict:
    """How well each feature, and all of them together, predict the class.

    Args:
        measurements: the files'; unreadable ones are left out.
        labels: int (files,).
        groups: int (files,), the group of related images; negative: left out.
        splits: str (files,), such as "Training"; see :func:`mri_transfer.datasets.tumors.layout.published`.
        classes: names.
        folds: their number; fewer if a class has fewer groups.
        seed: of folds, trees and bootstrap.

    Returns:
        JSON-able: "images", "chance" (balanced accuracy of a guess), "folds", "constant" (features that are the same
        everywhere), "features" (best first, one entry each
        and one for "all": "feature", "name", "of" ("file" or "picture"), "shortcut" (bool), the scores
        "balanced_accuracy" and "macro_f1" with "estimate", "low", "high", "recall" by class, and "transfer": how the
        rule learnt on the training split does out of fold there and on the test split), "sizes" (the most common size
        and its share by split and class), and "sentences". Where a class has too few groups to cross-validate,
        "features" is empty and a sentence says so.
    """
    usable = measurements.readable & (np.asarray(groups) >= 0)
    labels, groups, splits = (
        np.asarray(labels)[usable],
        np.asarray(groups)[usable],
        np.asarray(splits)[usable],
    )
    columns = {name: values[usable] for name, values in features_of(measurements).items()}
    findings: dict[str, Any] = {
        "images": len(labels),
        "chance": 1 / len(classes),
        "folds": folds,
        "features": [],
        "constant": [],
        "sizes": common_sizes(
            measurements.width[usable], measurements.height[usable], labels, splits, classes
        ),
        "sentences": [],
    }
    fewest = min((len(np.unique(groups[labels == label])) for label in range(len(classes))), default=0)
    findings["folds"] = folds = min(folds, fewest)
    try:
        fold = grouped_folds(labels, groups, folds, seed, classes)
    except UserError:
        findings["sentences"] = [
            "Whether the files give the class away could not be tested: a class has too few groups of images."
        ]
        return findings

    varying = [name for name, values in columns.items() if np.ptp(values) > 0] if len(labels) else []
    findings["constant"] = [name for name in FEATURES if name not in varying]
    confidence = 1 - (1 - CONFIDENCE) / (len(varying) + 1)
    train, test = published(splits)
    home = _home_folds(labels, groups, train, folds, seed) if test.any() else None
    if not varying:
        findings["sentences"] = _sentences(findings, classes)
        return findings
    table = np.stack([columns[name] for name in varying], axis=1)
    models = [(name, columns[name][:, None], _tree(seed)) for name in varying]
    models.append((ALL, table, _forest(seed)))
    predictions = np.stack([_out_of_fold(model, values, labels, fold) for _, values, model in models])
    scored = scores(labels, predictions, groups, len(classes), confidence, seed)
    for (name, values, model), score in zip(models, scored, strict=True):
        findings["features"].append(
            {
                "feature": name,
                "name": FEATURES.get(name, "all of these together"),
                "of": "picture" if name in CONTENT else "file",
                **score,
                "shortcut": score["balanced_accuracy"]["low"] > findings["chance"] + MARGIN,
                "transfer": None
                if home is None
                else _transfer(model, values, labels, groups, train, test, home, len(classes)),
            }
        )
    findings["features"].sort(key=lambda entry: -entry["balanced_accuracy"]["estimate"])
    findings["sentences"] = _sentences(findings, classes)
    return findings


def _home_folds(
    labels: np.ndarray, groups: np.ndarray, train: np.ndarray, folds: int, seed: int
) -> np.ndarray | None:
    """Folds within the training split; None without splits, or with too few groups of training images."""
    if not train.any():
        return None
    try:
        return grouped_folds(labels[train], groups[train], folds, seed)
    except UserError:
        return None


def _transfer(
    model: Any,
    values: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    home: np.ndarray,
    classes: int,
) -> dict:
    """The rule learnt on the training split: out of fold there, on the test split, and on its new images."""
    at_home = _out_of_fold(model, values[train], labels[train], home)
    away = model.fit(values[train], labels[train]).predict(values[test])
    new = ~np.isin(groups[test], groups[train])
    parts = {
        "training": (labels[train], at_home),
        "test": (labels[test], away),
        "test_new": (labels[test][new], away[new]),
    }
    result = {}
    for side, (true, predicted) in parts.items():
        counts = confusion(true, predicted, classes)
        result[side] = {
            "images": len(true),
            "balanced_accuracy": float(balanced_accuracy(counts)) if len(true) else None,
            "recall": recalls(counts),
        }
    return result


def common_sizes(
    width: np.ndarray, height: np.ndarray, labels: np.ndarray, splits: np.ndarray, classes: Sequence[str]
) -> dict:
    """The most common image size, and how many images have it, by split and class.

    Returns:
        {"size": [width, height] or None, "table": [{"split", "class", "images", "share"}]}.
    """
    sizes = Counter(zip(width.astype(int).tolist(), height.astype(int).tolist(), strict=True))
    if not sizes:
        return {"size": None, "table": []}
    size = max(sizes, key=lambda pair: (sizes[pair], pair))
    of_size = (width == size[0]) & (height == size[1])
    table = []
    for split in dict.fromkeys(splits.tolist()):
        for label, name in enumerate(classes):
            cell = (splits == split) & (labels == label)
            if cell.any():
                table.append(
                    {
                        "split": split,
                        "class": name,
                        "images": int(cell.sum()),
                        "share": float(of_size[cell].mean()),
                    }
                )
    return {"size": list(size), "table": table}


def _score_in_words(entry: dict, chance: float) -> str:
    score = entry["balanced_accuracy"]
    return (
        f"balanced accuracy {score['estimate']:.2f} ({score['low']:.2f} to {score['high']:.2f}), "
        f"where guessing scores {chance:.2f}"
    )


def _sentences(findings: dict, classes: Sequence[str]) -> list[str]:
    """The findings in plain words: all features, the best of the file and of the picture, transfer, size."""
    chance = findings["chance"]
    shortcuts = [entry for entry in findings["features"] if entry["shortcut"]]
    if not shortcuts:
        return [
            "No feature of the files predicts the class better than a guess would, by a margin that matters."
        ]
    sentences = []
    single = [entry for entry in shortcuts if entry["feature"] != ALL]
    if len(single) < len(shortcuts):
        entry = next(entry for entry in shortcuts if entry["feature"] == ALL)
        sentences.append(
            "Size, file and brightness together predict the class without any anatomy: "
            f"{_score_in_words(entry, chance)}."
        )
    for kind, caution in (("file", ""), ("picture", ", though plane and anatomy move it too")):
        of_kind = [entry for entry in single if entry["of"] == kind]
        if of_kind:
            rest = ", ".join(
                f"{entry['name']} {entry['balanced_accuracy']['estimate']:.2f}" for entry in of_kind[1:]
            )
            sentences.append(
                f"{_capital(of_kind[0]['name'])} alone predicts it{caution}: {_score_in_words(of_kind[0], chance)}"
                + (f"; so do {rest}." if rest else ".")
            )
    drops = []
    for entry in single:
        for label, name in enumerate(classes):
            if entry["transfer"]:
                home, away = (entry["transfer"][side]["recall"][label] for side in ("training", "test"))
                if home is not None and away is not None:
                    drops.append((home - away, entry["name"], name, home, away))
    if drops and max(drops)[0] > DROP:
        _, feature, name, home, away = max(drops)
        sentences.append(
            f"It does not carry over: by {feature} a rule learnt in training finds {home:.0%} of {name} there "
            f"and {away:.0%} in the test split."
        )
    size, table = findings["sizes"]["size"], findings["sizes"]["table"]
    shares = [row["share"] for row in table]
    if max(shares) - min(shares) > DROP:
        places = ", ".join(f"{row['share']:.0%} of {row['split']} {row['class']}" for row in table)
        sentences.append(f"{size[0]}x{size[1]} is the size of {places}.")
    return sentences


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
