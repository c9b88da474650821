"""Convert pictures in common forms to what encoders take: uint8 (n, size, size), padded to squares."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mri_transfer.datasets.image_files import read_grey, square, upright
from mri_transfer.errors import UserError
from mri_transfer.words import reason_in_words

GREY = "arrays hold grey 0..255: uint8, or numbers in that range"


def grey_images(images: Any, size: int) -> np.ndarray:
    """Pictures of any size, prepared like the labelled images.

    Args:
        images: one or several of: path of an image file, PIL image, grey array (h, w), colour array (h, w, 3 or 4);
            or one array (n, h, w) or (n, h, w, 1, 3 or 4) holding all.
        size: side of the result, pixels.

    Returns:
        uint8 (n, size, size).

    Raises:
        UserError: one of them is not a picture; the message says which.
    """
    pictures = [square(grey, size) for grey in _greys(images)]
    if not pictures:
        raise UserError("images: there are none")
    return np.stack(pictures)


def _greys(images: Any) -> Iterable[np.ndarray]:
    if isinstance(images, (str, os.PathLike, Image.Image)):
        return [_grey(images, "image")]
    if hasattr(images, "__array__") and not isinstance(images, (list, tuple)):
        array = np.asarray(images)
        # A short last axis is colour channels; a stack of such narrow pictures is not supported.
        single = array.ndim in (0, 2) or (array.ndim == 3 and array.shape[-1] <= 4)
        images = [array] if single else array
    if not isinstance(images, Iterable):
        raise UserError(f"images: is {type(images).__name__}; give paths, PIL images or arrays")
    return [_grey(image, f"image {number}") for number, image in enumerate(images)]


def _grey(image: Any, name: str) -> np.ndarray:
    """uint8 (h, w) of one picture."""
    if isinstance(image, (str, os.PathLike)):
        try:
            return read_grey(Path(image))
        except Exception as error:  # Pillow's readers raise almost anything on damaged files
            raise UserError(f"{image}: can't be read as an image ({reason_in_words(error)})") from None
    if isinstance(image, Image.Image):
        return np.asarray(upright(image.copy(), "L").convert("L"))
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    colour = array.ndim == 3 and array.shape[-1] in (3, 4)
    if not array.size or not (array.ndim == 2 or colour) or array.dtype.kind not in "uif":
        raise UserError(f"{name}: is {array.dtype} {array.shape}, not a picture (h, w) or (h, w, 3); {GREY}")
    if array.dtype == np.uint16:  # deeper than 8 bits, as when read from files: rescaled from its own range
        return _grey(Image.fromarray(array), name)
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # also catches NaN
        raise UserError(f"{name}: its values go from {low:g} to {high:g}; {GREY}")
    if array.dtype.kind == "f" and 0 < high <= 1:
        raise UserError(f"{name}: its values go from {low:g} to {high:g}; multiply them by 255")
    array = np.round(array).astype(np.uint8)
    return np.asarray(upright(Image.fromarray(array), "L").convert("L")) if colour else array
