"""One picture of a slice store's content, to see at a glance that heads are upright and contrast is sane."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.datasets.volumes.planes import PLANES
from mri_transfer.storage.files import atomic_write

_COLUMNS = 8
_ROWS_OF_A_PLANE = 3
_TILE = 160  # pixels
_LABEL = 30
_GAP = 4


def write_contact_sheet(store: SliceStore, path: Path, banner: str = "") -> None:
    """Write a PNG with up to 24 slices of each plane, spread over sequences, subjects and positions.

    Args:
        store: the slices.
        path: the PNG's.
        banner: a notice above the slices, such as that they were generated.
    """
    rows: list[list[int]] = []
    for plane in (*PLANES, "unknown"):  # pictures may not state their plane
        selection = choose(store, plane, _COLUMNS * _ROWS_OF_A_PLANE)
        rows += [selection[start : start + _COLUMNS] for start in range(0, len(selection), _COLUMNS)]
    width = _GAP + _COLUMNS * (_TILE + _GAP)
    head = _LABEL if banner else 0
    height = head + _GAP + len(rows) * (_TILE + _LABEL + _GAP)
    sheet = Image.new("L", (width, height), 24)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11)
    if banner:
        draw.text((_GAP + 1, 6), banner, fill=255, font=ImageFont.load_default(18))
    for number, indices in enumerate(rows):
        top = head + _GAP + number * (_TILE + _LABEL + _GAP)
        for column, (index, pixels) in enumerate(zip(indices, store.images(indices), strict=True)):
            left = _GAP + column * (_TILE + _GAP)
            tile = Image.fromarray(pixels).resize((_TILE, _TILE), Image.Resampling.BICUBIC)
            sheet.paste(tile, (left, top))
            row = {key: values[index] for key, values in store.table.items()}
            lines = (f"{row['plane']} {row['sequence']} {row['position_mm']:.0f} mm", str(row["subject"]))
            for line, text in enumerate(lines):
                draw.text((left + 1, top + _TILE + 1 + 14 * line), _shorten(text, font), fill=200, font=font)
    with atomic_write(Path(path), "wb") as file:
        sheet.save(file, format="PNG")


def choose(store: SliceStore, plane: str, count: int) -> list[int]:
    """Table rows: sequences in turn, subjects evenly within each, low, middle and high positions."""
    candidates = np.flatnonzero(store.table["plane"] == plane)
    if not len(candidates):
        return []
    sequences = store.table["sequence"][candidates]
    names = np.unique(sequences)
    share = -(-count // len(names))
    indices: list[int] = []
    for name in names:
        rows = candidates[sequences == name]
        volumes = np.unique(store.table["volume"][rows])
        sample = volumes[
            np.linspace(0, len(volumes) - 1, min(share, count - len(indices))).round().astype(int)
        ]
        for turn, volume in enumerate(sample):
            of_volume = rows[store.table["volume"][rows] == volume]
            # A stride of about the golden ratio visits low, high and middle positions in turn.
            place = (0.5 + turn * 0.618034) % 1.0
            indices.append(int(of_volume[int(place * len(of_volume))]))
    return indices


def _shorten(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(text) <= _TILE:
        return text
    while text and font.getlength(text + "…") > _TILE:
        text = text[:-1]
    return text + "…"
