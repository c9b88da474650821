"""Where a classifier looks: the gradients taken by TensorFlow, and maps whose answer is known."""

import keras
import numpy as np
import pytest
from keras import layers
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from mri_transfer.checkpoints.initialisation import Initialisation
from mri_transfer.errors import UserError
from mri_transfer.finetune.heads.classifier import build_classifier
from mri_transfer.finetune.prediction.activation_pictures import beside, likeness, overlay, where_strongest
from mri_transfer.finetune.prediction.class_activation import Explainer

CLASSES = ("a", "b", "c")


def tiny(tail=lambda x: x, pool=layers.GlobalAveragePooling2D, seed=0):
    """A classifier of two convolutions; a pooling in the middle, as squeeze-excite has one, must not be mistaken."""
    rng = np.random.default_rng(seed)
    image = keras.Input((12, 12, 1))
    x = layers.Conv2D(
        5, 3, strides=2, activation="relu", kernel_initializer=keras.initializers.he_normal(seed)
    )(layers.Rescaling(1 / 255)(image))
    gate = layers.Reshape((1, 1, 5))(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([x, gate])
    x = layers.Conv2D(7, 3, padding="same", kernel_initializer=keras.initializers.he_normal(seed + 1))(x)
    x = layers.Activation("linear")(tail(pool()(x)))
    encoder = keras.Model(image, x, name="encoder")
    head = {"mean": rng.normal(size=7), "scale": rng.uniform(0.5, 2, 7)}
    head |= {"kernel": rng.normal(size=(7, 3)), "bias": rng.normal(size=3)}
    return build_classifier(
        encoder, CLASSES, **{name: array.astype(np.float32) for name, array in head.items()}
    )


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(256, size=(4, 12, 12), dtype=np.uint8)


def normalised(seed=3):
    return layers.LayerNormalization(
        epsilon=1e-3, gamma_initializer=keras.initializers.RandomNormal(1.0, 0.5, seed)
    )


@pytest.mark.parametrize("shown", [0, 2])
@pytest.mark.parametrize("tail", [lambda x: x, normalised()], ids=["linear", "layer normalisation"])
def test_it_is_grad_cam_to_a_factor(images, tail, shown):
    """Selvaraju et al.'s equations 1 and 2 with gradients by TensorFlow, times the number of places."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("takes its gradients with TensorFlow")
    import tensorflow as tf

    classifier = tiny(tail)
    answer = Explainer(classifier)(images)
    assert (answer.activation > 0).any()

    encoder = classifier.encoder
    pool = [layer for layer in encoder.layers if isinstance(layer, layers.GlobalAveragePooling2D)][-1]
    lower = keras.Model(encoder.input, pool.input)
    behind = encoder.layers[encoder.layers.index(pool) + 1 :]
    maps = tf.constant(lower(images[..., None].astype(np.float32)))
    with tf.GradientTape() as tape:
        tape.watch(maps)
        x = tf.reduce_mean(maps, axis=(1, 2))
        for layer in behind:
            x = layer(x)
        logits = classifier.head(classifier.standardise(x))
        logit = tf.reduce_sum(logits[:, shown])
    alpha = tf.reduce_mean(tape.gradient(logit, maps), axis=(1, 2))
    expected = tf.nn.relu(tf.einsum("nhwk,nk->nhw", maps, alpha)).numpy()
    places = maps.shape[1] * maps.shape[2]
    np.testing.assert_allclose(answer.activation[:, shown], places * expected, rtol=1e-3, atol=1e-4)


def test_it_says_the_same_as_the_classifier(images):
    classifier = tiny()
    answer = Explainer(classifier)(images)
    np.testing.assert_allclose(answer.probabilities, classifier.probabilities(images, None), atol=1e-5)
    features = classifier.encoder.predict(images[..., None], verbose=0)
    np.testing.assert_allclose(answer.features, features, rtol=1e-4, atol=1e-4)


def test_the_part_that_speaks_for_a_class_is_the_warm_one():
    """One filter that sees brightness and a head that takes it for the first class: its map is where it is bright."""
    image = keras.Input((32, 32, 1))
    maps = layers.AveragePooling2D(4)(image)
    encoder = keras.Model(image, layers.GlobalAveragePooling2D()(maps))
    ones = np.ones(1, np.float32)
    classifier = build_classifier(
        encoder,
        ("bright", "dark"),
        mean=0 * ones,
        scale=ones,
        kernel=np.array([[1.0, -1.0]]),
        bias=np.zeros(2),
    )
    picture = np.zeros((1, 32, 32), np.uint8)
    picture[0, 4:12, 16:28] = 250
    explain = Explainer(classifier)
    activation, against = explain(picture).activation[0]
    assert activation.shape == (8, 8)
    assert (activation[1:3, 4:7] == 250).all()
    assert activation.sum() == 6 * 250
    assert not against.any()  # nothing speaks for "dark"
    assert where_strongest(activation) == "upper right"
    assert where_strongest(against) == "nowhere"
    assert where_strongest(np.ones((5, 5))) == "centre"
    assert where_strongest(np.eye(5)[::-1][:, :1] * np.eye(5)[:1]) == "lower left"

    pixels = overlay(picture[0], activation).astype(int)
    warm = pixels[..., 0] - pixels[..., 2]  # yellow lacks blue
    assert warm[6:10, 18:26].min() > 60
    assert (pixels[20:] == 0).all()  # black stays black where nothing is warm
    assert beside(picture[0], activation, 64).shape == (64, 128, 3)
    assert np.array_equal(overlay(picture[0], np.zeros((8, 8)))[..., 1], picture[0])


def test_another_ending_is_refused(images):
    with pytest.raises(UserError, match="global average pooling"):
        Explainer(tiny(pool=layers.GlobalMaxPooling2D))
    with pytest.raises(UserError, match="global average pooling"):
        Explainer(tiny(lambda x: layers.Dense(7)(x)))


def similarity(first, second):
    """Mean rank correlation of the maps that have activation with the others, 0 where these have none."""
    correlations = [
        spearmanr(a, b).statistic if np.ptp(b) else 0.0
        for a, b in zip(first.reshape(-1, 25), second.reshape(-1, 25), strict=True)
        if np.ptp(a)
    ]
    return float(np.mean(correlations))


@pytest.mark.slow
def test_maps_of_a_randomised_network_are_others():
    """Adebayo et al. 2018 (arXiv:1810.03292): a map that survives random weights explains nothing."""
    rng = np.random.default_rng(0)
    pictures = gaussian_filter(rng.standard_normal((12, 160, 160)), (0, 6, 6))
    pictures = np.clip(127 + 50 * pictures / pictures.std(), 0, 255).astype(np.uint8)
    trained, random = (Initialisation.read(init, seed=0).load(160)[0] for init in ("imagenet", "random"))
    features = trained.predict(pictures[..., None], verbose=0)
    mean, scale = features.mean(0), features.std(0) + 1e-6
    kernels = rng.normal(size=(2, features.shape[1], 3)).astype(np.float32)

    def maps(encoder, kernel):
        bias = np.zeros(3, np.float32)
        classifier = build_classifier(encoder, CLASSES, mean=mean, scale=scale, kernel=kernel, bias=bias)
        return Explainer(classifier)(pictures).activation

    original = maps(trained, kernels[0])
    assert original.shape == (12, 3, 5, 5)
    assert similarity(original, maps(trained, kernels[0])) == pytest.approx(1)
    assert abs(similarity(original, maps(trained, kernels[1]))) < 0.5
    assert abs(similarity(original, maps(random, kernels[0]))) < 0.5


def test_likeness_is_the_mean_correlation_of_maps_with_the_same_answer():
    first, second, third = np.random.default_rng(0).random((3, 5, 5))
    maps = [
        ("a", 0, first),
        ("a", 0, second),
        ("a", 0, third),
        ("a", 1, first),
        ("b", 0, first),
        ("a", 0, 0 * first),
    ]
    pairs = ((first, second), (first, third), (second, third))
    assert likeness(maps) == pytest.approx(
        np.mean([np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in pairs])
    )
    assert likeness([("a", 0, first), ("a", 0, 3 * first)]) == pytest.approx(1)
    assert likeness([("a", 0, first), ("b", 0, first)]) is None
