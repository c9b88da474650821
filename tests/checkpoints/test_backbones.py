"""Encoders: the right preprocessing for every family, the same random weights in every process, any input type."""

import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from mri_transfer.checkpoints.backbones import (
    BATCH_NORM_MOMENTUM,
    backbones,
    build_encoder,
    check_backbone,
    constructor,
    grey_scaling,
    leaf_layers,
    named_weights,
    snake_case,
)
from mri_transfer.checkpoints.normalization import fuse_batch_normalization
from mri_transfer.errors import UserError

# One small member for each way of preprocessing: own, caffe, tf, torch, inside the model (three ways).
BY_MODE = [
    "efficientnet_lite0",
    "vgg16",
    "mobilenet_v2",
    "densenet121",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "convnext_tiny",
]
ROOT = Path(__file__).resolve().parents[2]


def some_are_slow(names, fast):
    return [pytest.param(name, marks=[] if name in fast else pytest.mark.slow) for name in names]


def arrays(model: keras.Model) -> dict[str, np.ndarray]:
    return {name: np.array(variable) for name, variable in named_weights(model).items()}


def test_names_are_those_of_keras_applications_in_snake_case():
    names = [
        "EfficientNetV2B0",
        "ConvNeXtXLarge",
        "NASNetMobile",
        "InceptionResNetV2",
        "ResNet50V2",
        "VGG16",
        "MobileNetV3Small",
    ]
    assert [snake_case(name) for name in names] == [
        "efficientnet_v2_b0", "convnext_xlarge", "nasnet_mobile", "inception_resnet_v2", "resnet50_v2", "vgg16",
        "mobilenet_v3_small",
    ]  # fmt: skip
    assert backbones()[0] == "efficientnet_lite0"
    assert len(set(backbones())) == len(backbones()) >= 38
    assert constructor("convnext_tiny") is keras.applications.ConvNeXtTiny


def test_an_unknown_backbone_names_close_matches():
    with pytest.raises(UserError, match=r"--backbone resnet5O: .*did you mean .*resnet50"):
        check_backbone("resnet5O")
    with pytest.raises(UserError, match="did you mean mobilenet_v3_small"):
        check_backbone("MobileNetV3Smal")
    with pytest.raises(UserError, match=r"known: efficientnet_lite0, .*xception"):
        check_backbone("zzz")


@pytest.mark.parametrize("backbone", [name for name in backbones() if name != "efficientnet_lite0"])
def test_grey_is_preprocessed_as_the_family_does(backbone):
    family = getattr(keras.applications, constructor(backbone).__module__.rpartition(".")[2])
    grey = np.arange(256.0).reshape(1, 16, 16, 1)
    expected = family.preprocess_input(np.repeat(grey, 3, -1), data_format="channels_last")
    scale, offset = grey_scaling(backbone)
    np.testing.assert_allclose(grey * scale + offset, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    "backbone", some_are_slow(BY_MODE[1:], fast=("vgg16", "mobilenet_v2", "mobilenet_v3_small"))
)
def test_features_are_those_of_keras_applications(backbone):
    """The family's own preprocess_input and own model, fed the same grey image as RGB, with the same weights."""
    encoder = build_encoder(backbone, 64, seed=1)
    reference = constructor(backbone)(include_top=False, weights=None, input_shape=(64, 64, 3), pooling="avg")
    reference.set_weights(encoder.get_weights())
    for layer in reference.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    family = getattr(keras.applications, constructor(backbone).__module__.rpartition(".")[2])
    grey = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 1), "uint8")
    expected = np.asarray(reference(family.preprocess_input(np.repeat(grey, 3, -1).astype("float32"))))
    features = encoder(keras.ops.convert_to_tensor(grey))
    assert keras.backend.standardize_dtype(features.dtype) == "float32"
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert expected.std() > 0


