"""The raw-pixel nearest neighbour: against scikit-learn's, and as an alarm where copies were planted."""

import json

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from mri_transfer.datasets.audit.nearest_pixels import leak_alarm, nearest_neighbour

CLASSES = ("a", "b", "c")


def pictures(count, seed=0, side=12):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side), dtype=np.uint8)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_predictions_are_those_of_an_independent_nearest_neighbour(chunk):
    images, labels = pictures(90), np.random.default_rng(1).integers(0, 3, 90)
    train, test = np.arange(0, 60), np.arange(60, 90)
    vectors = images.reshape(90, -1).astype(float)
    vectors -= vectors.mean(axis=1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = KNeighborsClassifier(1).fit(vectors[train], labels[train]).predict(vectors[test])
    assert nearest_neighbour(images, labels, train, test, chunk=chunk).tolist() == expected.tolist()


def test_brightness_and_contrast_do_not_matter():
    images, labels = pictures(40) // 4, np.arange(40) % 3
    changed = np.concatenate([images, images * 2 + 40])
    predicted = nearest_neighbour(changed, np.tile(labels, 2), np.arange(40), np.arange(40, 80))
    assert predicted.tolist() == labels.tolist()


def split_set(copies):
    """60 training and 30 test images of noise, of which `copies` are training images."""
    images, labels = pictures(90), np.arange(90) % 3
    images[60 : 60 + copies] = images[:copies]
    distinct = np.arange(90)
    distinct[60 : 60 + copies] = distinct[:copies]
    return images, labels, distinct, np.array(["Training"] * 60 + ["Testing"] * 30)


def test_copies_raise_the_alarm_and_are_told_from_the_rest():
    images, labels, distinct, splits = split_set(copies=21)
    findings = leak_alarm(images, labels, distinct, distinct, splits, CLASSES)
    published = findings["published"]
    assert published["copies"] == {"images": 21, "accuracy": 1.0}
    assert published["rest"]["images"] == 9
    assert published["all"]["accuracy"] == pytest.approx((21 + 9 * published["rest"]["accuracy"]) / 30)
    assert findings["alarm"]
    assert "on the 21 images that are copies" in findings["sentences"][0]
    json.dumps(findings, allow_nan=False)


def test_noise_without_copies_raises_none():
    images, labels, distinct, splits = split_set(copies=0)
    findings = leak_alarm(images, labels, distinct, distinct, splits, CLASSES)
    assert findings["published"]["copies"] == {"images": 0, "accuracy": None}
    assert not findings["alarm"]


def test_the_gap_between_folds_is_what_groups_leak():
    patients = pictures(30)
    noise = np.random.default_rng(1).integers(-20, 20, (120, 12, 12))
    groups = np.repeat(np.arange(30), 4)
    images = np.clip(patients[groups] + noise, 0, 255).astype(np.uint8)
    findings = leak_alarm(images, groups % 3, np.arange(120), groups, np.full(120, "all"), CLASSES)
    assert findings["published"] is None
    assert findings["ungrouped"]["accuracy"] > 0.95
    assert findings["grouped"]["accuracy"] < 0.6
    assert findings["alarm"]


def test_unreadable_files_and_classes_with_too_few_groups():
    images, labels, distinct, splits = split_set(copies=6)
    distinct[:50] = -1
    labels[labels == 2] = 1
    labels[89] = 2
    findings = leak_alarm(images, labels, distinct, np.arange(90), splits, CLASSES)
    assert findings["published"]["copies"]["images"] == 0
    assert findings["grouped"] is None
    assert findings["ungrouped"] is None
