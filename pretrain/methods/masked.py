"""Masked reconstruction: hide blocks of a view, and reconstruct them from the encoder's last feature map.

After Tian et al., "Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked Modeling" (SparK), ICLR
2023, https://arxiv.org/abs/2301.03580: masking 60% at the last map's stride; Zhou et al., "Models Genesis", Medical
Image Analysis 2021, https://arxiv.org/abs/2004.07882: an ordinary convolutional encoder on medical images; and Xie et
al., "SimMIM", CVPR 2022, https://arxiv.org/abs/2111.09886: a light decoder is enough.

SparK's sparse convolutions keep hidden areas empty at every depth. This encoder stays the ordinary one that the
classifier will use, so its feature maps cannot be masked again between layers, and it can see the mask's pattern.
Instead, blocks are as large as the last map's stride, so that a hidden one leaves a whole cell of that map without its
own input, and only hidden pixels count, so knowing their positions does not help to draw them.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from mri_transfer.errors import UserError
from mri_transfer.pretrain.methods.method import Method

STRIDE = 32  # pixels per cell of the last feature map in every keras.applications family


def masked_error(pixels: Any, images: Any, hidden: Any) -> Any:
    """Mean squared error over hidden pixels, with each image scaled to mean 0 and variance 1.

    Scaling is per view: scaled per patch (as MAE and SparK do for photographs), the scanner's noise in the air around a
    head would count as much as the head.

    Args:
        pixels: reconstruction in scaled units (n, height, width, 1).
        images: the target (n, height, width, 1) in 0..255.
        hidden: 1 for hidden pixels, else 0, same shape.

    Returns:
        Scalar; about 1 for a constant reconstruction at the mean.
    """
    axes = (1, 2, 3)
    centred = images - ops.mean(images, axis=axes, keepdims=True)
    # One squared grey level, so that an empty view is not amplified.
    target = centred * ops.rsqrt(ops.mean(centred * centred, axis=axes, keepdims=True) + 1.0)
    return ops.sum(hidden * (pixels - target) ** 2) / ops.maximum(ops.sum(hidden), 1.0)


def last_map(encoder: keras.Model) -> Any:
    """The encoder's last feature map (batch, height, width, channels), before it is pooled.

    Raises:
        UserError: no layer has one.
    """
    for layer in reversed(encoder.layers):
        if not isinstance(layer, layers.InputLayer) and len(layer.output.shape) == 4:
            return layer.output
    raise UserError(
        "--method masked: this --backbone has no feature map to reconstruct from; choose another method"
    )


class Masked(Method):
    """Views, some blocks hidden → encoder's last map → two-layer decoder, a block of pixels per cell → error.

    The two views of a pair are just two images; nothing compares them.

    Args:
        encoder, views, plan, seed: as in :class:`Method`.
        share: of blocks that are hidden; SparK's 0.6.
        hidden: the decoder's width.

    Raises:
        UserError: the encoder has no feature map, or its input is smaller than two blocks.
    """

    TITLE = "masked reconstruction"

    def __init__(self, *parts: Any, share: float = 0.6, hidden: int = 512, **common: Any):
        super().__init__(*parts, **common)
        if (side := self.encoder.input_shape[1]) < 2 * STRIDE:
            raise UserError(
                f"--method masked: hides blocks of {STRIDE} pixels, and views of {side} have no room for them; "
                f"give a --size of at least {2 * STRIDE}"
            )
        self.share = share
        feature_map = last_map(self.encoder)
        self._encode = self.plan(keras.Model(self.encoder.input, feature_map, name="encoder_map"))
        self.random = keras.random.SeedGenerator(self.seed + 20)

        hidden_start = keras.initializers.HeNormal(seed=self.seed + 1)
        # Near zero, so that it starts from the mean grey rather than noise.
        pixel_start = keras.initializers.TruncatedNormal(stddev=0.01, seed=self.seed + 2)
        self.decoder = keras.Sequential(
            [
                keras.Input((None, None, feature_map.shape[-1])),
                layers.Conv2D(
                    hidden, 1, use_bias=False, kernel_initializer=hidden_start, name="decoder_conv_0"
                ),
                layers.BatchNormalization(name="decoder_norm_0"),
                layers.ReLU(name="decoder_relu_0"),
                layers.Conv2D(STRIDE**2, 1, kernel_initializer=pixel_start, name="decoder_conv_1"),
            ],
            name="decoder",
        )

    def call(self, batch, training=True):
        """Reconstruction in scaled units, views in 0..255 and mask, each (2 * batch, size, size, 1)."""
        images = self.both_views(batch)
        hidden = self._hidden(ops.shape(images)[0], images.shape[1])
        # Hidden pixels get the mean of the visible ones: black would look like air.
        visible = 1 - hidden
        mean = ops.sum(images * visible, axis=(1, 2, 3), keepdims=True) / (
            ops.sum(visible, axis=(1, 2, 3), keepdims=True)
        )
        features = self._encode(images * visible + mean * hidden)
        blocks = ops.cast(self.decoder(features, training=training), "float32")
        return {"pixels": _assembled(blocks, images.shape[1]), "images": images, "hidden": hidden}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return masked_error(y_pred["pixels"], y_pred["images"], y_pred["hidden"])

    def chance(self, pairs: int) -> float:
        """The error of a constant mean grey."""
        return 1.0

    def _hidden(self, count: Any, size: int) -> Any:
        """1 in the same number of randomly chosen blocks of every image, else 0: (count, size, size, 1)."""
        side = -(-size // STRIDE)
        hidden_count = round(self.share * side**2)
        draw = keras.random.uniform((count, side**2), seed=self.random)
        rank = ops.argsort(ops.argsort(draw, axis=1), axis=1)
        blocks = ops.reshape(ops.cast(rank < hidden_count, "float32"), (-1, side, side, 1))
        return ops.repeat(ops.repeat(blocks, STRIDE, axis=1), STRIDE, axis=2)[:, :size, :size]


def _assembled(blocks: Any, size: int) -> Any:
    """Tile cells of STRIDE x STRIDE pixels (n, rows, columns, STRIDE^2), cropped or stretched to `size`."""
    _, rows, columns, _ = blocks.shape
    x = ops.reshape(blocks, (-1, rows, columns, STRIDE, STRIDE))
    x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4)), (-1, rows * STRIDE, columns * STRIDE, 1))
    if min(rows, columns) * STRIDE < size:  # unpadded convolutions leave a smaller map
        return ops.image.resize(x, (size, size), interpolation="bilinear", data_format="channels_last")
    return x[:, :size, :size]
