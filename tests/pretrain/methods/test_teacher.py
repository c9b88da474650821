import numpy as np
import pytest

from mri_transfer.checkpoints.backbones import build_encoder
from mri_transfer.pretrain.methods.masked import last_map
from mri_transfer.pretrain.methods.teacher import copy_of, momentum_at


def test_momentum_rises_along_a_cosine_to_one():
    assert float(momentum_at(0, 0.9)) == pytest.approx(0.9)
    assert float(momentum_at(0.5, 0.9)) == pytest.approx(0.95)
    assert momentum_at(1, 0.9) == 1
    assert momentum_at(2, 0.9) == 1


def check_copy(model, x):
    """The copy gives the same features and shares no variable with the original."""
    copy = copy_of(model)
    features = np.asarray(model(x, training=False))
    np.testing.assert_allclose(copy(x, training=False), features, rtol=1e-4, atol=1e-4 * features.std())
    assert copy.trainable_variables == []
    assert not {id(v) for v in copy.variables} & {id(v) for v in model.variables}
    assert len(copy.variables) == len(model.variables)
    for variable in copy.variables:
        variable.assign(variable * 0)
    np.testing.assert_array_equal(model(x, training=False), features)


def test_a_copy_is_one(tiny_encoder):
    check_copy(tiny_encoder(), np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 1)).astype("float32"))


@pytest.mark.slow
# Input normalisation kept as weights, stochastic depth, models within the model, layer normalisation after pooling.
@pytest.mark.parametrize(
    "backbone", ["efficientnet_b0", "efficientnet_v2_b0", "convnext_tiny", "efficientnet_lite0"]
)
def test_backbones_of_every_build_are_copied_and_have_a_last_map(backbone):
    encoder = build_encoder(backbone, 64)
    for layer in encoder.layers:  # some begin with a scale near zero, which would hide what differs
        if type(layer).__name__ == "LayerScale":
            layer.set_weights([np.ones_like(w) for w in layer.get_weights()])
    check_copy(encoder, np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 1)).astype("float32"))
    assert last_map(encoder).shape == (None, 2, 2, encoder.output_shape[-1])
