"""Distance of an image's features from the training images': is it anything the classifier knows?

A classifier of four kinds of heads calls a photograph one of them, often confidently. So a run keeps the mean and
covariance of its training images' features, and an image counts as out of distribution if its squared Mahalanobis
distance (Lee et al. 2018, arXiv:1807.03888, with one mean for all classes, as in Ren et al. 2021, arXiv:2106.09022,
MD_0) exceeds that of nearly all held-out images. A few hundred images don't determine the covariance of d features in
every direction: the largest directions are kept and the rest share one variance, as in probabilistic principal
components (Tipping & Bishop 1999, doi:10.1111/1467-9868.00196).

On the public four-class set (ImageNet features at 96 px, grouped folds: three to describe, one for the threshold, one
to test, in turn), it marks 2.0% of the test images, 97% of 20 photographs, both pages of text, 96% of 20 pictures of
noise, all of 4 DICOM images that show no whole head, and 42% of 8 blank pictures and shadings (flat ones are recognised
by content; see :mod:`mri_transfer.finetune.prediction.inputs`). It marks 27% (IXI, healthy, all planes) and 16% (TCGA,
axial) of other sources' head slices. Keeping 64 or 512 directions changed none of these by more than 3 points; without
dividing features by their deviation, it marks no noise. A mean per class (Lee et al.) gave the same on the one fold
tried. No knee image was available.

Of a tumour class left out of training it marks 2.8 to 3.4%, of heads without a tumour 14% (ImageNet features at 112 px,
benchmarks/left_out.py): it does not find unknown diseases.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mri_transfer.checkpoints.encoders import read_card
from mri_transfer.errors import UserError
from mri_transfer.finetune.heads.probe import standardisation, standardise
from mri_transfer.storage.arrays import check_shapes, not_finite, read_arrays, write_arrays
from mri_transfer.storage.files import Kind, read_object, write_card

FORMAT = 1
CARD = "familiarity.json"
ARRAYS = ("mean", "scale", "directions", "variances")
REMEDY = "run `mri-transfer finetune` again into a new folder"
EXPLAINED = 0.9  # of the variance, by the kept directions
MOST = 128  # directions
QUANTILE = 0.98  # of held-out images' distances: about this share of such images is not marked


@dataclass(frozen=True, eq=False)
class InDistribution:
    """Distribution of the training images' features.

    Attributes:
        mean: float32 (d,).
        scale: float32 (d,), divides features first.
        directions: float32 (d, k), orthonormal columns.
        variances: float32 (k,), along them.
        rest: variance along any other direction.
        threshold: distance beyond which an image is out of distribution.
        quantile: of held-out images at the threshold.
        held_out: their number.
    """

    mean: np.ndarray
    scale: np.ndarray
    directions: np.ndarray
    variances: np.ndarray
    rest: float
    threshold: float = float("nan")
    quantile: float = QUANTILE
    held_out: int = 0

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance per dimension, float64 (n,), of features (n, d).

        About 1 for images like those of training; NaN features count as infinitely far.
        """
        centred = (np.asarray(features, np.float64) - self.mean) / self.scale
        along = centred @ self.directions
        residual = np.maximum((centred**2).sum(-1) - (along**2).sum(-1), 0.0)
        squared = (along**2 / self.variances).sum(-1) + residual / self.rest
        return np.where(np.isfinite(squared), squared, np.inf) / len(self.mean)


def fit(features: np.ndarray, held_out: np.ndarray) -> InDistribution:
    """Describe training images' features and set the threshold by images not trained on.

    Args:
        features: float (n, d) of training images.
        held_out: float (m, d) of images in groups without training images; if there are none, the threshold is infinite
            and nothing counts as out of distribution by its features.
    """
    mean, scale = standardisation(features)
    standard = standardise(features, mean, scale).astype(np.float64)
    n, d = standard.shape
    _, singular, rows = np.linalg.svd(standard, full_matrices=False)
    variances = singular**2 / max(1, n - 1)
    total = float(variances.sum())
    components = int(np.searchsorted(np.cumsum(variances), EXPLAINED * total)) + 1 if total > 0 else 1
    components = max(1, min(components, MOST, n // 4, d - 1))
    rest = max((total - float(variances[:components].sum())) / (d - components), 1e-6)
    distribution = InDistribution(
        mean,
        scale,
        rows[:components].T.astype(np.float32),
        np.maximum(variances[:components], rest).astype(np.float32),
        rest,
    )
    distances = distribution.distances(held_out) if len(held_out) else np.full(1, np.inf)
    threshold = float(np.quantile(distances, QUANTILE, method="higher"))
    return dataclasses.replace(distribution, threshold=threshold, held_out=len(held_out))


def save_in_distribution(distribution: InDistribution, run: Path) -> None:
    """Write it into the run folder of the features' encoder; the card last."""
    run = Path(run)
    arrays = {name: getattr(distribution, name) for name in ARRAYS}
    digest = write_arrays(run / "familiarity.npz", arrays)
    write_card(
        run / CARD,
        {
            "format": FORMAT,
            "encoder_sha256": read_card(run)["weights_sha256"],
            "arrays_sha256": digest,
            "rest": distribution.rest,
            "threshold": distribution.threshold if np.isfinite(distribution.threshold) else None,
            "quantile": distribution.quantile,
            "held_out": distribution.held_out,
        },
    )


def load_in_distribution(run: Path, features: int | None = None) -> InDistribution | None:
    """The run's record of its training images; None for runs older than this feature.

    Args:
        run: its folder.
        features: number of the encoder's, if known.

    Raises:
        UserError: it is damaged or belongs to another encoder.
    """
    run = Path(run)
    if not (run / CARD).is_file():
        return None
    kinds: dict[str, Kind] = {
        **{"format": int, "encoder_sha256": str, "arrays_sha256": str},
        **{"rest": float, "threshold": (float, type(None)), "quantile": float, "held_out": int},
    }
    card = read_object(run / CARD, kinds, newest=FORMAT, remedy=REMEDY)
    threshold = card["threshold"]
    sensible = {
        "rest": card["rest"] > 0,
        "threshold": threshold is None or threshold >= 0,
        "quantile": 0 < card["quantile"] <= 1,
        "held_out": card["held_out"] >= 0,
    }
    if wrong := [name for name, holds in sensible.items() if not holds]:
        raise UserError(f"{run / CARD}: is damaged ({', '.join(wrong)}); {REMEDY}")
    if card["encoder_sha256"] != read_card(run)["weights_sha256"]:
        raise UserError(f"{run / CARD}: belongs to another encoder than the run's; {REMEDY}")
    arrays = read_arrays(run / "familiarity.npz", card["arrays_sha256"], REMEDY)
    count = "features" if features is None else features
    vector, matrix = (count,), (count, "components")
    shapes = {"mean": vector, "scale": vector, "directions": matrix, "variances": matrix[1:]}
    try:
        check_shapes(arrays, {name: ("f", shapes[name]) for name in ARRAYS})
        if name := not_finite(arrays):
            raise ValueError(f"{name} holds numbers that are not finite")
        if min(arrays["scale"].min(), arrays["variances"].min(initial=1.0)) <= 0:
            raise ValueError("scale or variances are not above zero")
    except ValueError as error:
        raise UserError(f"{run / 'familiarity.npz'}: is damaged ({error}); {REMEDY}") from None
    return InDistribution(
        **{name: arrays[name] for name in ARRAYS},
        rest=card["rest"],
        threshold=float("inf") if threshold is None else threshold,
        quantile=card["quantile"],
        held_out=card["held_out"],
    )
