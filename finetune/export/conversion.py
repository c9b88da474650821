"""Write a run in another runtime's format, load it back, and keep it only if it agrees with Keras."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer import progress
from mri_transfer.errors import UserError
from mri_transfer.finetune.export import keras_archive, litert, onnx, safetensors, saved_model
from mri_transfer.finetune.export.served import Runner, Served, served
from mri_transfer.finetune.prediction.inputs import find_inputs, read_input
from mri_transfer.machine import device
from mri_transfer.storage.files import claim_folder, sha256, write_json
from mri_transfer.storage.locks import alone_in
from mri_transfer.storage.sums import signed
from mri_transfer.words import size_in_words

KIND = "export"
FORMATS = ("saved_model", "litert", "onnx", "keras", "safetensors")
OF_ENCODERS = ("keras", "safetensors")  # to build on; for a classifier, its encoder
# Images to compare an export on, and as many others to calibrate 8-bit ranges.
COMPARED = 200
SPACING_MM = 4.0  # between slices of volumes
# Float runtimes sum in another order; nothing else may differ.
LARGEST_DIFFERENCE = 2e-3
LEAST_TOP1_INT8 = 0.98
# Features have no top-1: the mean cosine of both outputs.
LEAST_COSINE, LEAST_COSINE_INT8 = 0.9999, 0.95


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How an export compares with Keras on the same images.

    Attributes:
        images: compared on.
        top1: share of images with the same most probable class; None for features.
        largest_difference: between probabilities, or between features relative to the largest.
        cosine: mean cosine similarity of an image's two outputs.
    """

    images: int
    top1: float | None
    largest_difference: float
    cosine: float


def agreement(expected: np.ndarray, actual: np.ndarray, *, probabilities: bool) -> Agreement:
    """Compare outputs (n, d) of two runtimes."""
    scale = 1.0 if probabilities else max(float(np.abs(expected).max()), 1e-12)
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(actual, axis=1)
    cosine = (expected.astype(np.float64) * actual).sum(axis=1) / np.maximum(norms, 1e-12)
    return Agreement(
        len(expected),
        float((expected.argmax(-1) == actual.argmax(-1)).mean()) if probabilities else None,
        float(np.abs(expected - actual).max()) / scale,
        float(cosine.mean()),
    )


def acceptable(result: Agreement, *, int8: bool) -> bool:
    """Whether an export may be kept."""
    if result.top1 is None:
        return result.cosine >= (LEAST_COSINE_INT8 if int8 else LEAST_COSINE)
    if int8:
        return result.top1 >= LEAST_TOP1_INT8
    return result.top1 == 1 and result.largest_difference <= LARGEST_DIFFERENCE


