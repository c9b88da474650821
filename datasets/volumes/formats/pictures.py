"""Pictures of single slices (PNG, JPEG, ...): each becomes one slice of a store, unchanged but grey and square."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np

from mri_transfer.datasets.image_files import open_image, read_bytes, square, upright
from mri_transfer.datasets.volumes.formats.stored import DEFAULT_LIMIT, BadVolume, quiet_libraries
from mri_transfer.words import reason_in_words, size_in_words

_FEWEST_PIXELS = 8  # along a side


_TIFF_CHANNELS_DIFFER = 16  # grey levels, of 256
_DIFFERENT = 0.2  # of the non-empty pixels differ by more than that between two channels
_ALIKE = 0.99  # channels of a tinted or colour-mapped picture correlate more


def read_picture(path: Path, size: int, max_bytes: int = DEFAULT_LIMIT) -> tuple[np.ndarray, str, str]:
    """Read a picture in the orientation a viewer shows, centred on a square.

    Neither the pixel size in millimetres nor the original grey window is known, so it is taken unchanged. TIFF channels
    that hold several sequences of one slice, as in some data sets, become separate pictures: mixed to one grey, they
    would show what no scanner does.

    Args:
        path: the file.
        size: side of the result, pixels.
        max_bytes: a picture that decodes to more is rejected beforehand.

    Returns:
        uint8 (n, size, size), where n is 1 for most; SHA-256 of the file; digest of shape and grey levels, the same
        for every copy.

    Raises:
        BadVolume: it is not a picture, damaged, too large, or uniform.
    """
    try:
        content = read_bytes(path)
        with quiet_libraries(), open_image(io.BytesIO(content)) as file:
            promised = file.width * file.height * 4  # at most four channels, or one of floats
            if promised > max_bytes:
                raise BadVolume(f"a picture of {size_in_words(promised)}, more than --max-mb allows")
            if (frames := getattr(file, "n_frames", 1)) > 1:
                raise BadVolume(f"{frames} pictures in one file; save them one by one")
            colours = file.format == "TIFF" and file.mode == "RGB"
            picture = upright(file, "YCbCr" if colours else "L")
            channels = _sequences(np.asarray(picture)) if colours and picture.mode == "RGB" else []
            grey = channels or [np.asarray(picture.convert("L"))]
    except BadVolume:
        raise
    except MemoryError:
        raise BadVolume("needs more memory than there is") from None
    except Exception as error:  # Pillow's readers raise almost anything on damaged files
        raise BadVolume(reason_in_words(error, 100) or "damaged picture") from None
    if min(grey[0].shape) < _FEWEST_PIXELS:
        raise BadVolume(f"a picture of {grey[0].shape[1]} x {grey[0].shape[0]} pixels")
    varying = [channel for channel in grey if channel.min() != channel.max()]
    if not varying:
        raise BadVolume(f"all pixels have the same value, {grey[0].min()}")
    digest = hashlib.sha256(repr(varying[0].shape).encode())
    for channel in varying:
        digest.update(channel.tobytes())
    squares = np.stack([square(channel, size) for channel in varying])
    return squares, hashlib.sha256(content).hexdigest(), digest.hexdigest()


def _sequences(pixels: np.ndarray) -> list[np.ndarray]:
    """The channels with their own content, if they are not colours of one picture; else none.

    Args:
        pixels: uint8 (rows, columns, 3).
    """
    channels: list[np.ndarray] = []
    for channel in np.moveaxis(pixels, -1, 0):
        if channel.min() != channel.max() and all(_differ(channel, other) for other in channels):
            channels.append(np.ascontiguousarray(channel))
    return channels if len(channels) > 1 else []


def _differ(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two channels are pictures with different contrast."""
    shows = np.maximum(a, b) > _TIFF_CHANNELS_DIFFER
    first, second = a[shows].astype(np.float64), b[shows].astype(np.float64)
    if len(first) < _FEWEST_PIXELS**2 or np.mean(np.abs(first - second) > _TIFF_CHANNELS_DIFFER) < _DIFFERENT:
        return False
    if first.std() == 0 or second.std() == 0:
        return False
    return float(np.corrcoef(first, second)[0, 1]) < _ALIKE
