import keras
import numpy as np
import pytest

from mri_transfer.checkpoints.backbones import build_encoder
from mri_transfer.pretrain.fit.recompute import activation_bytes, early_cuts, recomputing


def test_cuts_are_where_one_tensor_carries_everything():
    encoder = build_encoder("efficientnet_lite0", 64, seed=0)
    cuts = early_cuts(encoder)
    assert len(cuts) >= 3
    x = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 1)).astype("float32")
    whole = encoder(x, training=False)
    entry = encoder.input
    for layer in cuts:
        x = keras.Model(entry, layer.output)(x, training=False)
        entry = layer.output
    parts = keras.Model(entry, encoder.output)(x, training=False)
    np.testing.assert_array_equal(np.asarray(whole), np.asarray(parts))


def test_memory_is_estimated_from_the_layers():
    small, large = (build_encoder("efficientnet_lite0", size, seed=0) for size in (64, 128))
    assert activation_bytes(large) == pytest.approx(4 * activation_bytes(small), rel=0.1)


@pytest.mark.slow
def test_gradients_and_statistics_are_those_of_the_plain_encoder():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the tape is TensorFlow's")
    import tensorflow as tf

    x = np.random.default_rng(0).uniform(0, 255, (4, 64, 64, 1)).astype("float32")
    results = []
    for recompute in (False, True):
        encoder = build_encoder("efficientnet_lite0", 64, seed=1)
        encode = recomputing(encoder) if recompute else (lambda x, encoder=encoder: encoder(x, training=True))

        @tf.function(jit_compile=False)
        def step(encode=encode, encoder=encoder):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(encode(x) ** 2)
            return loss, tape.gradient(loss, [v.value for v in encoder.trainable_variables])

        loss, gradients = step()
        results.append((loss, gradients, [v.numpy() for v in encoder.non_trainable_variables]))
    (loss, gradients, state), (loss2, gradients2, state2) = results
    np.testing.assert_allclose(loss, loss2, rtol=1e-5)
    assert all(gradient is not None for gradient in gradients2)
    for a, b in zip(gradients, gradients2, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4 * np.abs(a).max() + 1e-7)
    for a, b in zip(state, state2, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
