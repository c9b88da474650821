"""HTML pages: one self-contained file each, with styles and pictures, that can be mailed, printed and read offline."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from mri_transfer.pages.figures import class_label, clean

TEMPLATES = Path(__file__).parent / "templates"

# A page never loads, runs or sends anything, whatever a file name or label in it contains.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"


def environment(templates: Path) -> Environment:
    """The template environment for pages. All inserted values are escaped.

    Args:
        templates: the folder of the page's own template; it can include `page.css`, the style of all pages.
    """
    jinja = Environment(
        loader=FileSystemLoader([templates, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: clean(value) if isinstance(value, str) and type(value) is str else value,
    )
    jinja.globals["policy"] = POLICY
    jinja.filters.update(
        percent=percent,
        count=count,
        words=words,
        short_path=short_path,
        css_string=css_string,
        class_label=class_label,
        code=code,
        inline=lambda figure: Markup(figure.svg),
    )
    return jinja


def percent(value: float | None, digits: int = 0) -> str:
    """0.256 as 26%; a dash for None."""
    return "–" if value is None else f"{100 * value:.{digits}f}%"


def count(value: Any) -> str:
    """12345 as 12,345; anything else as it is."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def words(key: str) -> str:
    """A key as a label: "test_files" is Test files."""
    return str(key).replace("_", " ").strip().capitalize()


def short_path(path: str) -> str:
    """First and last part of a path: enough, with the class, to tell two images apart."""
    parts = Path(path).parts
    return f"{parts[0]} … {parts[-1]}" if len(parts) > 2 else path


def code(text: str) -> Markup:
    """A sentence with `commands` in backticks set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(clean(text)))))


def css_string(text: str) -> Markup:
    """A quoted CSS string with everything but letters, digits and spaces escaped."""
    inner = re.sub(r"[^A-Za-z0-9 ]", lambda match: f"\\{ord(match.group()):x} ", clean(text))
    return Markup(f'"{inner}"')


def data_uri(image: np.ndarray, side: int = 200) -> str:
    """A picture as a small JPEG inside a data: address.

    Args:
        image: uint8, grey (height, width) or colour (height, width, 3).
        side: larger pictures are shrunk to this many pixels.
    """
    picture = Image.fromarray(np.ascontiguousarray(image, dtype=np.uint8))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
