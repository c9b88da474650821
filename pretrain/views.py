"""Random views of slices, made in the graph from uint8, a whole batch at a time.

Each disturbance stands for something that really differs between two pictures of one slice: the field of view, the
head's position, the scanner's contrast and shading, its noise, a low resolution, a hidden part. Everything is
`keras.ops` and `keras.random`, so it runs on the device and on every backend, and its randomness is one saved seed.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops


class Views(keras.layers.Layer):
    """One random view of every slice in a batch.

    Called on uint8 or float images (batch, height, width) in 0..255; returns float32 (batch, size, size, 1) in
    0..255. With `strength` 0 the images are only resampled to `size`.

    Args:
        size: side of the views in pixels.
        strength: scales every disturbance; 1 is the default set below.
        seed: of all randomness; the generator's state is a variable and is saved with the model.
    """

    # At strength 1. Angles in degrees, lengths as a share of the image's side, intensities as a share of 255.
    SMALLEST_CROP = 0.35  # area of the crop as a share of the image: field of view and zoom
    LARGEST_STRETCH = 0.15  # of the crop's aspect: pixels that are not square
    LARGEST_ROTATION = 25.0  # tilt of the head
    FLIP = 0.5  # left and right are nearly mirror images
    LARGEST_LOG_GAMMA = 0.5  # contrast curve of scanner and screen
    CONTRAST = 0.3  # window width
    BRIGHTNESS = 0.3  # window level, as a share of the slice's mean
    BIAS = 0.35  # coil shading: a smooth field, exp(+-BIAS)
    NOISE = 0.06  # Rician, as in magnitude images (Gudbjartsson & Patz 1995)
    BLUR = 0.8  # largest share of the blurred image that is mixed in: low resolution, motion
    CUTOUT = 0.35  # side of a hidden square

    def __init__(self, size: int, strength: float = 1.0, seed: int = 0, **options: Any):
        super().__init__(dtype="float32", **options)
        self.size, self.strength = size, strength
        self.random = keras.random.SeedGenerator(seed)
        self.seed = seed

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "strength": self.strength, "seed": self.seed}

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.size, self.size, 1)

    def call(self, images):
        x = self._move(ops.expand_dims(ops.cast(images, "float32"), -1) / 255.0)
        if self.strength:
            x = self._blur(x)
            x = self._recontrast(x)
            x = self._add_noise(x)
            x = self._hide(x)
        return ops.clip(x, 0.0, 1.0) * 255.0

    def _uniform(self, count, low, high, *shape):
        return keras.random.uniform((count, *shape), low, high, seed=self.random)

    def _move(self, x):
        """Crop, stretch, rotate and flip in one bilinear resampling."""
        n, height, width = ops.shape(x)[0], x.shape[1], x.shape[2]
        s = self.strength
        one = ops.ones((n,))
        # Output pixel (u, v), from the centre in shares of the side -> input pixel, from the centre in pixels.
        if s:
            area = self._uniform(n, max(0.05, 1 - s * (1 - self.SMALLEST_CROP)), 1.0)
            stretch = ops.exp(self._uniform(n, -s * self.LARGEST_STRETCH, s * self.LARGEST_STRETCH))
            angle = self._uniform(n, -s * self.LARGEST_ROTATION, s * self.LARGEST_ROTATION) * (math.pi / 180)
            flip = ops.where(self._uniform(n, 0.0, 1.0) < self.FLIP, -one, one)
            side = ops.sqrt(area)
            # The crop's centre moves as far as the crop leaves room.
            shift_x = self._uniform(n, -0.5, 0.5) * (1 - side) * width
            shift_y = self._uniform(n, -0.5, 0.5) * (1 - side) * height
        else:
            side, stretch, angle, flip, shift_x, shift_y = one, one, 0 * one, one, 0 * one, 0 * one
        scale_x = side * stretch * (width / self.size)
        scale_y = side / stretch * (height / self.size)
        cos, sin = ops.cos(angle), ops.sin(angle)
        a, b = flip * cos * scale_x, -flip * sin * scale_y
        c, d = sin * scale_x, cos * scale_y
        middle = (self.size - 1) / 2
        x0 = (width - 1) / 2 + shift_x - (a + b) * middle
        y0 = (height - 1) / 2 + shift_y - (c + d) * middle
        zero = ops.zeros((n,))
        transform = ops.stack([a, b, x0, c, d, y0, zero, zero], axis=1)
        # The operation's output is as large as its input: give it the larger of both, and keep the corner.
        grow_h, grow_w = max(0, self.size - height), max(0, self.size - width)
        if grow_h or grow_w:
            x = ops.pad(x, [[0, 0], [0, grow_h], [0, grow_w], [0, 0]])
        moved = ops.image.affine_transform(
            x, transform, interpolation="bilinear", fill_mode="constant", data_format="channels_last"
        )
        return moved[:, : self.size, : self.size, :]

    def _blur(self, x):
        """Mix in a Gaussian-blurred copy; the share decides how blurred a view is."""
        sigma = self.size / 100.0
        reach = max(1, math.ceil(2 * sigma))
        offsets = np.arange(-reach, reach + 1)
        kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
        kernel = (kernel / kernel.sum()).astype("float32")
        rows = ops.convert_to_tensor(kernel.reshape(-1, 1, 1, 1))
        columns = ops.convert_to_tensor(kernel.reshape(1, -1, 1, 1))
        blurred = ops.conv(ops.conv(x, rows, padding="same"), columns, padding="same")
        # Half of the views stay sharp.
        share = (
            ops.maximum(0.0, self._uniform(ops.shape(x)[0], -1.0, 1.0, 1, 1, 1))
            * self.BLUR
            * min(1.0, self.strength)
        )
        return x + share * (blurred - x)

    def _recontrast(self, x):
        """Gamma, window and coil shading; black stays black, as the air around a head does."""
        n, s = ops.shape(x)[0], self.strength
        gamma = ops.exp(self._uniform(n, -s * self.LARGEST_LOG_GAMMA, s * self.LARGEST_LOG_GAMMA, 1, 1, 1))
        x = ops.power(ops.clip(x, 1e-6, 1.0), gamma)
        field = keras.random.normal((n, 4, 4, 1), seed=self.random) * (s * self.BIAS / 2)
        field = ops.image.resize(
            field, (self.size, self.size), interpolation="bilinear", data_format="channels_last"
        )
        contrast = 1 + self._uniform(n, -s * self.CONTRAST, s * self.CONTRAST, 1, 1, 1)
        level = self._uniform(n, -s * self.BRIGHTNESS, s * self.BRIGHTNESS, 1, 1, 1)
        seen = ops.cast(x > 0.02, "float32")
        # About the mean of what is seen: about mid-grey, a dark slice would be blackened altogether.
        x = x * ops.exp(field)
        mean = ops.sum(x * seen, axis=(1, 2), keepdims=True) / (
            ops.sum(seen, axis=(1, 2), keepdims=True) + 1.0
        )
        return ops.clip((x - mean) * contrast + mean * (1 + level), 0.0, 1.0) * seen

    def _add_noise(self, x):
        """Rician noise: the magnitude of a complex signal with normal noise in both parts."""
        n = ops.shape(x)[0]
        sigma = ops.maximum(0.0, self._uniform(n, -1.0, 1.0, 1, 1, 1)) * (self.strength * self.NOISE)
        shape = (n, self.size, self.size, 1)
        real = x + sigma * keras.random.normal(shape, seed=self.random)
        imaginary = sigma * keras.random.normal(shape, seed=self.random)
        return ops.sqrt(real * real + imaginary * imaginary + 1e-12)

    def _hide(self, x):
        """Blacken one square of a random size, in about half of the views."""
        n = ops.shape(x)[0]
        side = ops.maximum(0.0, self._uniform(n, -1.0, 1.0, 1, 1)) * min(1.0, self.strength) * self.CUTOUT
        left = self._uniform(n, 0.0, 1.0, 1, 1) * (1 - side)
        top = self._uniform(n, 0.0, 1.0, 1, 1) * (1 - side)
        at = (ops.arange(self.size, dtype="float32") + 0.5) / self.size
        row, column = ops.reshape(at, (1, -1, 1)), ops.reshape(at, (1, 1, -1))
        hidden = (row >= top) & (row < top + side) & (column >= left) & (column < left + side)
        return x * ops.expand_dims(1.0 - ops.cast(hidden, "float32"), -1)
