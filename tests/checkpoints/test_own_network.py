"""Networks of one's own: fitted to grey images, told apart by what they are, refused in one line."""

import keras
import numpy as np
import pytest

from mri_transfer.checkpoints.initialisation import Initialisation, card_of
from mri_transfer.checkpoints.own_network import fitted, load_network
from mri_transfer.errors import UserError

SIZE = 24


def network(size=SIZE, channels=1, end="pool", filters=4, seed=0):
    keras.utils.set_random_seed(seed)
    image = keras.Input((size, size, channels))
    maps = x = keras.layers.Conv2D(filters, 3, strides=2, activation="relu")(image)
    if end == "maps":
        return keras.Model(image, maps)
    if end == "tokens":
        return keras.Model(image, keras.layers.Reshape((-1, filters))(maps))
    x = keras.layers.GlobalAveragePooling2D()(x)
    if end == "softmax":
        x = keras.layers.Dense(3, activation="softmax")(keras.layers.Dropout(0.5)(x))
    if end == "logits and softmax":
        x = keras.layers.Softmax()(keras.layers.Dense(3)(x))
    return keras.Model(image, x)


def grey(size=SIZE):
    return np.random.default_rng(0).integers(0, 256, (2, size, size, 1)).astype("float32")


@pytest.mark.parametrize("end", ["pool", "maps", "tokens", "softmax", "logits and softmax"])
def test_features_are_the_averaged_maps_however_it_ends(end):
    """Also of a classifier, whose last layer knows only the classes that it was trained on."""
    reference = np.asarray(network(end="maps")(grey())).mean(axis=(1, 2))
    encoder = fitted(network(end=end), SIZE, "x")
    assert encoder.output_shape == (None, 4)
    np.testing.assert_allclose(encoder(grey()), reference, rtol=1e-5)


def test_maps_can_be_shown_where_it_averages_them():
    from mri_transfer.finetune.prediction.class_activation import MapReader

    answer = MapReader(fitted(network(end="softmax"), SIZE, "x"))(grey()[..., 0].astype(np.uint8))
    assert answer.maps.shape == (2, 11, 11, 4)


def test_three_channels_get_the_grey_value_and_another_size_is_resized():
    colour = network(channels=3)
    images = grey()
    np.testing.assert_allclose(
        fitted(colour, SIZE, "x")(images), colour(np.repeat(images, 3, axis=-1)), rtol=1e-5
    )
    larger = fitted(network(size=32, channels=3), SIZE, "x")
    assert larger.input_shape == (None, SIZE, SIZE, 1)
    assert larger(images).shape == (2, 4)
    assert fitted(network(size=None), SIZE, "x")(images).shape == (2, 4)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: network(channels=4), "takes 4 channels"),
        (lambda: keras.Sequential([keras.Input((3, 24, 24)), keras.layers.Flatten()]), "channels first"),
        (lambda: keras.Sequential([keras.Input((7,)), keras.layers.Dense(2)]), "not one image"),
        (lambda: keras.Sequential([keras.layers.Dense(2)]), "not known yet"),
        (lambda: keras.Model([a := keras.Input((8, 8, 1)), b := keras.Input((8, 8, 1))], a + b), "not one image"),
        (lambda: keras.Model(a := keras.Input((8, 8, 1)), [a, a * 2]), "gives 2 outputs"),
        (lambda: keras.Model(a := keras.Input((8, 8, 1)), keras.ops.sum(a, axis=(1, 2, 3))), "gives (None,)"),
    ],
)  # fmt: skip
def test_what_takes_no_image_or_gives_no_features_is_one_line(made, words):
    with pytest.raises(UserError) as error:
        fitted(made(), SIZE, "net.keras")
    assert str(error.value).startswith("net.keras: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_code_of_its_own_is_never_run(tmp_path):
    with_code = keras.Sequential([keras.Input((24, 24, 1)), keras.layers.Lambda(lambda x: x * 2)])
    with_code.save(tmp_path / "code.keras")
    with pytest.raises(UserError, match="holds code of its own"):
        load_network(tmp_path / "code.keras", SIZE)


def test_a_layer_that_is_not_known_is_one_line(tmp_path):
    class Mine(keras.layers.Layer):
        def call(self, x):
            return x

    keras.Sequential([keras.Input((24, 24, 1)), Mine()]).save(tmp_path / "mine.keras")
    with pytest.raises(UserError, match=r"has a layer that Keras doesn't know \(.*Mine.*features:FILE"):
        load_network(tmp_path / "mine.keras", SIZE)


def test_what_identifies_it(tmp_path):
    """Its layers and its weights; not when it was saved, nor how many layers were made before."""
    path = tmp_path / "a.keras"

    def identity(model):
        model.save(path)
        start = Initialisation(str(path), card_of(str(path))["backbone"])
        return start.backbone, start.digest(start.load(SIZE)[0])

    first = identity(network())
    assert identity(network()) == first
    other_weights, other_layers = identity(network(seed=1)), identity(network(end="maps"))
    assert other_weights[0] == first[0]
    assert other_weights[1] != first[1]
    assert other_layers[0] != first[0]
    assert other_layers[1] != first[1]  # though the weights are the same
    description = Initialisation(str(path), first[0]).load(SIZE)[1]
    assert description["init"] == "network"
    assert description["source"] == "a.keras"


def test_a_damaged_file_is_one_line(tmp_path):
    path = tmp_path / "a.keras"
    for content in (b"", b"PK\x03\x04 cut off"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"--arm a=.*a\.keras: is not a network file of Keras 3"):
            card_of(str(path), "--arm a=")
    with pytest.raises(UserError, match="no such file"):
        card_of(str(tmp_path / "b.keras"))


def test_it_starts_no_training_here(tmp_path):
    network().save(tmp_path / "a.keras")
    with pytest.raises(UserError, match="can be compared"):
        Initialisation.read(str(tmp_path / "a.keras"))


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False])
def test_weights_from_a_file_are_the_files(tmp_path, whole):
    """RadImageNet's files are whole models of an older Keras, without a top; others hold weights alone."""
    keras.utils.set_random_seed(3)
    theirs = keras.applications.MobileNet(
        include_top=False, weights=None, input_shape=(224, 224, 3), alpha=1.0
    )
    path = tmp_path / ("whole.h5" if whole else "only.weights.h5")
    theirs.save(path) if whole else theirs.save_weights(path)
    start = Initialisation.read(str(path), "mobilenet")
    model, description = start.load(32)
    assert description["init"] == "weights"
    assert description["source"] == path.name
    ours = [weight for layer in model.layers for weight in layer.get_weights()]
    for a, b in zip(ours, theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(UserError, match="does not hold the weights of resnet50"):
        Initialisation.read(str(path), "resnet50").load(32)
