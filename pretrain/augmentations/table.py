"""The augmentations of a view: purpose, strength and frequency of each.

Strengths and frequencies were set by eye against the pictures that an encoder will meet: screenshots of many scanners
from the web, where air may be grey and frames and bars are common; letters and inverted contrast are too rare (about
one in a hundred) to be imitated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mri_transfer.options import non_negative_float


@dataclass(frozen=True)
class Augmentation:
    """One thing that differs between two pictures of the same anatomy.

    Attributes:
        name: as on the command line.
        amount: maximum at strength 1; every view draws uniformly between that and nothing.
        unit: the amount in words; braces take the number.
        share: fraction of views that get it.
        stands_for: the artefact or difference it imitates.
    """

    name: str
    amount: float
    unit: str
    share: float
    stands_for: str

    @property
    def reach(self) -> str:
        """The amount in words."""
        return self.unit.format(self.amount)


# In order of application: patient, scanner, then the program that showed and stored the picture.
AUGMENTATIONS = (
    Augmentation("crop", 0.65, "{:.0%} of the area cut away", 1.0, "another field of view or zoom"),
    Augmentation("stretch", 0.15, "factor exp({:g}) in aspect, either way", 1.0, "pixels that are not square"),
    Augmentation("rotation", 25.0, "{:g} degrees either way", 1.0, "a tilted head"),
    Augmentation("flip", 1.0, "mirrored", 0.5, "left and right, which nearly mirror each other; never up and down"),
    Augmentation("blur", 0.008, "a Gaussian of {:.1%} of the side", 0.3, "thick slices, motion, interpolation"),
    Augmentation("resolution", 1.3, "2^{:g} times fewer lines", 0.3, "a smaller acquisition matrix, thumbnails"),
    Augmentation("bias", 0.25, "gain of exp({:g}) RMS", 0.7, "shading by the receive coil's distance"),
    Augmentation("gamma", 0.5, "exponent exp({:g}), either way", 1.0, "the grey curve of scanner, screen and printer"),
    Augmentation("contrast", 0.3, "{:.0%} either way", 1.0, "window width about its level"),
    Augmentation("brightness", 0.3, "{:.0%} either way", 1.0, "how bright window, screen or print are"),
    Augmentation("noise", 0.15, "deviation {:.0%} of the mean grey", 0.5, "thermal noise in magnitude images (Rician)"),
    Augmentation("haze", 0.15, "{:.0%} of white", 0.1, "air shown grey: a window that begins below it"),
    Augmentation("letterbox", 0.18, "each bar {:.0%} of the side", 0.15, "bars that pad another aspect to a square"),
    Augmentation("border", 0.04, "{:.0%} of the side", 0.15, "frames and lines along edges, black, grey or white"),
    Augmentation("depth", 4.0, "{:g} of 8 bits lost", 0.15, "few grey levels: GIF palettes, printed film"),
    Augmentation("jpeg", 75.0, "{:g} of 100 off its quality", 0.3, "blocks and ringing of JPEG, saved again and again"),
    Augmentation("cutout", 0.35, "{:.0%} of the side", 0.5, "a hidden square: no one structure may carry the answer"),
)  # fmt: skip

NAMES = tuple(augmentation.name for augmentation in AUGMENTATIONS)


def view_strength(text: str) -> str:
    """`NAME=X`, checked; X multiplies the strength of one augmentation.

    Raises:
        ValueError: no such augmentation, or no number of at least 0.
    """
    name, equals, value = text.partition("=")
    name = name.strip().lower()
    if not equals:
        raise ValueError("write NAME=X, such as jpeg=0 or rotation=2")
    if name not in NAMES:
        raise ValueError(f"no such augmentation; there are {', '.join(NAMES)}")
    try:
        return f"{name}={non_negative_float(value):g}"
    except ValueError:
        raise ValueError("X must be a number of at least 0, such as 0, 0.5 or 2") from None


def strengths_of(settings: Iterable[str]) -> dict[str, float]:
    """Strengths by name from `NAME=X` settings; the last one for a name counts."""
    pairs = (view_strength(text).split("=") for text in settings)
    return {name: float(value) for name, value in pairs}


def amounts(strength: float, strengths: dict[str, float]) -> dict[str, float]:
    """Maximum amount of each augmentation, by name.

    Args:
        strength: factor for all.
        strengths: factors for single ones, by name.

    Raises:
        ValueError: an unknown name.
    """
    if unknown := set(strengths) - set(NAMES):
        raise ValueError(f"no such augmentation: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return {
        augmentation.name: augmentation.amount * strength * strengths.get(augmentation.name, 1.0)
        for augmentation in AUGMENTATIONS
    }


def described() -> str:
    """The table as lines of text, for `--help`."""
    width = max(map(len, NAMES))
    return "\n".join(
        f"  {augmentation.name:<{width}}  {augmentation.stands_for} (at most {augmentation.reach}; "
        f"{'all' if augmentation.share == 1 else f'{augmentation.share:.0%}'} of views)"
        for augmentation in AUGMENTATIONS
    )
