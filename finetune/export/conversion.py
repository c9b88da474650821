"""Write a run in another runtime's format, load it back, and keep it only if it says what Keras says."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer import progress
from mri_transfer.errors import UserError
from mri_transfer.finetune.export import litert, onnx, saved_model
from mri_transfer.finetune.export.served import Runner, Served, served
from mri_transfer.finetune.prediction.inputs import find_inputs, read_input
from mri_transfer.storage.files import claim_folder, sha256, write_json
from mri_transfer.words import size_in_words

KIND = "export"
FORMATS = ("saved_model", "litert", "onnx")
# Images that an export is compared on, and as many others that ranges of 8-bit integers are taken from.
COMPARED = 200
SPACING_MM = 4.0  # of slices, where volumes are given
# Float runtimes add up in another order; nothing else may differ.
LARGEST_DIFFERENCE = 2e-3
LEAST_TOP1_INT8 = 0.98
# Features have no top-1: the mean cosine of what both give.
LEAST_COSINE, LEAST_COSINE_INT8 = 0.9999, 0.95


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How an export compares with Keras on the same images.

    Attributes:
        images: compared on.
        top1: share of images with the same most probable class; None for features.
        largest_difference: of two probabilities, or of two features relative to the largest.
        cosine: mean cosine similarity of the two outputs of an image.
    """

    images: int
    top1: float | None
    largest_difference: float
    cosine: float


def agreement(expected: np.ndarray, found: np.ndarray, *, probabilities: bool) -> Agreement:
    """Compare outputs (n, d) of two runtimes."""
    scale = 1.0 if probabilities else max(float(np.abs(expected).max()), 1e-12)
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    cosine = (expected.astype(np.float64) * found).sum(axis=1) / np.maximum(norms, 1e-12)
    return Agreement(
        len(expected),
        float((expected.argmax(-1) == found.argmax(-1)).mean()) if probabilities else None,
        float(np.abs(expected - found).max()) / scale,
        float(cosine.mean()),
    )


def acceptable(found: Agreement, *, int8: bool) -> bool:
    """Whether an export may be kept."""
    if found.top1 is None:
        return found.cosine >= (LEAST_COSINE_INT8 if int8 else LEAST_COSINE)
    if int8:
        return found.top1 >= LEAST_TOP1_INT8
    return found.top1 == 1 and found.largest_difference <= LARGEST_DIFFERENCE


def sample_images(paths: Sequence[Path], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images to compare on and others to calibrate with, uint8 (n, size, size) each, spread over all that are found.

    Raises:
        UserError: a path does not exist or holds nothing that can be read.
    """
    inputs = find_inputs(paths)
    images: list[np.ndarray] = []
    for place in np.unique(np.linspace(0, len(inputs) - 1, 2 * COMPARED).astype(int)):
        with contextlib.suppress(Exception):  # a damaged file among others; Pillow raises nearly anything
            images += [picture.image for picture in read_input(inputs[place], size, SPACING_MM)]
    if not images:
        raise UserError(f"{paths[0]}: none of {len(inputs)} files can be read")
    # A volume has many slices.
    images = [images[i] for i in np.unique(np.linspace(0, len(images) - 1, 2 * COMPARED).astype(int))]
    return np.stack(images[::2]), np.stack(images[1::2] or images)


def images_of_run(run: Path) -> Path:
    """The images that a run was trained on, by its provenance.

    Raises:
        UserError: they are not known or not here any more.
    """
    from mri_transfer.checkpoints.encoders import read_card

    known = (read_card(run).get("provenance") or {}).get("config") or {}
    if known.get("tumors") and Path(known["tumors"]).is_dir():
        return Path(known["tumors"])
    raise UserError(
        f"{run}: the images it was trained on are not here; name some with --images, to compare the export on"
    )


def export_run(
    run: Path, out: Path, *, format: str, int8: bool = False, images: Sequence[Path] = ()
) -> dict[str, Any]:
    """Export a fine-tuning run, or the encoder of a pretraining run.

    Args:
        run: folder of the run.
        out: folder for the files; may hold exports of the same run in other formats.
        format: one of FORMATS.
        int8: with "litert", quantise to 8-bit integers.
        images: files or folders to compare on and calibrate with; by default those the run was trained on.

    Returns:
        {"run", "format", "files": [{"file", "bytes", "sha256", "agreement"}], "output", "classes", "size", "input",
        "commands"}, also written to OUT/FORMAT.json (litert-int8.json with `int8`).

    Raises:
        UserError: the run, an image or the folder can't be used, a package is missing, or the export does not agree
            with Keras, in which case nothing is kept.
    """
    if int8 and format != "litert":
        raise UserError("--int8 goes with --format litert")
    model = served(run)
    compared, calibration = sample_images(images or (images_of_run(run),), model.size)
    expected = model(compared)
    claim_folder(out, KIND)
    part = out / "unfinished"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    entries = []
    try:
        for write, load, what in _exports(format, int8, calibration):
            path = write(model, part)
            found = agreement(expected, load(path)(compared), probabilities=model.output == "probabilities")
            if not acceptable(found, int8=int8):
                raise UserError(
                    f"{what} of {run}: does not agree with Keras on {found.images} images (same class in "
                    f"{'–' if found.top1 is None else format_share(found.top1)}, largest difference "
                    f"{found.largest_difference:.3g}, cosine {found.cosine:.4f}); it was not kept"
                    + ("; leave out --int8, or name more typical images with --images" if int8 else "")
                )
            entries.append((path, what, found))
        files = [_keep(path, out, what, found) for path, what, found in entries]
    finally:
        shutil.rmtree(part, ignore_errors=True)
    commands = [onnx.trtexec(Path(entry["file"]), model.size) for entry in files if format == "onnx"]
    summary: dict[str, Any] = {
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
    write_json(out / (f"{format}-int8.json" if int8 else f"{format}.json"), summary)
    for entry in files:
        share = entry["agreement"]["top1"]
        same = f"same class on {format_share(share)}" if share is not None else "same features"
        progress.say(
            f"{out / entry['file']}: {size_in_words(entry['bytes'])}, {entry['what']}; {same} of "
            f"{entry['agreement']['images']} images, largest difference "
            f"{entry['agreement']['largest_difference']:.2g}"
        )
    for command in commands:
        progress.say(f"on the board: {command}")
    return summary


def format_share(share: float) -> str:
    """In percent, never rounded up to 100."""
    return "100%" if share == 1 else f"{min(99.9, 100 * share):.1f}%"


def _exports(
    format: str, int8: bool, calibration: np.ndarray
) -> list[tuple[Callable[[Served, Path], Path], Callable[[Path], Runner], str]]:
    """How to write and load each file of a format, and what it is."""
    if format == "saved_model":
        return [(saved_model.write, saved_model.load, "SavedModel")]
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


def _keep(path: Path, out: Path, what: str, found: Agreement) -> dict[str, Any]:
    """Move a checked export to its place."""
    final = out / path.name
    if final.is_dir():
        shutil.rmtree(final)
    path.replace(final)
    inside = sorted(part for part in final.rglob("*") if part.is_file()) if final.is_dir() else [final]
    return {
        "file": final.name,
        "what": what,
        "bytes": sum(part.stat().st_size for part in inside),
        "sha256": {str(part.relative_to(out)): sha256(part) for part in inside},
        "agreement": dataclasses.asdict(found),
    }