@pytest.mark.parametrize(
    ("backbone", "last"),
    [
        ("efficientnet_lite0/16", "block6a_expand_relu"),
        ("mobilenet/16", "conv_pw_11_relu"),
        pytest.param("resnet50_v2/8", "conv3_block3_out", marks=pytest.mark.slow),
    ],
)
def test_a_lower_part_is_the_network_up_to_the_map_of_that_resolution(backbone, last):
    network, stride = backbone.split("/")
    whole, part = build_encoder(network, 96, seed=4), build_encoder(backbone, 96, seed=4)
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 1), "uint8")
    maps = keras.Model(whole.input, whole.get_layer(last).output)(images)
    assert maps.shape[1:3] == (96 // int(stride), 96 // int(stride))
    expected = np.asarray(maps).mean(axis=(1, 2))
    np.testing.assert_allclose(np.asarray(part(images)), expected, rtol=1e-4, atol=1e-5)
    assert set(arrays(part)) < set(arrays(whole))
    for size in (33, 36, 64):  # where sides are rounded, it is still the same part
        assert arrays(build_encoder(backbone, size)).keys() == arrays(part).keys()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("mobilenet/32", "no such part of mobilenet; its lower parts are mobilenet/16, /8 and /4"),
        ("mobilenet/16/16", "no such part of mobilenet"),
        ("mobilenet/", "no such part of mobilenet"),
        ("MobileNetV2/8", "no such backbone; did you mean mobilenet_v2/8 or"),
        ("", "no such backbone"),
    ],
)
def test_a_part_that_is_none_names_those_there_are(name, line):
    with pytest.raises(UserError, match=f"--backbone {name}: {line}"):
        check_backbone(name)


@pytest.mark.slow
def test_a_network_whose_paths_never_meet_has_no_lower_part():
    with pytest.raises(
        UserError, match=r"nasnet_mobile has no feature map of output stride 16 .*leave out /16"
    ):
        build_encoder("nasnet_mobile/16", 96)


def test_the_default_is_flat_and_takes_every_number_type():
    encoder = build_encoder(size=64)
    assert encoder.name == "encoder"
    assert encoder.input_shape == (None, 64, 64, 1)
    assert encoder.output_shape == (None, 1280)
    assert not any(isinstance(layer, keras.Model) for layer in encoder.layers)
    assert sum(np.prod(variable.shape) for variable in encoder.weights) == 4_694_024 - 1_281_000 - 0
    grey = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 1), "uint8")
    reference = np.asarray(encoder(grey.astype("float32")))
    for dtype in ("uint8", "int32", "int64", "float64"):
        np.testing.assert_array_equal(encoder(keras.ops.convert_to_tensor(grey.astype(dtype))), reference)
    norms = [layer for layer in encoder.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {(layer.momentum, layer.epsilon) for layer in norms} == {(BATCH_NORM_MOMENTUM, 1e-3)}


@pytest.mark.parametrize(
    "backbone", some_are_slow(["efficientnet_lite0", "mobilenet_v3_small", "convnext_tiny"], fast=BY_MODE[:1])
)
def test_random_weights_follow_from_the_seed_alone(backbone):
    first = build_encoder(backbone, 64, seed=5)
    random.seed(1)  # Keras draws its default seeds from here
    keras.utils.set_random_seed(99)
    repeated, other = arrays(build_encoder(backbone, 64, seed=5)), arrays(build_encoder(backbone, 64, seed=6))
    kernels = 0
    for name, array in arrays(first).items():
        np.testing.assert_array_equal(array, repeated[name], err_msg=name)
        if name.endswith("kernel"):
            kernels += 1
            assert not np.array_equal(array, other[name]), name
    assert kernels >= 40
    seeds = [
        generator.state
        for _, layer in leaf_layers(first)
        if (generator := getattr(layer, "seed_generator", None))
    ]
    assert len(seeds) == len({tuple(np.array(seed)) for seed in seeds})


def test_layers_of_equal_shape_get_different_weights_with_the_spread_of_their_initialiser():
    encoder = build_encoder(size=64, seed=3)
    first, second = (np.array(encoder.get_layer(f"block6{block}_expand_conv").kernel) for block in "bc")
    assert first.shape == second.shape
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.01
    assert first.std() == pytest.approx(np.sqrt(2 / 1152), rel=0.02)  # fan-out of 1x1x1152


CHILD = """
import hashlib, json, sys
import numpy as np
from mri_transfer.machine import device
device.prepare()
import keras
from mri_transfer.checkpoints.backbones import build_encoder, named_weights
from mri_transfer.checkpoints.imagenet import load_imagenet
encoder = build_encoder(size=64, seed=5)
digest = hashlib.sha256(b"".join(np.array(v).tobytes() for v in named_weights(encoder).values())).hexdigest()
if keras.backend.backend() == "tensorflow":
    print(json.dumps(digest))
    sys.exit()
load_imagenet(encoder, "efficientnet_lite0")
grey = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 1), "uint8")
features = np.asarray(encoder(keras.ops.convert_to_tensor(grey)))
print(json.dumps([keras.backend.backend(), str(features.dtype), features[:, ::64].tolist()]))
"""


def in_another_process(backend: str) -> object:
    environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_another_process_draws_the_same_weights():
    import hashlib

    content = b"".join(array.tobytes() for array in arrays(build_encoder(size=64, seed=5)).values())
    assert in_another_process("tensorflow") == hashlib.sha256(content).hexdigest()


@pytest.mark.slow  # JAX compiles one initialiser for every shape of a kernel
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_jax_gives_the_same_imagenet_features():
    from mri_transfer.checkpoints.imagenet import load_imagenet

    encoder = build_encoder(size=64)
    load_imagenet(encoder, "efficientnet_lite0")
    grey = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 1), "uint8")
    backend, dtype, features = in_another_process("jax")
    assert (backend, dtype) == ("jax", "float32")
    np.testing.assert_allclose(features, np.asarray(encoder(grey))[:, ::64], rtol=1e-3, atol=1e-4)


