"""JSON files that vouch for others, such as an encoder's card: the last field is a SHA-256 of all before it.

    {
      "classes": ["glioma", "pituitary"],
      "card_sha256": "9f86d0…"
    }

It covers the bytes, so any change is noticed and number formatting doesn't matter. Cards of versions that wrote none
are read unchecked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

SEAL = "card_sha256"
_TAIL = ',\n  "' + SEAL + '": "%s"\n}\n'
_LENGTH = len(_TAIL % ("0" * 64))
_FIXED = [place for place, character in enumerate(_TAIL % ("0" * 64)) if character != "0"]


def sealed(text: str) -> str:
    """The text of a non-empty JSON object, indented by two, with the field at its end."""
    start = text.rstrip().removesuffix("\n}")
    return start + _TAIL % hashlib.sha256(start.encode()).hexdigest()


def is_broken(content: bytes, fields: Mapping[str, Any]) -> bool:
    """Whether a file was changed after it was sealed.

    Args:
        content: the file's bytes.
        fields: the parsed object.
    """
    start, tail = content[:-_LENGTH], content[-_LENGTH:]
    expected = _TAIL % hashlib.sha256(start).hexdigest()
    if tail == expected.encode():
        return False
    # Rewritten by another program, or the field itself has changed.
    matches = sum(tail[place] == ord(expected[place]) for place in _FIXED) if len(tail) == _LENGTH else 0
    return SEAL in fields or 2 * matches > len(_FIXED)
