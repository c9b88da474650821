"""Random views of slices, made on the device, in the graph, for a whole batch at once.

A view imitates the differences between two pictures of one slice: head position and field of view, scanner contrast,
shading, noise and resolution, and artefacts of programs and file formats; `augmentations/table.py` lists them.
:meth:`Views.draw` draws random numbers and the pure function :meth:`Views.apply` applies them. Everything uses
`keras.ops` and `keras.random`, so it runs on the device and on every backend, and its randomness is one saved seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from mri_transfer.pretrain.augmentations import geometry, scanner, screenshot
from mri_transfer.pretrain.augmentations.table import AUGMENTATIONS, amounts

Parameters = dict[str, Any]

# One uniform number per view for each, drawn whether used or not, so that switching one augmentation off leaves the
# others' draws unchanged. An augmentation's own column decides whether and how much, the others where and which.
_COLUMNS = (
    *(augmentation.name for augmentation in AUGMENTATIONS),
    *("crop_x", "crop_y", "resolution_axis"),
    *("letterbox_axis", "letterbox_grey", "border_grey", "cutout_x", "cutout_y"),
    *(f"border_{side}" for side in ("left", "right", "top", "bottom")),
    *(f"bias_{term}" for term in range(scanner.BIAS_TERMS)),
)
_SHARE = {augmentation.name: augmentation.share for augmentation in AUGMENTATIONS}


class Views(keras.layers.Layer):
    """One random view of every slice in a batch.

    Called on uint8 or float images (batch, side, side) in 0..255; returns float32 (batch, size, size, 1) in 0..255.
    With `strength` 0 the images are only resampled to `size`. A view depends only on its own slice and random numbers.
    The only variable, at any size, is the seed generator's state.

    Args:
        size: side of the views in pixels.
        strength: multiplies the maximum of every augmentation; 1 is the table's.
        seed: for all randomness; the generator's state is a variable, saved with the model.
        strengths: further factors for single augmentations, by name.

    Raises:
        ValueError: a name in `strengths` is not in the table.
    """

    def __init__(
        self,
        size: int,
        strength: float = 1.0,
        seed: int = 0,
        strengths: Mapping[str, float] | None = None,
        **options: Any,
    ):
        super().__init__(**{**options, "dtype": "float32"})  # whatever the network's policy
        self.size, self.strength, self.seed = size, strength, seed
        self.strengths = dict(strengths or {})
        self.amounts = amounts(strength, self.strengths)
        self.random = keras.random.SeedGenerator(seed)

    def get_config(self) -> dict[str, Any]:
        settings = {
            "size": self.size,
            "strength": self.strength,
            "seed": self.seed,
            "strengths": self.strengths,
        }
        return {**super().get_config(), **settings}

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.size, self.size, 1)

    def call(self, images):
        return self.apply(images, self.draw(ops.shape(images)[0]))

    def draw(self, n: Any, full: str | None = None) -> Parameters:
        """Random parameters of `n` views, as :meth:`apply` takes them.

        Args:
            n: number of views.
            full: name of an augmentation to apply to every view at its maximum, for illustrations.
        """
        columns = ops.unstack(
            keras.random.uniform((n, len(_COLUMNS)), seed=self.random), num=len(_COLUMNS), axis=1
        )
        uniform = dict(zip(_COLUMNS, columns, strict=True))
        if full is not None:
            # Two-sided ones alternate between their ends.
            end = ops.cast(ops.arange(n) % 2, "float32") if full in _EITHER_WAY else 0.0
            uniform[full] = ops.zeros_like(uniform[full]) + end
        parameters = self._parameters(uniform)
        if self.amounts["noise"]:
            parameters["noise_uniform"] = keras.random.uniform((n, self.size, self.size), seed=self.random)
        else:
            self.random.next()  # so that the next batch's numbers are the same as with noise
        return parameters

    def _parameters(self, uniform: dict[str, Any]) -> Parameters:
        """Convert uniform numbers in [0, 1), (n,) each by the names of _COLUMNS, to each part's units."""
        amount_of = self.amounts

        def sometimes(name: str, limit: float = math.inf) -> Any:
            """0 in views without it, else uniform up to the amount."""
            return ops.maximum(0.0, 1.0 - uniform[name] / _SHARE[name]) * min(amount_of[name], limit)

        def either_way(name: str, limit: float = math.inf) -> Any:
            return (2.0 * uniform[name] - 1.0) * min(amount_of[name], limit)

        def grey(name: str, black: float, white: float) -> Any:
            """Black and white with these frequencies, any grey in the rest."""
            return ops.clip((uniform[name] - black) / (1.0 - black - white), 0.0, 1.0)

        zoom = ops.sqrt(1.0 - sometimes("crop", 0.9))
        fewer = ops.exp(math.log(2.0) * sometimes("resolution", 3.0))
        axis = uniform["resolution_axis"]  # a third each: rows alone, columns alone, both
        bar, upright = sometimes("letterbox", 0.4), uniform["letterbox_axis"] < 0.5
        none = ops.zeros_like(zoom)
        quality, bits = sometimes("jpeg", 99.0), sometimes("depth", 7.0)
        hidden = sometimes("cutout", 0.9)
        edge = sometimes("border", 0.2)
        # Each edge has the frame half of the time.
        sides = {
            f"border_{side}": edge * ops.cast(uniform[f"border_{side}"] < 0.5, "float32")
            for side in ("left", "right", "top", "bottom")
        }
        shading = sometimes("bias")
        mirrored = uniform["flip"] < _SHARE["flip"] * min(1.0, amount_of["flip"])
        return {
            "zoom": zoom,
            "stretch": either_way("stretch"),
            "angle": either_way("rotation") * (math.pi / 180),
            "mirror": ops.where(mirrored, -1.0, 1.0),
            # The field of view moves as far as the slice allows.
            "shift_x": (uniform["crop_x"] - 0.5) * (1.0 - zoom),
            "shift_y": (uniform["crop_y"] - 0.5) * (1.0 - zoom),
            "blur": sometimes("blur") * self.size,
            "fewer_rows": ops.where(axis < 2 / 3, fewer, 1.0),
            "fewer_columns": ops.where(axis > 1 / 3, fewer, 1.0),
            "bias": ops.stack(
                [(2.0 * uniform[f"bias_{term}"] - 1.0) * shading for term in range(scanner.BIAS_TERMS)],
                axis=1,
            ),
            "gamma": ops.exp(either_way("gamma")),
            "contrast": 1.0 + either_way("contrast", 0.95),
            "brightness": either_way("brightness", 0.95),
            "noise": sometimes("noise"),
            "haze": sometimes("haze", 0.9),
            "bars_x": ops.where(upright, bar, none),
            "bars_y": ops.where(upright, none, bar),
            "bars_grey": grey("letterbox_grey", black=0.6, white=0.0),
            **sides,
            "border_grey": grey("border_grey", black=1 / 3, white=1 / 3),
            "levels": ops.where(bits > 0, ops.round(ops.exp(math.log(2.0) * (8.0 - bits))), none),
            "quality": ops.where(quality > 0, 100.0 - quality, none),
            "hidden": hidden,
            "hidden_x": uniform["cutout_x"] * (1.0 - hidden),
            "hidden_y": uniform["cutout_y"] * (1.0 - hidden),
        }

    def apply(self, images: Any, parameters: Parameters) -> Any:
        """Apply one set of parameters to each of the images (batch, side, side) in 0..255.

        Augmentations of strength 0 are left out of the graph, whatever their parameters.
        """
        x = ops.cast(images, "float32") * (1 / 255.0)
        side = x.shape[1]
        x = geometry.shrink(x, self.size)
        if self._any("crop", "stretch", "rotation", "flip") or side != self.size:
            x = geometry.move(x, self.size, **_pick(parameters, "zoom stretch angle mirror shift_x shift_y"))
        if self._any("blur", "resolution"):
            x = scanner.low_pass(x, **_pick(parameters, "blur fewer_rows fewer_columns"))
        if self._any("bias", "gamma", "contrast", "brightness"):
            x = scanner.regrade(x, **_pick(parameters, "bias gamma contrast brightness"))
        if self._any("noise"):
            sigma = parameters["noise"] * scanner.head_mean(x)  # white-relative, it would drown dark slices
            x = scanner.add_rician_noise(x, sigma, parameters["noise_uniform"])
        if self._any("haze"):
            x = screenshot.lift_black(x, parameters["haze"])
        if self._any("letterbox"):
            across, down = parameters["bars_x"], parameters["bars_y"]
            x = screenshot.fill_outside(
                x, left=across, right=across, top=down, bottom=down, grey=parameters["bars_grey"]
            )
        if self._any("border"):
            edges = {name: parameters[f"border_{name}"] for name in ("left", "right", "top", "bottom")}
            x = screenshot.fill_outside(x, **edges, grey=parameters["border_grey"])
        x = ops.clip(x, 0.0, 1.0)
        if self._any("depth"):
            x = screenshot.lower_depth(x, parameters["levels"])
        if self._any("jpeg"):
            x = screenshot.jpeg(x, parameters["quality"])
        if self._any("cutout"):
            x = screenshot.hide(
                x, side=parameters["hidden"], left=parameters["hidden_x"], top=parameters["hidden_y"]
            )
        return ops.expand_dims(x * 255.0, -1)

    def _any(self, *names: str) -> bool:
        return any(self.amounts[name] > 0 for name in names)


_EITHER_WAY = ("stretch", "rotation", "gamma", "contrast", "brightness")


def _pick(parameters: Parameters, names: str) -> Parameters:
    return {name: parameters[name] for name in names.split()}
