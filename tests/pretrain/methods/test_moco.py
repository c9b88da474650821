import keras
import numpy as np
import pytest
from keras import ops

from mri_transfer.pretrain.augmentations.views import Views
from mri_transfer.pretrain.methods import METHODS
from mri_transfer.pretrain.methods.moco import NOBODY, info_nce


def reference(query, key, subject, negatives, negative_subject, temperature):
    """Equation 1 of the paper, one query at a time, in float64."""
    query, key, negatives = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, key, negatives))
    losses = []
    for i in range(len(query)):
        positive = np.exp(query[i] @ key[i] / temperature)
        others = [
            np.exp(query[i] @ negative / temperature)
            for negative, owner in zip(negatives, negative_subject, strict=True)
            if owner not in (subject[i], NOBODY)
        ]
        losses.append(-np.log(positive / (positive + sum(others))))
    return np.mean(losses)


def draw(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(4, 5)), rng.normal(size=(4, 5)), rng.normal(size=(7, 5))


SUBJECT = np.array([0, 0, 1, 2])


def loss(query, key, negatives, negative_subject, temperature=0.2, subject=SUBJECT):
    query, key, negatives = (ops.convert_to_tensor(x.astype("float32")) for x in (query, key, negatives))
    return float(info_nce(query, key, subject, negatives, np.asarray(negative_subject), temperature))


@pytest.mark.parametrize("negative_subject", [[3, 4, 5, 6, 7, 8, 9], [0, 0, 1, -1, 2, 5, -1], [-1] * 7])
@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_equals_the_formula(negative_subject, temperature):
    query, key, negatives = draw()
    expected = reference(query, key, SUBJECT, negatives, negative_subject, temperature)
    assert loss(query, key, negatives, negative_subject, temperature) == pytest.approx(
        expected, rel=1e-5, abs=1e-7
    )


def test_does_not_depend_on_order_or_scale():
    query, key, negatives = draw()
    owners = np.array([0, 0, 1, -1, 2, 5, -1])
    value = loss(query, key, negatives, owners)
    assert loss(9 * query, 0.3 * key, 2 * negatives, owners) == pytest.approx(value, rel=1e-5)
    order = [5, 2, 0, 6, 1, 3, 4]
    assert loss(query, key, negatives[order], owners[order]) == pytest.approx(value, rel=1e-6)
    order = [2, 0, 3, 1]
    assert loss(query[order], key[order], negatives, owners, subject=SUBJECT[order]) == pytest.approx(
        value, rel=1e-6
    )


def test_keys_of_the_same_subject_and_empty_places_have_no_influence():
    query, key, negatives = draw()
    query, key = query[:2], key[:2]
    value = loss(query, key, negatives, [0, 3, 0, -1, 3, 3, 3], subject=SUBJECT[:2])
    moved = negatives.copy()
    moved[[0, 2, 3]] = draw(seed=1)[2][[0, 2, 3]]
    assert loss(query, key, moved, [0, 3, 0, -1, 3, 3, 3], subject=SUBJECT[:2]) == value
    assert loss(query, key, moved, [0, 3, 4, -1, 3, 3, 3], subject=SUBJECT[:2]) != value


def test_the_queue_holds_the_newest_keys_and_whose_they_are(tiny_encoder, batch):
    method = METHODS["moco"].build(tiny_encoder(), Views(64), queue=30)
    method.compile(keras.optimizers.SGD(0.1), jit_compile=False, run_eagerly=True)
    assert (np.asarray(method.queue_subject) == NOBODY).all()
    method(batch, training=False)
    assert (np.asarray(method.queue_subject) == NOBODY).all()  # looking changes nothing
    subjects, queues = [], []
    for step in range(3):
        subjects.append(np.tile(batch["subject"] + 10 * step, 2))
        method.train_on_batch({**batch, "subject": batch["subject"] + np.int32(10 * step)})
        queues.append(np.array(method.queue))
    np.testing.assert_array_equal(method.queue_subject, np.concatenate(subjects[::-1])[:30])
    np.testing.assert_array_equal(queues[2][12:], queues[1][:18])
    np.testing.assert_allclose(np.linalg.norm(queues[2], axis=1), 1, rtol=1e-5)
    assert not queues[0][12:].any()


def test_a_batch_is_compared_with_the_queue_as_it_was_before_it(tiny_encoder, batch):
    method = METHODS["moco"].build(tiny_encoder(), Views(64), queue=30)
    before = np.array(method.queue), np.array(method.queue_subject)
    outputs = method(batch, training=True)
    for now, then in zip((outputs["queue"], outputs["queue_subject"]), before, strict=True):
        np.testing.assert_array_equal(now, then)
    q, k = np.asarray(outputs["query"]), np.asarray(outputs["key"])
    loss = float(method.compute_loss(x=batch, y_pred=outputs))
    subject, n = batch["subject"], 6
    expected = (
        reference(q[:n], k[n:], subject, k[n:], subject, 0.2)
        + reference(q[n:], k[:n], subject, k[:n], subject, 0.2)
    ) / 2
    assert loss == pytest.approx(expected, rel=1e-5)
    next_loss = float(method.compute_loss(x=batch, y_pred=method(batch, training=True)))
    assert next_loss > loss  # now there are keys in the queue


def test_a_batch_larger_than_the_queue_fills_it(tiny_encoder, batch):
    method = METHODS["moco"].build(tiny_encoder(), Views(64), queue=5)
    method(batch, training=True)
    np.testing.assert_array_equal(method.queue_subject, batch["subject"][:5])
    assert method.queue.shape == (5, 128)
