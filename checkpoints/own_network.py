"""Networks of the user's own, as `.keras` files: read in Keras's safe mode, and fitted to grey images of any size.

Inputs are the same as for every encoder here, (batch, size, size, 1) in 0..255. A network with three input channels
gets the grey value three times; one with another input size, resized images. It must normalise inputs itself, or not at
all. Outputs become features: maps and tokens are averaged, and a final softmax is removed with its layer.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mri_transfer.errors import UserError

if TYPE_CHECKING:
    import keras

TABLE = "a table of features does without it (NAME=features:FILE)"
SOFTMAX = ("softmax", "sigmoid")
MOST_BYTES = 50_000_000  # of a description; that of the largest network of keras.applications has 1.5 MB


def architecture_of(path: Path) -> str:
    """A name for the architecture in a `.keras` file, independent of where and how often the network was built.

    Raises:
        UserError: it is not a `.keras` file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > MOST_BYTES:
                raise ValueError("its description is larger than any network's")
            architecture = json.loads(archive.read("config.json"))
        architecture = {key: architecture[key] for key in ("class_name", "config")}
    except Exception as error:  # zipfile, zlib and json raise different exceptions
        raise UserError(
            f"{path}: is not a network file of Keras 3 ({' '.join(str(error).split())[:120]}); write it with "
            "model.save('FILE.keras')"
        ) from None
    numbers: dict[str, str] = {}
    for name in _layer_names(architecture):
        numbers.setdefault(name, f"layer {len(numbers)}")
    text = json.dumps(_renamed(architecture, numbers), sort_keys=True)
    return f"own-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _layer_names(node: Any) -> Iterator[str]:
    """Layer names, in order. Keras numbers unnamed ones consecutively within a process ("conv2d_37")."""
    if isinstance(node, list):
        for child in node:
            yield from _layer_names(child)
    elif isinstance(node, dict):
        config = node.get("config")
        if isinstance(config, dict) and "name" in config and node.get("class_name") != "DTypePolicy":
            yield str(config["name"])
        for child in node.values():
            yield from _layer_names(child)


def _renamed(node: Any, names: dict[str, str]) -> Any:
    if isinstance(node, list):
        return [_renamed(child, names) for child in node]
    if isinstance(node, dict):  # an object's number within a process is meaningless
        return {key: _renamed(child, names) for key, child in node.items() if key != "shared_object_id"}
    return names.get(node, node) if isinstance(node, str) else node


def load_network(path: Path, size: int) -> keras.Model:
    """The network of a `.keras` file as an encoder, (batch, size, size, 1) in 0..255 to (batch, features) float32.

    Raises:
        UserError: it can't be read without running its own code, its input is not an image, or its output is not
            features.
    """
    import keras

    try:
        network = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds of exceptions
        raise UserError(f"{path}: {_why(str(error))}") from None
    return fitted(network, size, str(path))


def _why(text: str) -> str:
    if "Lambda" in text or "unsafe" in text:
        return f"holds code of its own (a Lambda layer), which is never run; replace that layer, or {TABLE}"
    if unknown := re.search(r"Could not locate (?:class|function) '([^']+)'", text):
        return (
            f"has a layer that Keras doesn't know ({unknown[1]}); import the module that registers it "
            f"(keras.saving.register_keras_serializable) and compare from Python, or {TABLE}"
        )
    return f"can't be read as a network ({' '.join(text.split())[:160]}); write it again with model.save"


def fitted(network: keras.Model, size: int, name: str) -> keras.Model:
    """A network with the layers it needs before and after it; see the module docstring.

    Args:
        network: with one input (batch, height, width, channels), with 1 or 3 channels.
        size: side of the images, pixels.
        name: for messages.

    Raises:
        UserError: its input or output is something else.
    """
    import keras
    from keras import layers

    shape = getattr(network, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or any(isinstance(side, tuple) for side in shape):
        raise UserError(
            f"{name}: takes {shape or 'inputs that are not known yet'}, not one image (batch, height, width, "
            f"channels); wrap it in a model that does, or {TABLE}"
        )
    _, height, width, channels = shape
    if channels not in (1, 3):
        first = ", which looks like channels first" if shape[1] in (1, 3) else ""
        raise UserError(f"{name}: takes {channels} channels{first}; grey images fill 1 or 3, channels last")
    network.trainable = True
    x = image = keras.Input((size, size, 1), name="image", dtype="float32")
    if (height or size, width or size) != (size, size):
        x = layers.Resizing(height or size, width or size, name="to_its_size", dtype="float32")(x)
    if channels == 3:
        x = layers.Concatenate(name="grey_to_channels", dtype="float32")([x, x, x])
    try:
        x = _trunk(network)(x)
    except Exception as error:  # usually the image is too small
        raise UserError(
            f"{name}: can't take images of {size} px ({' '.join(str(error).split())[:160]}); try another --size"
        ) from None
    rank = len(x.shape) if hasattr(x, "shape") else 0
    if rank not in (2, 3, 4) or x.shape[-1] is None:
        gives = tuple(x.shape) if rank else f"{len(x)} outputs"
        raise UserError(
            f"{name}: gives {gives}; features are one output of shape (batch, d), or maps or tokens to average"
        )
    if rank > 2:
        pool = layers.GlobalAveragePooling2D if rank == 4 else layers.GlobalAveragePooling1D
        x = pool(name="pool")(x)
    x = layers.Activation("linear", name="features", dtype="float32")(x)
    return keras.Model(image, x, name="encoder")


def _trunk(network: keras.Model) -> keras.Model:
    """The network without its final softmax and final average, so that maps can be shown."""
    import keras
    from keras import layers

    outputs = getattr(network, "outputs", None) or []
    if len(outputs) != 1:
        return network
    end, cut = outputs[0], False
    while True:
        last = end._keras_history.operation
        softmax = getattr(getattr(last, "activation", None), "__name__", "") in SOFTMAX
        if isinstance(last, layers.Dense) and (softmax or cut):
            end = last.input
            break
        if not isinstance(last, layers.Softmax) and not (softmax and isinstance(last, layers.Activation)):
            break
        end, cut = last.input, True
    while isinstance(last := end._keras_history.operation, layers.Dropout):
        end = last.input
    if isinstance(last, layers.GlobalAveragePooling2D) and not last.keepdims:
        end = last.input
    if end is outputs[0]:
        return network
    return keras.Model(network.inputs, end, name=f"{network.name}_trunk")
