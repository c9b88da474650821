"""Which feature map should a linear probe read? Macro-F1 on development groups for each encoder resolution.

    python benchmarks/stages.py TUMORS imagenet RUN ... [--size 112] [--cache DIR]

An encoder's features are its last feature map, averaged over places. This averages the last map of every resolution
likewise and fits a probe on each, on the last two together, and on all. It chooses on development groups
(`development.py`), so conclusions must be measured on others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from development import from_command_line


def pooled_maps(encoder: Any) -> dict[str, Any]:
    """The last feature map of every resolution, from fine to coarse, each averaged over places.

    Returns:
        Symbolic tensors (batch, channels) by "side x channels"; the last one is the encoder's output.
    """
    from keras import layers

    last: dict[int, Any] = {}
    for layer in encoder.layers:
        shape = getattr(layer.output, "shape", ())
        if (
            len(shape) == 4 and shape[1] < encoder.input_shape[1]
        ):  # smaller than the image, so not the image itself
            last[shape[1]] = layer.output
    return {f"{side} px x {x.shape[-1]}": layers.GlobalAveragePooling2D()(x) for side, x in last.items()}


def main() -> None:
    starts, development = from_command_line(__doc__, 112)
    from mri_transfer.machine import device

    device.prepare()
    import keras

    from mri_transfer.checkpoints.initialisation import Initialisation

    for start in starts:
        encoder, _ = Initialisation.read(start).load(development.images.shape[1])
        maps = pooled_maps(encoder)
        reader = keras.Model(encoder.input, list(maps.values()))
        images = development.images[..., None].astype(np.float32)
        by_name = dict(zip(maps, reader.predict(images, batch_size=64, verbose=0), strict=True))
        names = list(by_name)
        by_name["the last two"] = np.concatenate([by_name[name] for name in names[-2:]], axis=1)
        by_name["all"] = np.concatenate([by_name[name] for name in names], axis=1)
        for name, features in by_name.items():
            print(f"{start}, {name}: macro-F1 {development.score(features):.3f}", flush=True)


if __name__ == "__main__":
    main()
