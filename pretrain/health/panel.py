"""The slices for health measurements: chosen once by seed, spread over subjects, planes and sequences."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.pretrain.config import PretrainConfig

POSITION_BINS = 5
# Slices encoded at once.
CHUNK = 64


def choose(table: dict[str, np.ndarray], count: int, seed: int) -> np.ndarray:
    """Choose rows of a store's table, as evenly as possible over (sequence, plane), then over subjects.

    A rare sequence appears as often as a common one, or with all its slices; subjects take turns.

    Args:
        table: of a :class:`~mri_transfer.datasets.store.store.SliceStore`.
        count: number of rows; all if the store has fewer.
        seed: for breaking ties.

    Returns:
        int64 (count,), in order of choice: the first m are those of `count=m`.
    """
    kind = _numbered(table["sequence"], table["plane"])
    subjects = _numbered(kind, table["subject"])
    chance = np.random.default_rng([seed, 0x4EA1]).random(len(kind))
    # Every subject's first slice comes before any second one.
    turn_of_subject = _turns(subjects, chance)
    turn_of_kind = _turns(kind, chance, turn_of_subject)
    return np.lexsort((chance, turn_of_kind))[:count].astype(np.int64)


def _numbered(*columns: np.ndarray) -> np.ndarray:
    """A number for every combination of entries."""
    numbers = [np.unique(column, return_inverse=True)[1].reshape(-1) for column in columns]
    combined = numbers[0]
    for others in numbers[1:]:
        combined = combined * (others.max() + 1) + others
    return combined


def _turns(group: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """The rank of each row within its group, sorted by the last key first, as `numpy.lexsort` does."""
    order = np.lexsort((*keys, group))
    sorted_group = group[order]
    first = np.searchsorted(sorted_group, sorted_group, side="left")
    turns = np.empty(len(group), dtype=np.int64)
    turns[order] = np.arange(len(group)) - first
    return turns


def position_bins(table: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Position of rows along the axis, "1" to "5": fifths of the store's slices of the same plane.

    Fifths of slices, not of length: few slices are kept at the ends of a head.
    """
    plane, position = np.asarray(table["plane"]), np.asarray(table["position"], dtype=np.float64)
    bins = np.empty(len(rows), dtype="<U1")
    for name in np.unique(plane[rows]):
        mask = plane[rows] == name
        edges = np.quantile(position[plane == name], np.arange(1, POSITION_BINS) / POSITION_BINS)
        bins[mask] = (1 + np.searchsorted(edges, position[rows][mask], side="right")).astype(str)
    return bins


def free_labels(table: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, dict[str, Any]]:
    """Free labels of slices: arguments of `label_agreement` for each.

    Plane and sequence among all slices; position within the same plane, or it would measure the plane again.
    """
    plane = np.asarray(table["plane"])[rows]
    return {
        "plane": {"labels": plane},
        "sequence": {"labels": np.asarray(table["sequence"])[rows]},
        "position": {"labels": position_bins(table, rows), "within": plane},
    }


class Panel:
    """The chosen slices with their free labels, and views of pairs, at one size.

    Attributes:
        rows: of the store's table, (n,).
        images: uint8 (n, size, size).
        views_a, views_b: uint8 (pairs, size, size), views of each pair's slices, made once.
        labels: arguments of `label_agreement`.
        subject: (n,).
        size: side in pixels.

    Args:
        store: the slices.
        config: the run's seed, positives, strength of views.
        size: of views in pixels.
        count: slices, or all if the store has fewer.
    """

    def __init__(self, store: SliceStore, config: PretrainConfig, size: int, count: int):
        from mri_transfer.pretrain.augmentations.views import Views
        from mri_transfer.pretrain.health.preview import sample_views

        self.size = size
        self.rows = choose(store.table, count, config.seed)
        self.labels = free_labels(store.table, self.rows)
        self.subject = np.asarray(store.table["subject"])[self.rows]
        images = store.images(self.rows)
        if size != store.size:
            keep = Views(size, 0.0)
            images = np.concatenate([_as_bytes(keep(chunk)) for chunk in _chunks(images, CHUNK)])[
                : len(self.rows)
            ]
        self.images = images
        # Pairs and views differ from those of training.
        samples = sample_views(
            store, dataclasses.replace(config, size=size, seed=config.seed + 0x4EA1), pairs_for(count), 1
        )
        self.views_a, self.views_b = samples["views_a"][:, 0], samples["views_b"][:, 0]
        self._embedding: tuple[Any, Any] | None = None

    def features(self, encoder: Any) -> np.ndarray:
        """Features (n, d) of the slices, float32, in inference mode, as in use."""
        parts = [encoder.predict_on_batch(chunk[..., None]) for chunk in _chunks(self.images, CHUNK)]
        return np.concatenate(parts)[: len(self.rows)]

    def embeddings(self, method: Any) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings that the loss compares, of both views of each pair: (pairs, d) twice, float32.

        Uses batch statistics, as moving ones lag behind training; updates nothing.
        """
        if self._embedding is None or self._embedding[0] is not method:
            self._embedding = (method, _as_training(method))
        embed = self._embedding[1]
        half = CHUNK // 2
        parts = []
        for a, b in zip(_chunks(self.views_a, half), _chunks(self.views_b, half), strict=True):
            parts.append(embed(np.concatenate([a, b])[..., None]))
        pairs = len(self.views_a)
        return (
            np.concatenate([chunk[:half] for chunk in parts])[:pairs],
            np.concatenate([chunk[half:] for chunk in parts])[:pairs],
        )


def pairs_for(count: int) -> int:
    """Number of pairs for `count` slices: an eighth, in whole batches of 32."""
    half = CHUNK // 2
    return max(half, min(4 * half, count // 8 // half * half))


def _as_training(method: Any) -> Any:
    """A function that encodes images as training does, changing no variable.

    It runs as a graph: called eagerly, a functional model keeps the outputs of all layers, over two gigabytes for 64
    images of 160 pixels.
    """
    import keras
    from keras import ops

    from mri_transfer.machine import device

    parts = [method.encoder] if method.head is None else [method.encoder, method.head]

    class AsTraining(keras.Model):
        def call(self, x):
            for layer in parts:
                x = _stateless(layer, x)
            return ops.cast(x, "float32")

    model = AsTraining(dtype="float32")
    model.compile(jit_compile=device.jit_compile())
    return model.predict_on_batch


def _stateless(model: Any, x: Any) -> Any:
    trainable = [variable.value for variable in model.trainable_variables]
    state = [variable.value for variable in model.non_trainable_variables]
    return model.stateless_call(trainable, state, x, training=True)[0]


def _chunks(images: np.ndarray, size: int) -> list[np.ndarray]:
    """Batches of one size, so that one graph serves all: the last is padded with its first image."""
    short = -len(images) % size
    if short:
        images = np.concatenate([images, np.repeat(images[:1], short, axis=0)])
    return [images[start : start + size] for start in range(0, len(images), size)]


def _as_bytes(images: Any) -> np.ndarray:
    return np.asarray(images)[..., 0].round().astype(np.uint8)
