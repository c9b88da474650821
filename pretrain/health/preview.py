"""Shows slices beside their random views, to check before spending a night on them."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mri_transfer import progress
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.machine import device
from mri_transfer.pretrain.augmentations.table import AUGMENTATIONS, Augmentation, amounts
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.methods import METHODS
from mri_transfer.pretrain.pairs.positives import PairSampler
from mri_transfer.storage.files import atomic_write

PAIRS, EACH = 8, 3
_ALONE = 4  # slices that take turns showing single augmentations
_GAP, _MIDDLE, _MARGIN = 4, 28, 20
_CAPTION, _TITLE = 24, 64
_PAPER, _INK, _MUTED = 228, 20, 80  # neither black nor white, as frames and bars are


def sample_views(store: SliceStore, config: PretrainConfig, pairs: int, count: int) -> dict[str, np.ndarray]:
    """Pairs that a run with this configuration would see, and views of both slices.

    Args:
        store: the slices.
        config: of the run; its seed decides the draw.
        pairs: number of pairs.
        count: views per slice.

    Returns:
        "a", "b": uint8 (pairs, size, size), the slices, only resampled; "views_a", "views_b": uint8 (pairs, each, size,
        size); "index_a", "index_b": int (pairs,), rows in the store's table; "kind": str (pairs,), kind of positive.
    """
    device.prepare()
    from mri_transfer.pretrain.augmentations.views import Views

    sampler = PairSampler(
        store,
        positives=config.positives,
        max_mm=config.max_mm,
        batch=pairs,
        seed=config.seed,
        **METHODS[config.method].batches,
    )
    make = Views(config.size or store.size, config.strength, config.seed, config.strengths)
    index_a, index_b, kind = sampler.pairs(0)
    samples = {"kind": kind}
    for side, index in (("a", index_a), ("b", index_b)):
        images = store.images(index)
        samples[f"index_{side}"], samples[side] = index, _plain(images, make.size)
        samples[f"views_{side}"] = np.stack([_grey(make(images)) for _ in range(count)], axis=1)
    return samples


def single_augmentations(
    images: np.ndarray, config: PretrainConfig, size: int, count: int
) -> dict[str, np.ndarray]:
    """Every augmentation alone, at this configuration's maximum.

    Args:
        images: uint8 (n, side, side); augmentations take turns on them.
        config: of the run.
        size: of views, pixels.
        count: views per slice.

    Returns:
        By name, uint8 (1 + each, size, size): the slice and its views. Strength 0 is omitted.
    """
    device.prepare()
    from mri_transfer.pretrain.augmentations.views import Views

    amount_of = amounts(config.strength, config.strengths)
    by_name = {}
    for number, name in enumerate(name for name, amount in amount_of.items() if amount):
        alone = {other: (config.strengths.get(other, 1.0) if other == name else 0.0) for other in amount_of}
        views = Views(size, config.strength, config.seed + number, alone)
        image = images[number % len(images)][None]
        repeated = np.repeat(image, count, axis=0)
        pictures = _grey(views.apply(repeated, views.draw(count, full=name)))
        by_name[name] = np.concatenate([_plain(image, size), pictures])
    return by_name


def _plain(images: np.ndarray, size: int) -> np.ndarray:
    """Slices resampled to view size, otherwise unchanged."""
    from mri_transfer.pretrain.augmentations.views import Views

    return _grey(Views(size, 0.0)(images))


def _grey(views: Any) -> np.ndarray:
    return np.asarray(views)[..., 0].round().astype(np.uint8)


def draw_views(store: SliceStore, config: PretrainConfig) -> dict[str, Any]:
    """Write a PNG: pairs of slices with views of both, and every augmentation alone at its full strength.

    Returns:
        "preview", the file; "pairs", their number; "kinds", the kind of each; "augmentations", those shown.
    """
    assert config.preview is not None
    samples = sample_views(store, config, PAIRS, EACH)
    size = samples["a"].shape[1]
    # On slices with much content.
    rows = np.argsort(-(samples["a"] > 25).mean((1, 2)), kind="stable")[:_ALONE]
    alone = single_augmentations(store.images(samples["index_a"][rows]), config, size, EACH)
    sheet = _Sheet(tile=min(max(size, 128), 192), columns=2 * (1 + EACH))
    sheet.title(
        f"Pairs, as a run with these settings draws them ({config.positives}, strength {config.strength:g})",
        f"Each half: the slice as it is, then {EACH} views of it, {size} pixels. A run pulls views of the two halves "
        "together.",
    )
    for row in range(PAIRS):
        for half, side in enumerate("ab"):
            tiles = [samples[side][row], *samples[f"views_{side}"][row]]
            sheet.tiles(half, _caption(store, samples, row, side), tiles)
    sheet.title(
        "Every augmentation alone, as strong as it gets",
        f"Each block: the slice as it is, then {EACH} views of it. In a run most are weaker and few come together.",
    )
    by_name = {augmentation.name: augmentation for augmentation in AUGMENTATIONS}
    for number, (name, pictures) in enumerate(alone.items()):
        sheet.tiles(number % 2, _describe(by_name[name]), list(pictures))
    if off := [name for name in by_name if name not in alone]:
        sheet.title("", f"Switched off: {', '.join(off)}.")
    with atomic_write(config.preview, "wb") as file:
        sheet.image().save(file, format="PNG")
    progress.say(
        f"{config.preview}: {PAIRS} pairs with {EACH} views of each slice, and {len(alone)} augmentations alone"
    )
    return {
        "preview": str(config.preview),
        "pairs": PAIRS,
        "kinds": samples["kind"].tolist(),
        "augmentations": list(alone),
    }


def _caption(store: SliceStore, samples: dict[str, np.ndarray], row: int, side: str) -> str:
    index_a, index_b = int(samples["index_a"][row]), int(samples["index_b"][row])
    index, table = index_a if side == "a" else index_b, store.table
    place = f"{table['plane'][index]} {table['sequence'][index]} at {round(table['position_mm'][index])} mm"
    if side == "a":
        return f"{table['subject'][index]}: {place}"
    if index_a == index_b:
        return f"{samples['kind'][row]}, the slice itself: {place}"
    apart = abs(table["position_mm"][index_a] - table["position_mm"][index_b])
    return f"{samples['kind'][row]}, {apart:.1f} mm apart: {place}"


def _describe(augmentation: Augmentation) -> str:
    often = "all views" if augmentation.share == 1 else f"{augmentation.share:.0%} of views"
    return f"{augmentation.name}, {often}: {augmentation.stands_for}"


class _Sheet:
    """A page of tiles in two halves, filled from the top."""

    def __init__(self, tile: int, columns: int):
        self._tile, self._half = tile, columns // 2 * (tile + _GAP) - _GAP
        self._width = 2 * _MARGIN + 2 * self._half + _MIDDLE
        self._page = Image.new("L", (self._width, _MARGIN), _PAPER)
        self._top = _MARGIN  # of the current row
        self._large, self._small = ImageFont.load_default(20), ImageFont.load_default(13)

    def _grow(self, height: int) -> ImageDraw.ImageDraw:
        page = Image.new("L", (self._width, max(self._page.height, self._top + height)), _PAPER)
        page.paste(self._page, (0, 0))
        self._page = page
        return ImageDraw.Draw(page)

    def title(self, text: str, below: str) -> None:
        self._top = self._page.height
        draw = self._grow(_TITLE if text else _CAPTION)
        if text:
            draw.text((_MARGIN, self._top + 6), text, fill=_INK, font=self._large)
        draw.text((_MARGIN, self._top + (36 if text else 0)), below, fill=_MUTED, font=self._small)
        self._top = self._page.height

    def tiles(self, half: int, caption: str, tiles: list[np.ndarray]) -> None:
        """A caption and images below it in the left (0) or right (1) half; the left one begins a new row."""
        if half == 0:
            self._top = self._page.height
        draw = self._grow(_CAPTION + self._tile + 2 * _GAP)
        left = _MARGIN + half * (self._half + _MIDDLE)
        draw.text((left, self._top + 5), self._fit(caption), fill=_INK, font=self._small)
        for number, pixels in enumerate(tiles):
            tile = Image.fromarray(pixels)
            if tile.width != self._tile:
                tile = tile.resize((self._tile, self._tile), Image.Resampling.BICUBIC)
            self._page.paste(tile, (left + number * (self._tile + _GAP), self._top + _CAPTION))

    def _fit(self, text: str) -> str:
        if self._small.getlength(text) <= self._half:
            return text
        while text and self._small.getlength(text + "…") > self._half:
            text = text[:-1]
        return text + "…"

    def image(self) -> Image.Image:
        page = Image.new("L", (self._width, self._page.height + _MARGIN), _PAPER)
        page.paste(self._page, (0, 0))
        return page
