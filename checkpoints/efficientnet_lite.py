"""EfficientNet-Lite0: EfficientNet without squeeze-excite and with ReLU6, made for edge devices.

Architecture: M. Tan and Q. V. Le, "EfficientNet", ICML 2019 (arXiv:1905.11946), table 1, in the "lite"
variant of the TensorFlow TPU repository: stem and head are not scaled, swish becomes ReLU6, squeeze-excite is
dropped. The published weights were trained with TensorFlow and ported to torch, so padding is "same" in
TensorFlow's sense.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from keras import initializers, layers

from mri_transfer.checkpoints import EFFICIENTNET_LITE0 as NAME
from mri_transfer.errors import UserError

FEATURES = 1280
CLASSES = 1000
EPSILON = 1e-3
# (x - 127) / 128 of 0..255, the preprocessing the weights were trained with.
SCALE, OFFSET = 1 / 128, -127 / 128


class Stage(NamedTuple):
    """One row of the paper's table 1."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    filters: int


STEM_FILTERS = 32
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def _initializer() -> initializers.Initializer:
    # The reference code's choice. Fan-out also suits a depthwise kernel (h, w, C, 1), whose fan-in Keras
    # overstates.
    return initializers.VarianceScaling(scale=2.0, mode="fan_out", distribution="truncated_normal")


def _convolution(x: Any, name: str, filters: int, kernel: int = 1, stride: int = 1) -> Any:
    x = layers.Conv2D(
        filters,
        kernel,
        stride,
        "same",
        use_bias=False,
        kernel_initializer=_initializer(),
        name=f"{name}_conv",
    )(x)
    return layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)


def _depthwise(x: Any, name: str, kernel: int, stride: int) -> Any:
    x = layers.DepthwiseConv2D(
        kernel, stride, "same", use_bias=False, depthwise_initializer=_initializer(), name=f"{name}_conv"
    )(x)
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x)


def _blocks() -> list[tuple[str, Stage, int]]:
    """(name, stage, stride) of the 16 inverted-residual blocks, in order."""
    return [
        (f"block{number}{chr(ord('a') + repeat)}", stage, stage.stride if repeat == 0 else 1)
        for number, stage in enumerate(STAGES, 1)
        for repeat in range(stage.repeats)
    ]


def feature_maps(x: Any) -> Any:
    """Add the convolutional part.

    Args:
        x: preprocessed image tensor, (batch, height, width, 3).

    Returns:
        Tensor (batch, ceil(height / 32), ceil(width / 32), 1280).
    """
    x = _convolution(x, "stem", STEM_FILTERS, kernel=3, stride=2)
    x = layers.ReLU(6.0, name="stem_relu")(x)
    for name, stage, stride in _blocks():
        incoming, y = int(x.shape[-1]), x
        if stage.expansion != 1:
            y = _convolution(y, f"{name}_expand", incoming * stage.expansion)
            y = layers.ReLU(6.0, name=f"{name}_expand_relu")(y)
        y = _depthwise(y, f"{name}_depthwise", stage.kernel, stride)
        y = _convolution(y, f"{name}_project", stage.filters)
        x = layers.Add(name=f"{name}_add")([x, y]) if stride == 1 and incoming == stage.filters else y
    x = _convolution(x, "head", FEATURES)
    return layers.ReLU(6.0, name="head_relu")(x)


def classifier(size: int = 224) -> Any:
    """The network as published: RGB (batch, size, size, 3) in 0..255 → ImageNet's 1000 probabilities.

    For verifying the weights on photographs of known class.
    """
    import keras

    image = keras.Input((size, size, 3), name="image")
    x = feature_maps(layers.Rescaling(SCALE, OFFSET, name="preprocess")(image))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(CLASSES, activation="softmax", name="predictions")(x), name=NAME)


def _torch_names() -> dict[str, str]:
    """Each layer's name in the published file."""
    names = {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "head_conv": "_conv_head", "head_bn": "_bn1"}
    names["predictions"] = "_fc"
    for index, (name, _, _) in enumerate(_blocks()):
        parts = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1")}
        parts["project"] = ("_project_conv", "_bn2")
        for stage, (convolution, norm) in parts.items():
            names[f"{name}_{stage}_conv"] = f"_blocks.{index}.{convolution}"
            names[f"{name}_{stage}_bn"] = f"_blocks.{index}.{norm}"
    return names


def _as_keras(layer: Any, prefix: str, state: dict[str, np.ndarray]) -> list[np.ndarray]:
    """A layer's arrays for Keras: OIHW → HWIO, depthwise (C,1,h,w) → (h,w,C,1), dense transposed."""
    if isinstance(layer, layers.BatchNormalization):
        return [state[f"{prefix}.{suffix}"] for suffix in ("weight", "bias", "running_mean", "running_var")]
    weight = state[f"{prefix}.weight"]
    if isinstance(layer, layers.DepthwiseConv2D):
        return [weight.transpose(2, 3, 0, 1)]
    if isinstance(layer, layers.Conv2D):
        return [weight.transpose(2, 3, 1, 0)]
    return [weight.T, state[f"{prefix}.bias"]]


def assign_torch_weights(model: Any, state: dict[str, np.ndarray]) -> None:
    """Set the weights of an encoder or a :func:`classifier` from the published state dict, in place.

    Raises:
        UserError: an array is missing or has another shape; nothing is set then.
    """
    names = _torch_names()
    weighted_layers = [layer for layer in model.layers if layer.weights]
    try:
        arrays = [_as_keras(layer, names[layer.name], state) for layer in weighted_layers]
    except KeyError as error:
        raise UserError(
            f"weights for {NAME}: {error.args[0]} is missing; give the file published for it"
        ) from None
    for layer, values in zip(weighted_layers, arrays, strict=True):
        for variable, value in zip(layer.weights, values, strict=True):
            if tuple(variable.shape) != value.shape:
                raise UserError(
                    f"weights for {NAME}: {layer.name} has shape {value.shape}, {tuple(variable.shape)} is "
                    "needed; give the file published for it"
                )
    for layer, values in zip(weighted_layers, arrays, strict=True):
        layer.set_weights(values)
