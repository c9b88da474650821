"""Encoders: a backbone with its preprocessing in front and average pooling behind, as one flat Keras model.

A backbone is `efficientnet_lite0` or any constructor of `keras.applications` by its snake_case name. `NAME/16` is its
lower part, up to a feature map of output stride 16, a sixteenth of the image's side (or `/8`, `/4`), as the last layers
may be too specialised on what they were trained for. Every encoder takes (batch, height, width, 1) in 0..255 of any
number type and returns (batch, features) in float32.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import math
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import keras
import numpy as np
from keras import initializers, layers

from mri_transfer.checkpoints import DEFAULT_BACKBONE, efficientnet_lite, network_of
from mri_transfer.checkpoints.normalization import fuse_batch_normalization
from mri_transfer.errors import UserError

# Published values (0.99 to 0.9997) average over hundreds to thousands of steps; pretraining for a few hundred would end
# on statistics from its start. 0.97 averages over about 33 steps, i.e. thousands of views.
BATCH_NORM_MOMENTUM = 0.97
RANDOM_KERNELS = {
    "kernel_initializer": "kernel",
    "depthwise_initializer": "depthwise_kernel",
    "pointwise_initializer": "pointwise_kernel",
}
REFERENCE = 256  # px: an image whose maps tell output strides apart
# Mean and standard deviation of ImageNet's red, green and blue in 0..1.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def snake_case(name: str) -> str:
    """`EfficientNetV2B0` → `efficientnet_v2_b0`, `ConvNeXtTiny` → `convnext_tiny`."""
    name = re.sub(r"(NAS|[A-Z][a-z]*)Ne(Xt|t)", lambda match: match.group().capitalize(), name)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


@cache
def _constructors() -> dict[str, Any]:
    """Every model function of keras.applications by its snake_case name."""
    members = inspect.getmembers(keras.applications, inspect.isfunction)
    return {snake_case(name): function for name, function in members}


def backbones() -> tuple[str, ...]:
    """All names that :func:`build_encoder` knows, the default first."""
    return (efficientnet_lite.NAME, *sorted(_constructors()))


def check_backbone(name: str) -> str:
    """The name itself.

    Raises:
        UserError: no such backbone; the message suggests close matches.
    """
    network = network_of(name)
    if network in backbones():
        return name
    stem, part = name.partition("/")[0], name[len(network) :]
    if stem in backbones():
        raise UserError(
            f"--backbone {name}: no such part of {stem}; its lower parts are {stem}/16, /8 and /4"
        )
    close = difflib.get_close_matches(snake_case(stem), backbones(), n=3, cutoff=0.5)
    hint = (
        f"did you mean {' or '.join(match + part for match in close)}?"
        if close
        else f"known: {', '.join(backbones())}"
    )
    raise UserError(f"--backbone {name}: no such backbone; {hint}")


def constructor(backbone: str) -> Any:
    """The function of keras.applications that makes `backbone`."""
    return _constructors()[network_of(check_backbone(backbone))]


def grey_scaling(backbone: str) -> tuple[list[float], list[float]]:
    """Scale and offset of each of three channels by which the family's `preprocess_input` maps grey.

    All of its modes ("tf", "torch", "caffe", none) are affine per channel, so black and white determine them. Families
    with built-in preprocessing give scale 1 and offset 0.
    """
    if network_of(backbone) == efficientnet_lite.NAME:
        return [efficientnet_lite.SCALE] * 3, [efficientnet_lite.OFFSET] * 3
    family = constructor(backbone).__module__.rpartition(".")[2]
    preprocess = getattr(keras.applications, family).preprocess_input
    black, white = (
        np.asarray(preprocess(np.full((1, 1, 1, 3), grey, "float64"), data_format="channels_last")).ravel()
        for grey in (0.0, 255.0)
    )
    return [float(scale) for scale in (white - black) / 255], [float(offset) for offset in black]


def _preprocessed(image: Any, backbone: str) -> Any:
    """Grey to three channels, scaled as the backbone's family expects; float32 under any dtype policy."""
    scale, offset = grey_scaling(backbone)
    x = layers.Concatenate(name="grey_to_channels", dtype="float32")([image, image, image])
    if scale == [1.0] * 3 and offset == [0.0] * 3:
        return x
    return layers.Rescaling(scale, offset, name="preprocess", dtype="float32")(x)


def build_encoder(backbone: str = DEFAULT_BACKBONE, size: int = 160, seed: int = 0) -> keras.Model:
    """An encoder with random weights that depend only on `seed`, not on global random state.

    Args:
        backbone: one of :func:`backbones`, or such a name and /16, /8 or /4.
        size: height and width of the input, pixels.
        seed: for the random weights.

    Returns:
        Functional model named "encoder": (batch, size, size, 1) in 0..255 of any dtype → (batch, features)
        float32, from the backbone's own average pooling. `.layers` holds all its layers in order (ConvNeXt keeps its
        stem and its down-sampling steps as small Sequential models).

    Raises:
        UserError: no such backbone, or it can't take images this small.
    """
    check_backbone(backbone)
    image = keras.Input((size, size, 1), name="image", dtype="float32")
    x = _preprocessed(image, backbone)
    if network_of(backbone) == efficientnet_lite.NAME:
        x = layers.GlobalAveragePooling2D(name="pool")(efficientnet_lite.feature_maps(x))
    else:
        options = {"include_top": False, "weights": None, "pooling": "avg", "input_shape": (size, size, 3)}
        try:
            x = constructor(backbone)(input_tensor=x, **options).output
        except ValueError as error:
            raise UserError(
                f"--size {size}: {backbone} can't take it ({' '.join(str(error).split())})"
            ) from None
    x = layers.Activation("linear", name="features", dtype="float32")(x)
    encoder = keras.Model(image, x, name="encoder")
    for _, layer in leaf_layers(encoder):
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = BATCH_NORM_MOMENTUM
    fuse_batch_normalization(encoder)
    set_normalization(encoder)
    _seed_weights(encoder, seed)
    return truncated(encoder, backbone)


