"""`mri-transfer predict`: a fine-tuned run's class probabilities for images and volumes, and what it can't judge."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mri_transfer import progress
from mri_transfer.datasets.volumes.formats.stored import quiet_libraries
from mri_transfer.errors import UserError
from mri_transfer.finetune.config import RUN_KIND, PredictConfig
from mri_transfer.finetune.prediction.activation_pictures import CAPTION, beside
from mri_transfer.finetune.prediction.inputs import Input, Picture, find_inputs, read_input, reason_of
from mri_transfer.finetune.prediction.predictions_table import table, write_csv
from mri_transfer.finetune.prediction.volume_answer import volume_answer
from mri_transfer.machine import device
from mri_transfer.storage.files import atomic_write, finite, name_with, require_folder, require_place
from mri_transfer.storage.locks import clear_parts
from mri_transfer.words import counted

SHOWN = 5  # skipped files to report before reading

if TYPE_CHECKING:
    from mri_transfer.finetune.heads.classifier import Classifier
    from mri_transfer.finetune.prediction.out_of_distribution import InDistribution


def predict(config: PredictConfig) -> dict[str, Any]:
    """Print or write a table of class probabilities.

    Returns:
        {"run", "classes", "images", "volumes", "skipped", "out_of_distribution"}: an entry per image or slice, with
        "file", "class", "probabilities" ({class: 0..1}), "out_of_distribution" (bool; None if the run can't tell),
        "why" (sentences), "distance" and "threshold" of its features, and for slices also "plane", "position_mm" and
        "position"; an entry per volume, from :func:`~.volume_answer.volume_answer`; skipped files and why; and the
        number of images out of distribution.

    Raises:
        UserError: the run or an image path can't be used, no image can be read, or one can't and `strict`.
    """
    require_folder(config.run, RUN_KIND, "finetune")
    if config.csv is not None:
        require_place(config.csv, "--csv")
    skipped: list[dict[str, str]] = []
    inputs = find_inputs(config.images, skipped)
    _tell_skipped(skipped, config)
    if config.gradcam is not None and config.gradcam.exists() and not config.gradcam.is_dir():
        raise UserError(f"{config.gradcam}: is a file; --gradcam takes a folder for the pictures")
    device.prepare()
    from mri_transfer.finetune.heads.classifier import load_classifier
    from mri_transfer.finetune.prediction.out_of_distribution import load_in_distribution

    classifier = load_classifier(config.run)
    distribution = load_in_distribution(config.run, int(classifier.encoder.output_shape[-1]))
    if distribution is None:
        progress.say(
            f"{config.run}: holds no figures of its training images, so images unlike them go unnoticed; run "
            "`mri-transfer finetune` again, into a new folder"
        )
    judge = _Judge(classifier, distribution, config.gradcam)
    batch: list[Picture] = []
    with progress.bar(total=len(inputs), desc="images", unit="file") as bar:
        for picture in _pictures(inputs, classifier.size, config, skipped, bar):
            batch.append(picture)
            if len(batch) == config.batch:
                judge(batch)
                batch = []
        judge(batch)
    rows = judge.rows
    if not rows:
        first = f" ({skipped[0]['file']}: {skipped[0]['reason']})" if skipped else ""
        raise UserError(f"{config.images[0]}: nothing that can be read as an image or a volume{first}")
    by_file: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_file.setdefault(row["file"], []).append(row)
    volumes = [
        volume_answer(entry.name, by_file[entry.name], classifier.classes)
        for entry in inputs
        if entry.source is not None and entry.name in by_file
    ]
    strange = sum(bool(row["out_of_distribution"]) for row in rows)
    if config.csv is not None:
        clear_parts(config.csv.parent, config.csv.name)
        with atomic_write(config.csv) as file:
            write_csv(file, rows, classifier.classes)
        progress.say(f"{counted(len(rows), 'image')}: {config.csv}")
    else:
        progress.show(table(rows, classifier.classes, volumes))
    if config.gradcam is not None:
        progress.say(f"class activation maps, {len(rows)} pictures: {config.gradcam}. {CAPTION}")
    if strange:
        progress.say(
            f"{strange} of {len(rows)} images are unlike the training images: don't rely on their classes. The others "
            "may show a disease that was never trained on: such images mostly look like the training images"
        )
    if skipped:
        progress.say(f"{counted(len(skipped), 'file')} skipped")
    return {
        "run": str(config.run),
        "classes": list(classifier.classes),
        "images": finite(rows),  # a threshold without held-out images is infinite
        "volumes": volumes,
        "skipped": skipped,
        "out_of_distribution": strange,
    }


def _tell_skipped(skipped: Sequence[dict[str, str]], config: PredictConfig) -> None:
    """Report unusable files that were named or found in folders.

    Raises:
        UserError: one was named, and `strict`.
    """
    names = {str(path) for path in config.images}
    for entry in skipped if config.strict else ():
        if entry["file"] in names:
            raise UserError(f"{entry['file']}: can't be read as a volume ({entry['reason']})")
    for entry in skipped[:SHOWN]:
        progress.say(f"skipped {entry['file']}: {entry['reason']}")
    if len(skipped) > SHOWN:
        progress.say(f"and {len(skipped) - SHOWN} more; --json FILE lists them")


def _pictures(
    inputs: Sequence[Input], size: int, config: PredictConfig, skipped: list[dict[str, str]], bar: Any
) -> Iterator[Picture]:
    """Every readable picture; unreadable ones are reported and noted, or fatal."""
    for entry in inputs:
        try:
            with quiet_libraries():
                pictures = list(read_input(entry, size, config.spacing))
        except Exception as error:  # Pillow's readers raise nearly anything for damaged files
            reason = reason_of(error)
            if config.strict:
                form = "an image" if entry.source is None else "a volume"
                raise UserError(f"{entry.name}: can't be read as {form} ({reason})") from None
            progress.say(f"skipped {entry.name}: {reason}")
            skipped.append({"file": entry.name, "reason": reason})
            pictures = []
        yield from pictures
        bar.update(1)


class _Judge:
    """Classifies batches of pictures into rows of the result."""

    def __init__(self, classifier: Classifier, distribution: InDistribution | None, gradcam: Path | None):
        from mri_transfer.finetune.prediction.class_activation import Explainer

        self.classifier, self.distribution, self.gradcam = classifier, distribution, gradcam
        self.rows: list[dict[str, Any]] = []
        self.explain = None
        self._names: set[str] = set()
        if gradcam is not None:
            self.explain = Explainer(classifier)
            gradcam.mkdir(parents=True, exist_ok=True)
            clear_parts(gradcam)
        else:
            classifier.encoder.compile(jit_compile=device.jit_compile())

    def __call__(self, batch: Sequence[Picture]) -> None:
        if not batch:
            return
        from mri_transfer.finetune.heads.features import extract_features

        images, activation = np.stack([picture.image for picture in batch]), None
        if self.explain is not None:
            maps = self.explain(images)
            features, probabilities, activation = maps.features, maps.probabilities, maps.activation
        else:
            features = extract_features(self.classifier.encoder, images, None)
            probabilities = self.classifier.probabilities_of(features)
        distances = self.distribution.distances(features) if self.distribution else [None] * len(batch)
        for number, (picture, shares, distance) in enumerate(
            zip(batch, probabilities, distances, strict=True)
        ):
            row = self._row(picture, shares, None if distance is None else float(distance))
            if activation is not None and self.gradcam is not None:
                overlaid = beside(picture.image, activation[number, int(shares.argmax())])
                path = self.gradcam / self._file_name(picture)
                with atomic_write(path, "wb") as file:
                    Image.fromarray(overlaid).save(file, format="PNG")
                row["gradcam"] = str(path)
            self.rows.append(row)

    def _row(self, picture: Picture, shares: np.ndarray, distance: float | None) -> dict[str, Any]:
        classes, distribution = self.classifier.classes, self.distribution
        why = [f"it seems to {reason}" for reason in picture.strange]
        if distribution is not None and distance is not None and not distance <= distribution.threshold:
            why.append(
                f"its features are further from the training images' than {distribution.quantile:.0%} of others are"
            )
        return {
            "file": picture.file,
            **(picture.place or {}),
            "class": classes[int(shares.argmax())],
            "probabilities": {name: float(share) for name, share in zip(classes, shares, strict=True)},
            "out_of_distribution": bool(why) if why or distribution is not None else None,
            "why": why,
            "distance": distance,
            "threshold": None if distribution is None else distribution.threshold,
        }

    def _file_name(self, picture: Picture) -> str:
        """A unique name per picture: the file's, with the slice's place."""
        stem = re.sub(r"(\.nii)?\.[A-Za-z0-9]+$", "", Path(picture.file).name) or "image"
        if picture.place is not None:
            stem += f"-{picture.place['plane']}{picture.place['position_mm']:+.1f}mm"
        name, number = name_with(stem, ".png"), 1
        while name in self._names:
            number += 1
            name = name_with(stem, f"-{number}.png")
        self._names.add(name)
        return name
