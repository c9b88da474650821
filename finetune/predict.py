"""`mri-transfer predict`: class probabilities of a fine-tuned run for images."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer import device, progress
from mri_transfer.datasets.tumors.files import SUFFIXES, read_grey, square
from mri_transfer.errors import UserError
from mri_transfer.files import atomic_write, require_folder
from mri_transfer.finetune.config import PredictConfig
from mri_transfer.finetune.finetune import KIND


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Files as given, and image files below folders as given, sorted; each once.

    Raises:
        UserError: a path does not exist, or a folder holds no image.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
            )
            if not inside:
                raise UserError(f"{path}: holds no images ({', '.join(SUFFIXES)})")
            found.update(dict.fromkeys(inside))
        elif path.exists():
            found[path] = None
        else:
            raise UserError(f"{path}: no such file or folder")
    return list(found)


def read_images(
    paths: Sequence[Path], size: int, *, strict: bool, skipped: list[dict[str, str]]
) -> Iterator[tuple[Path, np.ndarray]]:
    """Each readable image as uint8 (size, size), prepared as the tumour set is; the others go into `skipped`.

    Raises:
        UserError: an image can't be read and `strict` is set.
    """
    for path in paths:
        try:
            image = square(read_grey(path), size)
        except Exception as error:  # Pillow's readers raise nearly anything for damaged files
            reason = " ".join(str(error).split()) or type(error).__name__
            if strict:
                raise UserError(f"{path}: can't be read as an image ({reason})") from None
            progress.say(f"skipped {path}: {reason}")
            skipped.append({"file": str(path), "reason": reason})
            continue
        yield path, image


def predict(config: PredictConfig) -> dict[str, Any]:
    """Print or write a table of class probabilities.

    Returns:
        {"run", "classes", "images": [{"file", "class", "probabilities": {class: 0..1}}], "skipped"}.

    Raises:
        UserError: the run or an image path can't be used, or no image at all can be read.
    """
    require_folder(config.run, KIND, "finetune")
    paths = find_images(config.images)
    device.prepare()
    from mri_transfer.finetune.classifier import load_classifier

    classifier = load_classifier(config.run)
    classifier.encoder.compile(jit_compile=device.jit_compile())
    skipped: list[dict[str, str]] = []
    rows: list[dict[str, Any]] = []

    def flush(batch: list[tuple[Path, np.ndarray]]) -> None:
        if not batch:
            return
        names, images = zip(*batch, strict=True)
        for name, found in zip(names, classifier.probabilities(np.stack(images), desc=None), strict=True):
            rows.append(
                {
                    "file": str(name),
                    "class": classifier.classes[int(found.argmax())],
                    "probabilities": {k: float(p) for k, p in zip(classifier.classes, found, strict=True)},
                }
            )
        batch.clear()

    batch: list[tuple[Path, np.ndarray]] = []
    with progress.bar(total=len(paths), desc="images", unit="image") as bar:
        for path, image in read_images(paths, classifier.size, strict=config.strict, skipped=skipped):
            batch.append((path, image))
            if len(batch) == config.batch:
                flush(batch)
                bar.update(len(rows) + len(skipped) - bar.n)
        flush(batch)
        bar.update(len(rows) + len(skipped) - bar.n)
    if not rows:
        raise UserError(f"{config.images[0]}: none of {len(paths)} files can be read as an image")
    if config.csv is not None:
        with atomic_write(config.csv) as file:
            write_csv(file, rows, classifier.classes)
        progress.say(f"{len(rows)} images: {config.csv}")
    else:
        progress.show(table(rows, classifier.classes))
    if skipped:
        progress.say(f"{len(skipped)} of {len(paths)} files skipped")
    return {
        "run": str(config.run),
        "classes": list(classifier.classes),
        "images": rows,
        "skipped": skipped,
    }


def write_csv(file: Any, rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> None:
    """One row an image: file, class, one probability a class."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["file", "class", *classes])
    for row in rows:
        writer.writerow(
            [row["file"], row["class"], *(f"{row['probabilities'][name]:.6f}" for name in classes)]
        )


def table(rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> str:
    """The rows as columns to read, the longest file name deciding the width."""
    width = max(len("image"), *(len(row["file"]) for row in rows))
    heads = [name.removesuffix("_tumor").replace("_", " ") for name in classes]
    out = io.StringIO()
    print("image".ljust(width), *(head.rjust(max(10, len(head))) for head in heads), file=out)
    for row in rows:
        cells = [
            f"{row['probabilities'][name]:.3f}{'*' if name == row['class'] else ' '}".rjust(
                max(10, len(head))
            )
            for name, head in zip(classes, heads, strict=True)
        ]
        print(row["file"].ljust(width), *cells, file=out)
    print("* the most probable class. A research figure, not a diagnosis.", file=out)
    return out.getvalue()
