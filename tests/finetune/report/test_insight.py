"""What is shown beside scores: maps by the right model, neighbours counted by hand, what is kept and what damaged."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers

from mri_transfer.finetune.arms.arms import Arm
from mri_transfer.finetune.comparison.kept_maps import kept_shapes, load_kept, see_and_keep
from mri_transfer.finetune.comparison.results import Predictions
from mri_transfer.finetune.comparison.runner import Job
from mri_transfer.finetune.data.protocol import PUBLISHED, Split
from mri_transfer.finetune.heads.classifier import with_probe_head
from mri_transfer.finetune.heads.probe import fit_probe
from mri_transfer.finetune.report import insight
from mri_transfer.finetune.report.insight import agreement, flattened, gather

IMAGES, CLASSES = 90, ("a", "b", "c")


class Tumors(SimpleNamespace):
    def __len__(self):
        return IMAGES


@pytest.fixture(scope="module")
def tumors():
    """Images (90, 16, 16) in groups of three; each class is brighter in a corner of its own."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(IMAGES // 3), 3)
    labels = groups % 3
    images = rng.integers(0, 120, (IMAGES, 16, 16), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[8 * (label // 2) :, 8 * (label % 2) :][:6, :6] += np.uint8(rng.integers(0, 130))
    return Tumors(images=images, labels=labels, groups=groups, classes=CLASSES)


@pytest.fixture(scope="module")
def encoder():
    image = keras.Input((16, 16, 1))
    x = layers.Rescaling(1 / 255)(image)
    x = layers.Conv2D(
        6, 5, strides=2, padding="same", activation="relu", kernel_initializer=keras.initializers.he_normal(1)
    )(x)
    x = layers.Conv2D(
        8, 3, padding="same", activation="relu", kernel_initializer=keras.initializers.he_normal(2)
    )(x)
    return keras.Model(image, layers.GlobalAveragePooling2D()(x), name="encoder")


@pytest.fixture
def flat(monkeypatch):
    """A layout that costs nothing, where it is not what is tested."""
    monkeypatch.setattr(insight, "flattened", lambda features: features[:, :2])


@pytest.fixture(scope="module")
def maps(encoder, tumors):
    """What the encoder averages, (90, 8, 8, 8)."""
    return keras.Model(encoder.input, encoder.layers[-2].output).predict(tumors.images[..., None], verbose=0)


class Comparison:
    """As much of a runner as the report asks for: one arm, three folds of groups, probes with a known penalty."""

    def __init__(self, folder, tumors, encoder, seen, mode):
        self.folder, self.tumors, self.model, self.loaded = folder, tumors, encoder, 0
        self.arm = Arm("mri", "runs/mri", "tiny", {"runs/mri": {"provenance": {"seconds": 7200}}})
        self.maps, self.probes = seen, {}
        self.seen = seen.mean((1, 2))
        folds = tumors.groups % 5 // 2  # not in step with the classes
        self.jobs = [
            Job(
                self.arm,
                mode,
                Split(seed, fold, 1.0, np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)),
            )
            for seed in (0, 1)
            for fold in range(3)
        ]
        self.jobs.append(Job(self.arm, mode, Split(0, PUBLISHED, 1.0, np.arange(50), np.arange(40, 60))))

    def features(self, job):
        return self.seen

    def encoder(self, job):
        self.loaded += 1
        return self.model

    def key(self, job):
        return f"{job.mode}-{job.split.seed}-{job.split.fold}.npz"

    def insight_path(self, job):
        return self.folder / "insight" / self.key(job)

    def trial(self, job):
        details = {"strength": 0.1, "seconds": 360.0}
        if job.mode == "finetune":
            losses = [1.0, 0.5, 0.25][: 3 - job.split.fold]
            details |= {"losses": losses, "inner": [{"log_loss": loss + 0.1} for loss in losses]}
        return SimpleNamespace(details=details)

    def probe(self, job):
        train = job.split.train
        return fit_probe(
            self.seen[train],
            self.tumors.labels[train],
            self.tumors.groups[train],
            job.split.seed,
            strength=0.1,
        )

    def activation(self, job, row):
        """Class activation maps written out: the maps before the pooling, weighed by the probe."""
        probe = self.probes.get(self.key(job)) or self.probes.setdefault(self.key(job), self.probe(job))
        return np.maximum(np.einsum("hwk,kc->chw", self.maps[row], probe.kernel / probe.scale[:, None]), 0)

    def predictions(self, rows):
        rng = np.random.default_rng(5)
        odds = np.exp(rng.normal(size=(2, len(rows), 3)) + 1.2 * np.eye(3)[self.tumors.labels[rows]])
        shares = {("mri", self.jobs[0].mode, 1.0): (odds / odds.sum(-1, keepdims=True)).astype(np.float32)}
        return Predictions(
            ("mri",), CLASSES, self.tumors.labels[rows], self.tumors.groups[rows], (0, 1), shares
        )

    def gather(self, rows):
        verdict = {"mode": self.jobs[0].mode, "fraction": 1.0, "arm": "mri", "baseline": None}
        return gather(self, self.jobs, self.predictions(rows), rows, verdict)


def test_heat_is_that_of_the_probe_that_did_not_train_on_the_image(tmp_path, tumors, encoder, maps, flat):
    comparison, rows = (
        Comparison(tmp_path, tumors, encoder, maps, "probe"),
        np.arange(10, 80),
    )  # some are not scored
    content = comparison.gather(rows)
    assert len(content.activation) > 5
    for (arm, index), activation in content.activation.items():
        row = rows[index]
        (job,) = [job for job in comparison.jobs[:3] if row in job.split.test]
        assert arm == "mri"
        np.testing.assert_allclose(activation, comparison.activation(job, row), rtol=1e-3, atol=1e-4)
    second = comparison.gather(rows)
    assert comparison.loaded == 1  # kept, so the encoder is not loaded again
    assert all(
        np.array_equal(second.activation[key], activation) for key, activation in content.activation.items()
    )
    for path in (tmp_path / "insight").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    mended = comparison.gather(rows)
    assert comparison.loaded == 2
    assert all(
        np.array_equal(mended.activation[key], activation) for key, activation in content.activation.items()
    )


def test_what_fine_tuned_networks_saw_is_kept_while_they_exist(tmp_path, tumors, encoder, maps, flat):
    comparison, rows = Comparison(tmp_path, tumors, encoder, maps, "finetune"), np.arange(IMAGES)
    empty = comparison.gather(rows)
    assert not empty.activation
    assert [layout.tuned for layout in empty.layouts] == [False]
    for job in comparison.jobs[:3]:
        classifier = with_probe_head(encoder, comparison.probe(job), CLASSES)
        features = see_and_keep(comparison.insight_path(job), classifier, tumors.images[job.split.test])
        np.testing.assert_allclose(features, comparison.seen[job.split.test], rtol=1e-4, atol=1e-5)
    content = comparison.gather(rows)
    assert [layout.tuned for layout in content.layouts] == [False, True]
    for (_, index), activation in content.activation.items():
        (job,) = [job for job in comparison.jobs[:3] if index in job.split.test]
        expected = comparison.activation(job, index)
        np.testing.assert_allclose(activation, expected, rtol=1e-3, atol=1e-4)
    summary = content.summary()
    assert summary["learning"]["mri"]["training"][2] == [1.0, None, None]
    assert [entry["fine_tuned"] for entry in summary["neighbours"]] == [False, True]
    json.dumps(summary, allow_nan=False)
    curves = content.curves["mri"]
    assert curves.training.shape == curves.held_out.shape == (6, 3)
    assert np.isnan(curves.training[2]).tolist() == [False, True, True]
    comparison.insight_path(comparison.jobs[0]).write_bytes(b"PK")
    damaged = comparison.gather(rows)
    assert len(damaged.activation) < len(content.activation)
    assert [layout.tuned for layout in damaged.layouts] == [False]


def test_cost_counts_pretraining_and_every_trial(tmp_path, tumors, encoder, maps, flat):
    (cost,) = Comparison(tmp_path, tumors, encoder, maps, "probe").gather(np.arange(IMAGES)).cost
    assert cost["pretraining_hours"] == 2
    assert cost["hours"] == {"probe": pytest.approx(7 * 0.1)}


def test_the_layout_shows_one_folds_scored_test_images(tmp_path, tumors, encoder, maps, flat):
    comparison, rows = Comparison(tmp_path, tumors, encoder, maps, "probe"), np.arange(10, 80)
    (layout,) = comparison.gather(rows).layouts
    places = np.intersect1d(rows, comparison.jobs[0].split.test)
    assert layout.points.shape == (len(places), 2)
    assert np.array_equal(layout.labels, tumors.labels[places])
    assert np.isfinite(layout.points).all()


def test_agreement_by_hand():
    rng = np.random.default_rng(0)
    features, labels, groups = rng.normal(size=(30, 5)), rng.integers(3, size=30), np.repeat(np.arange(10), 3)
    standard = (features - features.mean(0)) / features.std(0)
    right = 0
    for i in range(30):
        others = [j for j in range(30) if groups[j] != groups[i]]
        cosine = [
            standard[i] @ standard[j] / np.linalg.norm(standard[i]) / np.linalg.norm(standard[j])
            for j in others
        ]
        right += labels[others[int(np.argmax(cosine))]] == labels[i]
    assert agreement(features, labels, groups) == pytest.approx(right / 30)


def test_what_is_apart_stays_apart_in_the_plane():
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(3), 15)
    points = flattened(
        (8 * np.eye(3)[labels] @ rng.normal(size=(3, 20)) + rng.normal(size=(45, 20))).astype(np.float32)
    )
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (labels[distance.argmin(1)] == labels).all()


def test_an_encoder_that_pools_otherwise_is_scored_all_the_same(tmp_path, tumors):
    image = keras.Input((16, 16, 1))
    other = keras.Model(image, layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3)(image)))
    features = other.predict(tumors.images[..., None], verbose=0)
    probe = fit_probe(features, tumors.labels, tumors.groups, 0, strength=0.1)
    result = see_and_keep(
        tmp_path / "insight" / "x.npz", with_probe_head(other, probe, CLASSES), tumors.images
    )
    np.testing.assert_allclose(result, features, rtol=1e-4)
    assert not (tmp_path / "insight").exists()
    assert load_kept(tmp_path / "insight" / "x.npz", kept_shapes(1)) is None
