"""Generated heads on disk: NIfTI volumes to pretrain on, and class folders of JPEG slices to classify.

They substitute for data in the demo and in tests. Every file or folder says so.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits

from mri_transfer.datasets.synthetic.anatomy import Axes, Head, Shape
from mri_transfer.datasets.synthetic.contrasts import CONTRASTS, acquire
from mri_transfer.datasets.synthetic.lesions import KINDS, Lesion, add_lesion
from mri_transfer.datasets.synthetic.note import FILE, NOTE
from mri_transfer.datasets.tumors.tumors import CLASSES
from mri_transfer.machine.device import cores
from mri_transfer.progress import bar
from mri_transfer.storage.files import atomic_write, write_json

FIELD = ((-94.0, 94.0), (-114.0, 128.0), (-128.0, 98.0))  # mm: left to right, back to front, bottom to top
PREFIXES = {"glioma_tumor": "gg (", "meningioma_tumor": "m (", "no_tumor": "image(", "pituitary_tumor": "p ("}


def _grid(spacing: float) -> Axes:
    return tuple(np.arange(low, high, spacing) for low, high in FIELD)  # type: ignore[return-value]


def _write_note(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / FILE) as file:
        file.write(NOTE)


def write_volumes(
    folder: str | os.PathLike[str], subjects: int, seed: int = 0, *, spacing: float = 2.0
) -> list[Path]:
    """Write a BIDS-like folder of generated heads, two or three contrasts each, half of them with a lesion.

    Most are stored as RAS; every second subject's arrays have another orientation, and every FLAIR has slices three
    times as thick, like hospital scans.

    Args:
        folder: created if missing.
        subjects: number of heads.
        seed: the same seed gives the same heads.
        spacing: mm between voxels.

    Returns:
        The files written.
    """
    folder = Path(folder)
    _write_note(folder)
    write_json(
        folder / "dataset_description.json", {"Name": "generated heads, no evidence", "BIDSVersion": "1.8.0"}
    )
    rngs = np.random.default_rng(seed).spawn(subjects)
    with (
        threadpool_limits(1),
        ThreadPoolExecutor(cores()) as pool,
    ):  # NumPy releases the GIL in its loops
        work = pool.map(lambda number: _write_subject(folder, number, rngs[number], spacing), range(subjects))
        return [
            path
            for paths in bar(work, desc="generating heads", unit="head", total=subjects)
            for path in paths
        ]


def _write_subject(folder: Path, number: int, rng: np.random.Generator, spacing: float) -> list[Path]:
    axes = _grid(spacing)
    head = Head(axes, Shape.draw(rng))
    if number % 2:
        add_lesion(head, Lesion.draw(KINDS[number // 2 % len(KINDS)], rng))
    name = f"sub-generated{number + 1:02d}"
    place = folder / name / "anat"
    place.mkdir(parents=True, exist_ok=True)
    files = []
    for contrast in (("T1w", "FLAIR"), ("T1w", "T1c", "T2w"), ("T1c", "FLAIR"))[number % 3]:
        image = acquire(head.labels, axes, contrast, rng)
        affine = np.diag([spacing, spacing, spacing, 1.0])
        affine[:3, 3] = [axis[0] for axis in axes]
        if contrast == "FLAIR":  # thick slices: the mean of three
            depth = image.shape[2] // 3 * 3
            image = image[:, :, :depth].reshape(*image.shape[:2], -1, 3).mean(axis=3)
            affine = affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 3, 1], [0, 0, 0, 1.0]])
        values = np.round(image * rng.uniform(400, 1500)).astype(np.int16)
        volume = nib.Nifti1Image(values, affine)
        if number % 2:
            orientation = nib.orientations.axcodes2ornt(("LPS", "PSR")[number // 2 % 2])
            volume = volume.as_reoriented(
                nib.orientations.ornt_transform(nib.io_orientation(affine), orientation)
            )
        volume.header["descrip"] = f"generated head, no evidence: {contrast}".encode()
        volume.header.set_xyzt_units("mm")
        path = place / f"{name}_{'ce-gd_T1w' if contrast == 'T1c' else contrast}.nii.gz"
        with atomic_write(path, "wb") as file:
            file.write(_gzipped(volume))
        files.append(path)
    return files


def _gzipped(volume: nib.Nifti1Image) -> bytes:
    import gzip

    return gzip.compress(volume.to_bytes(), compresslevel=1, mtime=0)


@dataclass(frozen=True)
class Written:
    """What :func:`write_tumors` wrote; paths are relative to its folder."""

    files: list[str]
    identical: list[tuple[str, str]]  # (test, training) with the same pixels
    near: list[tuple[str, str]]  # (test, training) with almost the same picture


def write_tumors(
    folder: str | os.PathLike[str], per_class: int, seed: int = 0, one_each: bool = False
) -> Written:
    """Write `Training` and `Testing` folders of generated slices in the four classes, with leaks planted.

    Each head gives three to five neighbouring slices in one plane, with consecutive numbers. Contrast, plane, size in
    pixels and level have the same distribution in all classes. In every class one test image repeats a training image
    pixel for pixel (every second one in a file with other bytes), and one is a shrunk, re-compressed training image.

    Args:
        folder: created if missing.
        per_class: images per class in both splits together, excluding the two planted ones.
        seed: the same seed gives the same images.
        one_each: instead one slice per head, axial and contrast-enhanced: as many people as images, so that few images
            are as informative as possible.
    """
    folder = Path(folder)
    _write_note(folder)
    rng = np.random.default_rng(seed)
    jobs = []
    for label, name in enumerate(CLASSES):
        left = {"Training": per_class - per_class // 4, "Testing": per_class // 4}
        number = dict.fromkeys(left, 1)
        for split in left:
            while left[split]:
                count = 1 if one_each else min(left[split], int(rng.integers(3, 6)))
                prefix = "image(" if split == "Testing" else PREFIXES[name]
                paths = [f"{split}/{name}/{prefix}{number[split] + k}).jpg" for k in range(count)]
                jobs.append((label, paths, rng.spawn(1)[0], one_each))
                number[split] += count
                left[split] -= count
            (folder / split / name).mkdir(parents=True, exist_ok=True)
    with threadpool_limits(1), ThreadPoolExecutor(cores()) as pool:
        work = pool.map(lambda job: _write_slices(folder, *job), jobs)
        for _ in bar(work, desc="generating tumour images", unit="patient", total=len(jobs)):
            pass
    identical, near = [], []
    for label, name in enumerate(CLASSES):
        train = sum(len(paths) for job, paths, *_ in jobs if job == label and paths[0].startswith("Training"))
        first = per_class // 4 + 1
        copied, shrunk = (
            f"Training/{name}/{PREFIXES[name]}{n}).jpg" for n in (1 + train // 3, 1 + train * 2 // 3)
        )
        copy, other = (f"Testing/{name}/image({first + k}).jpg" for k in range(2))
        # A comment in the file changes its bytes but not its pixels.
        content = (folder / copied).read_bytes()
        remark = b"\xff\xfe\x00\x0bgenerated" if label % 2 else b""
        (folder / copy).write_bytes(content[:2] + remark + content[2:])
        with Image.open(folder / shrunk) as image:
            smaller = image.resize((image.width * 4 // 5, image.height * 4 // 5), Image.Resampling.BICUBIC)
        (folder / other).write_bytes(_jpeg(smaller, 70))
        identical.append((copy, copied))
        near.append((other, shrunk))
    files = [path for _, paths, *_ in jobs for path in paths] + [pair[0] for pair in identical + near]
    return Written(sorted(files), identical, near)


def _write_slices(
    folder: Path, label: int, paths: Sequence[str], rng: np.random.Generator, plain: bool = False
) -> None:
    """Neighbouring slices of one head in one plane, through the lesion if there is one.

    Args:
        plain: axial and contrast-enhanced, whatever the random draws.
    """
    kind = CLASSES[label].split("_")[0]
    shape = Shape.draw(rng)
    # Heads without a lesion are cut where one could have been.
    lesion = Lesion.draw(kind if kind in KINDS else str(rng.choice(KINDS)), rng)
    plane = int(rng.integers(3))  # stacking axis of the slices: sagittal, coronal, axial
    plane = 2 if plain else plane
    spacing = rng.uniform(1.2, 1.6)
    axes = list(_grid(spacing))
    step = rng.uniform(3.5, 5)
    middle = lesion.centre[plane] * shape.scale[plane]
    axes[plane] = middle + step * (np.arange(len(paths)) - (len(paths) - 1) / 2 + rng.uniform(-0.3, 0.3))
    head = Head((axes[0], axes[1], axes[2]), shape)
    if kind in KINDS:
        add_lesion(head, lesion)
    contrast = str(rng.choice(("T1c", *CONTRASTS), p=(0.75, 0.05, 0.05, 0.1, 0.05)))
    contrast = "T1c" if plain else contrast
    blur = tuple(0.0 if axis == plane else 0.6 for axis in range(3))
    stack = acquire(head.labels, head.axes, contrast, rng, noise=rng.uniform(0.01, 0.035), blur=blur)  # type: ignore[arg-type]  # three of them
    gain, gamma = rng.uniform(0.75, 1.15), rng.uniform(0.8, 1.35)
    stack = np.round(255 * np.clip(gain * stack, 0, 1) ** gamma).astype(np.uint8)
    if plane == 0:  # the last axis becomes columns: nose left, crown up
        slices = stack[:, ::-1, ::-1].transpose(0, 2, 1)
    elif plane == 1:  # radiological: the head's right on the viewer's left
        slices = stack[::-1, :, ::-1].transpose(1, 2, 0)
    else:
        slices = stack[::-1, ::-1, :].transpose(2, 1, 0)
    side = int(rng.choice((192, 224, 256, 320)))
    margins = rng.uniform(0, 0.08, 4)
    for path, picture in zip(paths, slices, strict=True):
        height, width = picture.shape
        box = (margins[0] * width, margins[1] * height, (1 - margins[2]) * width, (1 - margins[3]) * height)
        size = (side, round(side * (box[3] - box[1]) / (box[2] - box[0])))
        image = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC, box=box)
        (folder / path).write_bytes(_jpeg(image.convert("RGB"), int(rng.integers(85, 96))))


def _jpeg(image: Image.Image, quality: int) -> bytes:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return content.getvalue()