def truncated(encoder: keras.Model, backbone: str) -> keras.Model:
    """The lower part of a whole network's encoder, for a backbone `NAME/STRIDE`; the same encoder for other backbones.

    Args:
        encoder: as of :func:`build_encoder` for the whole network; the part shares its layers.

    Raises:
        UserError: the network has no map of that stride.
    """
    if network_of(backbone) == backbone:
        return encoder
    x = encoder.operations[_end_of(backbone)].output
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Activation("linear", name="features", dtype="float32")(x)
    return keras.Model(encoder.input, x, name="encoder")


@cache
def _end_of(backbone: str) -> int:
    """Position of the last operation of `NAME/STRIDE` in the whole network, which is the same for images of any size.

    Of the maps of that stride through which every path leads, it takes the last of the widest. In networks of inverted
    residuals that is the next block's expansion, which SSD reads, too (Sandler et al., "MobileNetV2", CVPR 2018,
    section 6.2), in residual ones the last sum.
    """
    network, stride = network_of(backbone), int(backbone.rpartition("/")[2])
    encoder = build_encoder(network, REFERENCE)
    position = {operation.name: index for index, operation in enumerate(encoder.operations)}
    leads_to = dict.fromkeys(position.values(), 0)
    for entry in encoder.get_config()["layers"]:
        for name in _inputs(entry["inbound_nodes"]):
            leads_to[position[name]] = max(leads_to[position[name]], position[entry["name"]])
    ends, furthest = [], 0
    for index, operation in enumerate(encoder.operations):
        shape: tuple[Any, ...] = getattr(operation.output, "shape", ())
        is_map = len(shape) == 4 and not isinstance(operation, (keras.Model, layers.ZeroPadding2D))
        # Without padding, sides are a little smaller than the stride says.
        if is_map and furthest <= index and abs(math.log2(REFERENCE / shape[1] / stride)) < 0.5:
            ends.append((shape[-1], index))
        furthest = max(furthest, leads_to[index])
    if not ends:
        raise UserError(
            f"--backbone {backbone}: {network} has no feature map of output stride {stride} that every path leads "
            f"through; leave out /{stride}"
        )
    return max(ends)[1]


def _inputs(node: Any) -> Iterator[str]:
    """Names of the operations that a serialised call takes its tensors from."""
    if isinstance(node, dict):
        if node.get("class_name") == "__keras_tensor__":
            yield node["config"]["keras_history"][0]
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from _inputs(child)


def set_normalization(encoder: keras.Model) -> None:
    """Set input normalisation that is stored as weights to ImageNet's statistics, in place.

    Only the first EfficientNet family has one. Its published files store a standard deviation where a variance belongs;
    keras.applications corrects that with an extra layer, added only with `weights="imagenet"`. Here both starts have
    the same layers, so we set the right variance instead, with the same result.
    """
    for layer in encoder.layers:
        if isinstance(layer, layers.Normalization) and layer.weights:
            layer.set_weights(
                [np.array(IMAGENET_MEAN), np.array(IMAGENET_STD) ** 2, np.array(0)][: len(layer.weights)]
            )
            layer.finalize_state()


def leaf_layers(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path, layer) of every layer that is not itself a model, in order.

    Keras numbers unnamed layers consecutively within a process ("conv2d_37"); these paths count from 0 in each model,
    so they identify the same layer in every process.
    """
    counts: dict[str, int] = {}
    for layer in model.layers:
        kind = re.sub(
            r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
        ).lower()
        name = layer.name
        if re.fullmatch(rf"{re.escape(kind)}(_\d+)?", name):
            name = f"{kind}_{counts.get(kind, 0)}"
            counts[kind] = counts.get(kind, 0) + 1
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer, f"{prefix}{name}/")
        else:
            yield prefix + name, layer


def named_weights(model: keras.Model) -> dict[str, Any]:
    """Every weight of `model` by a name that is the same in every process, such as "stem_conv/kernel"."""
    by_name: dict[str, Any] = {}
    for path, layer in leaf_layers(model):
        for variable in layer.weights:
            name = f"{path}/{re.sub(r'^variable_[0-9]+$', 'variable', variable.name)}"
            while name in by_name:
                name += "_"
            by_name[name] = variable
    return by_name


def _derived(seed: int, path: str) -> int:
    """A 31-bit seed for one variable, independent of every other variable's."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{path}".encode()).digest()[:4], "big") >> 1


def _seed_weights(model: keras.Model, seed: int) -> None:
    """Redraw every random kernel with its own initialiser, seeded by (seed, layer), and seed dropout layers."""
    for path, layer in leaf_layers(model):
        config = layer.get_config()
        for key, attribute in RANDOM_KERNELS.items():
            variable = getattr(layer, attribute, None)
            if variable is None and key == "depthwise_initializer":
                variable = getattr(layer, "kernel", None)  # DepthwiseConv2D's name for it
            if key in config and variable is not None:
                settings = config[key]["config"] | {"seed": _derived(seed, f"{path}/{attribute}")}
                initializer = getattr(initializers, config[key]["class_name"]).from_config(settings)
                variable.assign(initializer(variable.shape, dtype=variable.dtype))
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            generator.state.assign(np.array([_derived(seed, f"{path}/dropout"), 0], "uint32"))
