"""Pictures of single slices (PNG, JPEG, ...): each becomes one slice of a store as it is, grey and square."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np

from mri_transfer.datasets.tumors.files import open_image, read_bytes, square, upright
from mri_transfer.datasets.volumes.formats.stored import DEFAULT_LIMIT, BadVolume, quiet_libraries, size_text

_FEWEST_PIXELS = 8  # along a side


def read_picture(path: Path, size: int, max_bytes: int = DEFAULT_LIMIT) -> tuple[np.ndarray, str, str]:
    """Read a picture the way round a viewer shows it, padded to a square in its middle.

    Nothing says how large its pixels are in millimetres, nor which grey levels its maker cut off, so it is taken
    as it is.

    Args:
        path: of the file.
        size: side of the result, pixels.
        max_bytes: a picture that takes more when decoded is refused before it is.

    Returns:
        uint8 (size, size); SHA-256 of the file; digest of shape and grey levels, the same for every copy.

    Raises:
        BadVolume: it is no picture, damaged, too large, or one grey.
    """
    try:
        content = read_bytes(path)
        with quiet_libraries(), open_image(io.BytesIO(content)) as file:
            promised = file.width * file.height * 4  # at most four channels, or one of floats
            if promised > max_bytes:
                raise BadVolume(f"a picture of {size_text(promised)}, more than --max-mb allows")
            if (frames := getattr(file, "n_frames", 1)) > 1:
                raise BadVolume(f"{frames} pictures in one file; save them one by one")
            grey = np.asarray(upright(file, "L").convert("L"))
    except BadVolume:
        raise
    except MemoryError:
        raise BadVolume("needs more memory than there is") from None
    except Exception as error:  # Pillow's readers raise nearly anything for damaged files
        told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BadVolume(" ".join(told.split())[:100] or "damaged picture") from None
    if min(grey.shape) < _FEWEST_PIXELS:
        raise BadVolume(f"a picture of {grey.shape[1]} x {grey.shape[0]} pixels")
    if grey.min() == grey.max():
        raise BadVolume(f"all pixels have the same value, {grey.min()}")
    pixels = hashlib.sha256(repr(grey.shape).encode() + grey.tobytes()).hexdigest()
    return square(grey, size), hashlib.sha256(content).hexdigest(), pixels
