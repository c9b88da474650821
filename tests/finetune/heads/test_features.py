import numpy as np
import pytest

from mri_transfer.finetune.heads.features import BATCH, FeatureCache, extract_features, kept_images


class Doubling:
    """Stands in for an encoder; its features are recognisable, and it counts shapes."""

    def __init__(self):
        self.shapes = set()

    def predict_on_batch(self, images):
        self.shapes.add(images.shape)
        return 2.0 * images[:, 0, :, 0]


@pytest.mark.parametrize("count", [1, 5, BATCH, 2 * BATCH + 3])
def test_every_image_has_its_own_features_in_order(count):
    images = np.random.default_rng(0).integers(0, 256, (count, 4, 4)).astype(np.uint8)
    encoder = Doubling()
    assert np.array_equal(extract_features(encoder, images), 2.0 * images[:, 0])
    assert len(encoder.shapes) == 1  # each further shape would be compiled anew


def test_kept_features_are_those_of_the_encoder_data_and_size(tmp_path):
    features = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    cache = FeatureCache(tmp_path, "data", 64)
    cache.save("weights", features)
    assert np.array_equal(cache.load("weights", 6), features)
    assert cache.load("others", 6) is None
    assert FeatureCache(tmp_path, "other data", 64).load("weights", 6) is None
    assert FeatureCache(tmp_path, "data", 32).load("weights", 6) is None


def test_kept_images_with_a_damaged_header_are_kept_anew(tmp_path):
    images = np.zeros((3, 8, 8), np.uint8)
    path = kept_images(tmp_path, "data", images)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"'shape': (", b"'shap[ ((", 1))
    assert kept_images(tmp_path, "data", images) == path
    assert path.read_bytes() == whole


def test_damage_is_noted_and_not_trusted(tmp_path):
    cache = FeatureCache(tmp_path, "data", 64)
    path = cache.save("weights", np.ones((50, 3), np.float32))
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(bytes(content))
    assert cache.load("weights", 50) is None
    assert str(path) in cache.damaged[0]
    path.write_bytes(bytes(content[:200]))
    assert cache.load("weights", 50) is None