@pytest.fixture
def policy():
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("name", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_keeps_weights_preprocessing_and_features_in_float32(policy, name):
    exact = build_encoder(size=64, seed=1)
    policy(name)
    encoder = build_encoder(size=64, seed=1)
    grey = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 1)).astype("float32")
    assert encoder.get_layer("block3a_expand_conv").compute_dtype == name.removeprefix("mixed_")
    inputs = keras.Model(encoder.input, encoder.get_layer("preprocess").output)(grey)
    np.testing.assert_allclose(np.asarray(inputs), np.repeat((grey - 127) / 128, 3, -1), atol=1e-6)
    features = encoder(grey)
    assert keras.backend.standardize_dtype(features.dtype) == "float32"
    assert {str(variable.dtype) for variable in encoder.weights} == {"float32"}
    assert np.corrcoef(np.ravel(features), np.ravel(exact(grey)))[0, 1] > 0.99


@pytest.mark.parametrize("backbone", some_are_slow(["efficientnet_lite0", "mobilenet_v2"], fast=BY_MODE[:1]))
def test_the_model_can_be_written_and_read_by_keras_itself(tmp_path, backbone):
    encoder = build_encoder(backbone, 64)
    encoder.save(tmp_path / "encoder.keras")
    back = keras.saving.load_model(tmp_path / "encoder.keras", safe_mode=True)
    grey = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 1), "uint8")
    np.testing.assert_allclose(back(grey), encoder(grey), rtol=1e-2)  # the same, in other roundings
    fuse_batch_normalization(back)
    np.testing.assert_array_equal(back(grey), encoder(grey))


def test_too_small_an_image_is_one_clear_line():
    with pytest.raises(UserError, match=r"--size 16: .*xception"):
        build_encoder("xception", 16)


@pytest.mark.slow
def test_unnamed_layers_are_counted_anew_in_every_model():
    first, second = (set(named_weights(build_encoder("nasnet_mobile", 64))) for _ in range(2))
    assert first == second


SMALLEST = [
    *("efficientnet_v2_b0", "efficientnet_b0", "densenet121", "inception_resnet_v2", "inception_v3"),
    *("mobilenet", "nasnet_mobile", "resnet50", "resnet50_v2", "xception"),
]


@pytest.mark.slow
@pytest.mark.parametrize("backbone", SMALLEST)
def test_every_family_builds_and_is_drawn_from_the_seed(backbone):
    encoder = build_encoder(backbone, 96, seed=0)
    assert len(named_weights(encoder)) == len(encoder.weights)
    state = arrays(encoder)
    repeated = arrays(build_encoder(backbone, 96, seed=0))
    assert all(np.array_equal(state[name], repeated[name]) for name in state)
    assert encoder(np.zeros((1, 96, 96, 1), "uint8")).shape == (1, encoder.output_shape[-1])
