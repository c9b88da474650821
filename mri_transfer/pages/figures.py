"""The look of figures: colours everyone can tell apart, text kept as text, the same bytes every time.

Each figure is narrow enough for a phone; the page sets several side by side if there is room. Figures are drawn on
`matplotlib.figure.Figure` without pyplot, so nothing here depends on a display or on global state.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

INK, MUTED, RULE, PAPER = "#1c2430", "#586273", "#d9d5cb", "#ffffff"
# Okabe & Ito 2008, "Color universal design"; yellow is left out because it is hard to see on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
WIDTH = 4.4  # inches

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # a class called "$x$" is a name, not a formula
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "svg.fonttype": "none",  # text stays text: searchable, read aloud, and set in the page's own font
    "svg.hashsalt": "mri-transfer",
}


class Chart(Figure):
    """A figure that notebooks show by itself, without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with style():
            self.savefig(buffer, format="png", dpi=110, facecolor=PAPER)
        return buffer.getvalue()


@dataclass(frozen=True)
class Picture:
    """A figure ready for the page.

    Attributes:
        name: file name without suffix, and prefix of the identifiers inside.
        svg: the drawing, without XML declaration.
        alt: text alternative.
        caption: what to look for.
        width: natural width in CSS pixels.
        figure: its Matplotlib source.
    """

    name: str
    svg: str
    alt: str
    caption: str
    width: int
    figure: Figure = field(compare=False, repr=False)


@contextmanager
def style() -> Iterator[None]:
    """Draw and save inside this."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # Names in other scripts: DejaVu Sans may lack a glyph that the reader's browser has.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def canvas(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """A figure of `width` by `height` inches with one set of axes."""
    figure = Chart(figsize=(width, height), facecolor="none")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    return figure, axes


def luminance(colour: Any) -> float:
    """Relative luminance of a colour that matplotlib knows, 0 to 1 (Web Content Accessibility Guidelines 2.1)."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def ink_on(ground: Any) -> str:
    """The text colour for a background: dark or white, whichever contrasts more."""
    light, dark = luminance(PAPER) + 0.05, luminance(INK) + 0.05
    middle = luminance(ground) + 0.05
    return PAPER if light / middle > middle / dark else INK


def clean(text: Any) -> str:
    """Text without control characters, which XML can't hold even escaped."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", " ", str(text))


def short(text: str, longest: int = 22) -> str:
    """At most `longest` characters, cut in the middle so that both ends can be told apart."""
    text = clean(text)
    if len(text) <= longest:
        return text
    return f"{text[: longest // 2]}…{text[len(text) - longest + longest // 2 + 1 :]}"


def class_label(name: str) -> str:
    """A class folder's name as people write it: "glioma_tumor" is glioma, "no_tumor" stays no tumor."""
    words = re.sub(r"(?<!^no)_tumou?r$", "", clean(name)).replace("_", " ").strip()
    return words or clean(name)


def picture(name: str, figure: Figure, alt: str, caption: str) -> Picture:
    """Turn a figure into SVG without date, generator or fixed size, with identifiers unique to the page."""
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    svg = buffer.getvalue().decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.S)
    # A style element in the drawing would apply to the whole page.
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.S)
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    svg = f'{head} style="stroke-linejoin: round; stroke-linecap: butt">{rest}'
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'((?:xlink:)?href="|url\()#', rf"\g<1>#{name}-", svg)
    return Picture(name, svg.strip(), alt, caption, round(figure.get_figwidth() * 96), figure)
