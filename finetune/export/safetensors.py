"""An encoder's weights as safetensors: named float32 arrays and a header, for any framework."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mri_transfer.errors import UserError
from mri_transfer.finetune.export.served import Runner, Served
from mri_transfer.storage.files import atomic_write

NAME = "encoder.safetensors"
INSTALL = "pip install 'mri-transfer[export]'"


def write(model: Served, folder: Path) -> Path:
    """Write the encoder's weights, named by :func:`~mri_transfer.checkpoints.backbones.named_weights`.

    The header names the backbone and the image preparation; layouts are Keras's: kernels are (height, width, in, out),
    depthwise ones (height, width, channels, 1).

    Raises:
        UserError: safetensors is not installed.
    """
    try:
        from safetensors.numpy import save
    except ImportError:
        raise UserError(f"--format safetensors needs safetensors: {INSTALL}") from None
    from mri_transfer.checkpoints.backbones import grey_scaling
    from mri_transfer.checkpoints.encoders import encoder_arrays

    scale, offset = grey_scaling(model.backbone)
    metadata = {
        "backbone": model.backbone,
        "size": str(model.size),
        "weights_sha256": model.weights,
        "layout": "Keras: kernels (height, width, in, out), depthwise (height, width, channels, 1)",
        "input": json.dumps(
            {"values": "0..255, grey in each of three channels", "scale": scale, "offset": offset}
        ),
    }
    path = folder / NAME
    with atomic_write(path, "wb") as file:
        file.write(save(encoder_arrays(model.parts[0]), metadata=metadata))
    return path


def load(path: Path) -> Runner:
    """The file's weights in a newly built encoder."""
    from safetensors import safe_open

    from mri_transfer.checkpoints.encoders import encoder_with

    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
        encoder = encoder_with(
            metadata["backbone"],
            int(metadata["size"]),
            {name: file.get_tensor(name) for name in file.keys()},  # noqa: SIM118
        )
    return lambda images: np.asarray(encoder.predict(images[..., None], batch_size=32, verbose=0))
