import keras
import numpy as np
import pytest
from scipy.special import expit, log_softmax

from mri_transfer.pretrain.augmentations.views import Views
from mri_transfer.pretrain.methods import METHODS
from mri_transfer.pretrain.methods.hybrid import PREDICTED, free_label_loss


def draw(n=9, seed=0):
    rng = np.random.default_rng(seed)
    targets = np.c_[
        rng.integers(-1, 3, n), rng.uniform(size=n), rng.integers(0, 2, n), rng.uniform(size=(n, 5))
    ]
    return rng.normal(size=(n, PREDICTED)).astype("float32"), targets.astype("float32")


def loss_parts(predicted, targets):
    return [float(x) for x in free_label_loss(keras.ops.convert_to_tensor(predicted), targets)]


def test_equals_the_formulas():
    predicted, targets = draw()
    p, t = predicted.astype(float), targets.astype(float)
    known, present = t[:, 0] >= 0, t[:, 2] == 1
    plane = -log_softmax(p[:, :3], axis=1)[np.arange(9), t[:, 0].astype(int)][known].mean() / np.log(3)
    place = ((p[:, 3] + 0.5 - t[:, 1]) ** 2)[known].mean() * 12
    probability = expit(p[:, 4])
    lesion = -(present * np.log(probability) + ~present * np.log(1 - probability)).mean() / np.log(2)
    described = ((p[present, 5:] + 0.5 - t[present, 3:]) ** 2).mean() * 12
    assert loss_parts(predicted, targets) == pytest.approx([plane, place, lesion, described], rel=1e-5)


def test_knowing_nothing_costs_about_one_each_and_knowing_all_nothing():
    _, targets = draw(4000)
    assert loss_parts(np.zeros((4000, PREDICTED), "float32"), targets) == pytest.approx(
        [1, 1, 1, 1], rel=0.05
    )
    right = np.zeros((4000, PREDICTED), "float32")
    right[:, :3] = 40 * (targets[:, :1] == np.arange(3))
    right[:, 3], right[:, 4] = targets[:, 1] - 0.5, 80 * targets[:, 2] - 40
    right[:, 5:] = targets[:, 3:] - 0.5
    assert max(loss_parts(right, targets)) < 1e-6


def test_rows_without_a_label_count_for_nothing():
    predicted, targets = draw()
    targets[:, 0], targets[:, 2] = -1, 0
    plane, place, lesion, described = loss_parts(predicted, targets)
    assert (plane, place, described) == (0, 0, 0)
    assert lesion > 0


def hybrid(tiny_encoder, **options):
    return METHODS["hybrid"].build(tiny_encoder(), Views(64, strength=0.0), **options)


def test_targets_do_not_say_what_a_mirrored_view_can_not_show(tiny_encoder, batch):
    """Left and right of axial and coronal slices, and which half a sagittal slice is of."""
    targets = np.array(hybrid(tiny_encoder, lesions=1.0)(batch)["targets"])
    assert targets.shape == (12, 8)
    plane, position = np.tile(batch["plane"], 2), batch["position"].T.reshape(-1)
    np.testing.assert_array_equal(targets[:, 0], plane)
    expected = np.where(plane == 2, np.abs(2 * position - 1), position)
    np.testing.assert_allclose(targets[:, 1], expected, rtol=1e-6)
    # The generator's numbers are those of a second method of the same seed, of which all is sagittal.
    other = {**batch, "plane": np.full(6, 2, np.int32)}
    across = np.array(hybrid(tiny_encoder, lesions=1.0)(other)["targets"])[:, 3]
    np.testing.assert_allclose(targets[:, 3], np.where(plane == 2, across, np.abs(2 * across - 1)), atol=1e-6)


def test_without_labels_and_lesions_it_is_simclr(tiny_encoder, batch):
    plain = METHODS["simclr"].build(tiny_encoder(), Views(64, strength=0.0))
    same = hybrid(tiny_encoder, lesions=0.0, label_weight=0.0)
    loss = float(plain.compute_loss(x=batch, y_pred=plain(batch)))
    assert float(same.compute_loss(x=batch, y_pred=same(batch))) == pytest.approx(loss, rel=1e-5)
    assert same.chance(6) == plain.chance(6)


def test_it_learns_the_free_labels(tiny_encoder, batch):
    """Of six pairs, by heart; the planes of those that have one."""
    method = hybrid(tiny_encoder, lesions=0.0, label_weight=5.0)
    method.compile(optimizer=keras.optimizers.Adam(0.01), jit_compile=False)
    for _ in range(80):
        method.train_on_batch(batch)
    outputs = method(batch, training=True)
    plane, place, _, _ = loss_parts(np.array(outputs["predicted"]), np.array(outputs["targets"]))
    assert plane < 0.1
    assert place < 0.5
