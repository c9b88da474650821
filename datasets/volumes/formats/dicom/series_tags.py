"""Plain values of one image of a series, from DICOM tags or from a converter's JSON."""

from __future__ import annotations

from dataclasses import dataclass

GREY = ("MONOCHROME2", "MONOCHROME1")  # photometric interpretations; in the latter, larger values are darker

PARTS = {
    **dict.fromkeys(("P", "PHASE", "PHASE MAP", "PHASE_MAP", "VELOCITY", "VELOCITY MAP"), "phase"),
    **dict.fromkeys(("R", "REAL"), "real part"),
    **dict.fromkeys(("I", "IMAGINARY"), "imaginary part"),
}
_MAGNITUDE = {"M", "MAGNITUDE"}


def part_of(kinds: tuple[str, ...]) -> str:
    """The part of complex numbers an image shows: "magnitude", "phase", ..., or "" if its type does not say.

    Args:
        kinds: values of ImageType, FrameType and ComplexImageComponent, in upper case.
    """
    for kind in reversed(kinds):  # ComplexImageComponent last: it says most plainly
        if kind in _MAGNITUDE:
            return "magnitude"
        if kind in PARTS:
            return PARTS[kind]
    return ""


@dataclass(frozen=True)
class Frame:
    """One slice.

    Attributes:
        number: of the frame in its file, from 0.
        position: of the first pixel's centre, mm, in DICOM's LPS+; None if the tags do not say.
        orientation: directions of a row and of a column (six numbers), or None.
        spacing: distance between rows and between columns, mm, or None.
        slope, intercept: convert stored intensities to real ones.
        echo: which of several echoes, or "".
        order: acquisition order: time point, acquisition, instance.
        kinds: in a multi-frame file, the frame's own FrameType and ComplexImageComponent.
        diffusion: in a multi-frame file, the frame's b-value.
    """

    number: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    slope: float
    intercept: float
    echo: str
    order: tuple[float, float, float]
    kinds: tuple[str, ...] = ()
    diffusion: float = 0.0

    @property
    def is_plain(self) -> bool:
        """Whether nothing in the frame says it is anything but a magnitude as measured."""
        return (
            part_of(self.kinds) in ("", "magnitude") and self.kinds[:1] != ("DERIVED",) and not self.diffusion
        )


@dataclass(frozen=True)
class Header:
    """One file. `tags` holds the values of its simple tags as text, by keyword; absent ones are missing."""

    tags: dict[str, str]
    image_type: tuple[str, ...]
    rows: int
    columns: int
    frames: tuple[Frame, ...]

    def number(self, keyword: str) -> float | None:
        """The first value of a tag as a number."""
        try:
            return float(self.tags[keyword].split("\\")[0])
        except (KeyError, ValueError):
            return None

    @property
    def parts(self) -> set[str]:
        """The parts of complex numbers the frames show, from each frame's tags or else the file's."""
        whole = (*self.image_type[2:], self.tags.get("ComplexImageComponent", "").upper())
        of_file = part_of(whole)
        return {part_of(frame.kinds) or of_file for frame in self.frames} or {of_file}

    @property
    def is_echo_planar(self) -> bool:
        """Whether the tags say that all lines of an image were acquired after one excitation."""
        scanning = self.tags.get("ScanningSequence", "").upper().split("\\")
        name = self.tags.get("SequenceName", "").lower().lstrip("*")
        planar = self.tags.get("EchoPlanarPulseSequence", "").upper() == "YES"
        return "EP" in scanning or planar or name.startswith(("ep2d", "epfid", "epse", "ep_b"))