def sample_images(paths: Sequence[Path], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images to compare on and others to calibrate with, uint8 (n, size, size) each, spread over all found.

    Raises:
        UserError: a path does not exist or contains nothing readable.
    """
    inputs = find_inputs(paths)
    images: list[np.ndarray] = []
    chosen = _spread(len(inputs), 2 * COMPARED)
    # A volume has many slices, and those of all volumes may fill the memory.
    most = math.ceil(2 * COMPARED / max(1, len(chosen)))
    for place in chosen:
        with contextlib.suppress(Exception):  # a damaged file among others; Pillow raises nearly anything
            pictures = list(read_input(inputs[place], size, SPACING_MM))
            images += [pictures[i].image.copy() for i in _spread(len(pictures), most)]
    if not images:
        raise UserError(f"{paths[0]}: none of {len(inputs)} files can be read")
    images = [images[i] for i in _spread(len(images), 2 * COMPARED)]
    return np.stack(images[::2]), np.stack(images[1::2] or images)


def _spread(count: int, most: int) -> np.ndarray:
    """At most `most` of `count` places, evenly spread."""
    return np.unique(np.linspace(0, count - 1, most).astype(int)) if count else np.empty(0, int)


def generated_images(size: int) -> np.ndarray:
    """Smooth noise, uint8 (n, size, size): two versions of the same layers differ on any pictures or on none."""
    from scipy import ndimage

    coarse = np.random.default_rng(0).uniform(0, 255, (COMPARED // 4, 8, 8))
    return ndimage.zoom(coarse, (1, size / 8, size / 8), order=1).astype(np.uint8)


def images_of_run(run: Path) -> Path:
    """A run's training images, from its provenance.

    Raises:
        UserError: they are unknown or no longer here.
    """
    from mri_transfer.checkpoints.encoders import read_card

    settings = (read_card(run).get("provenance") or {}).get("config") or {}
    if settings.get("tumors") and Path(settings["tumors"]).is_dir():
        return Path(settings["tumors"])
    raise UserError(
        f"{run}: the images it was trained on are not here; name some with --images, to compare the export on"
    )


def export_run(
    run: Path, out: Path, *, format: str, int8: bool = False, images: Sequence[Path] = ()
) -> dict[str, Any]:
    """Export a fine-tuning run, or the encoder of a pretraining run.

    Args:
        run: the run's folder.
        out: folder for the files; may hold exports of the same run in other formats.
        format: one of FORMATS.
        int8: with "litert", quantise to 8-bit integers.
        images: files or folders to compare on and calibrate with; by default the run's training images, and generated
            ones for encoder formats.

    Returns:
        {"run", "format", "files": [{"file", "bytes", "sha256", "agreement"}], "output", "classes", "size", "input",
        "commands"}, also written to OUT/FORMAT.json (litert-int8.json with `int8`).

    Raises:
        UserError: the run, an image or the folder can't be used, a package is missing, the disk is full, or the export
            disagrees with Keras. Then nothing of it is kept, and previous files stay.
    """
    if int8 and format != "litert":
        raise UserError("--int8 goes with --format litert")
    model = served(run)
    if format in OF_ENCODERS:
        model = model.features_only()
    if format in OF_ENCODERS and not images:
        compared = calibration = generated_images(model.size)
    else:
        compared, calibration = sample_images(images or (images_of_run(run),), model.size)
    expected = model(compared)
    claim_folder(out, KIND)
    with alone_in(out), signed(out, KIND):
        unfinished = out / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        entries = []
        try:
            for write, load, label in _exports(format, int8, calibration):
                with device.writes(out):
                    path = write(model, unfinished)
                result = agreement(
                    expected, load(path)(compared), probabilities=model.output == "probabilities"
                )
                if not acceptable(result, int8=int8):
                    raise UserError(
                        f"{label} of {run}: does not agree with Keras on {result.images} images (same class in "
                        f"{'–' if result.top1 is None else format_share(result.top1)}, largest difference "
                        f"{result.largest_difference:.3g}, cosine {result.cosine:.4f}); it was not kept"
                        + ("; leave out --int8, or name more typical images with --images" if int8 else "")
                    )
                entries.append((path, label, result))
            files = [_entry(path, what, measured) for path, what, measured in entries]
            summary = _summary(run, model, format, files)
            name = f"{format}-int8.json" if int8 else f"{format}.json"
            write_json(unfinished / name, summary)
            # All are written, so no more space is needed.
            for path in (*(path for path, _, _ in entries), unfinished / name):
                if (out / path.name).is_dir():
                    shutil.rmtree(out / path.name)
                path.replace(out / path.name)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    for entry in files:
        share = entry["agreement"]["top1"]
        verdict = f"same class on {format_share(share)}" if share is not None else "same features"
        progress.say(
            f"{out / entry['file']}: {size_in_words(entry['bytes'])}, {entry['what']}; {verdict} of "
            f"{entry['agreement']['images']} images, largest difference "
            f"{entry['agreement']['largest_difference']:.2g}"
        )
    for command in summary["commands"]:
        progress.say(f"on the board: {command}")
    return summary


def _summary(run: Path, model: Served, format: str, files: list[dict[str, Any]]) -> dict[str, Any]:
    commands = [onnx.trtexec(Path(entry["file"]), model.size) for entry in files if format == "onnx"]
    return {
        "run": str(run),
        "weights_sha256": model.weights,
        "format": format,
        "files": files,
        "output": model.output,
        "classes": list(model.classes),
        "size": model.size,
        "input": f"grey images, padded with black to squares and resized to {model.size} px, values 0 to 255",
        "commands": commands,
    }


def format_share(share: float) -> str:
    """In per cent, never rounded up to 100."""
    return "100%" if share == 1 else f"{min(99.9, 100 * share):.1f}%"


def _exports(
    format: str, int8: bool, calibration: np.ndarray
) -> list[tuple[Callable[[Served, Path], Path], Callable[[Path], Runner], str]]:
    """How to write and load each file of a format, and its description."""
    if format == "saved_model":
        return [(saved_model.write, saved_model.load, "SavedModel")]
    if format == "keras":
        return [(keras_archive.write, keras_archive.load, "the encoder, Keras")]
    if format == "safetensors":
        return [(safetensors.write, safetensors.load, "the encoder's weights, safetensors")]
    if format == "litert":
        if int8:
            return [
                (
                    lambda model, folder: litert.write_int8(model, folder, calibration),
                    litert.load,
                    "LiteRT, 8-bit integers",
                )
            ]
        return [(litert.write, litert.load, "LiteRT, float32")]
    return [
        (
            functools.partial(onnx.write, opset=opset),
            onnx.load,
            f"ONNX operator set {opset}, for {runtime}",
        )
        for opset, runtime in onnx.OPSETS.items()
    ]


def _entry(path: Path, label: str, result: Agreement) -> dict[str, Any]:
    """The message about a checked export."""
    inside = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return {
        "file": path.name,
        "what": label,
        "bytes": sum(file.stat().st_size for file in inside),
        "sha256": {str(file.relative_to(path.parent)): sha256(file) for file in inside},
        "agreement": dataclasses.asdict(result),
    }
