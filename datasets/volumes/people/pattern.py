"""`--subject PATTERN`: the user's pattern for locating the person in a path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

PLACES = ("subject", "session", "sequence", "dataset")
_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True)
class Pattern:
    """A path with placeholders, such as `{subject}/*/T1`."""

    text: str
    regex: re.Pattern[str]

    def match(self, paths: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        """The (place, text) pairs from the first matching spelling of a path; empty if none matches."""
        for path in paths:
            if match := self.regex.fullmatch(path):
                return tuple((place, text) for place, text in match.groupdict().items() if text)
        return ()


def subject_pattern(text: str) -> Pattern:
    """Read a pattern: `{subject}`, `{session}`, `{sequence}` and `{dataset}` match a part of one path level.

    `*` is anything within a level, `**` any number of levels. A place matches as little as possible, and a repeated one
    must match the same text.

    Raises:
        ValueError: it has no subject, or an unknown place.
    """
    built, seen, at = "", set(), 0
    text = text.strip().strip("/")
    for match in _TOKEN.finditer(text):
        built += re.escape(text[at : match.start()])
        at = match.end()
        token, place = match.group(), match[1]
        if token == "**/":
            built += "(?:.*/)?"
        elif token == "**":
            built += ".*"
        elif token in ("*", "?"):
            built += "[^/]*" if token == "*" else "[^/]"
        elif place is None:
            raise ValueError(f"{token} is not part of a field, such as {{subject}}")
        elif place not in PLACES:
            names = ", ".join(f"{{{name}}}" for name in PLACES)
            raise ValueError(f"{token} is not a known field; the fields are {names}")
        elif place in seen:
            built += f"(?P={place})"
        else:
            built += f"(?P<{place}>[^/]+?)"
            seen.add(place)
    built += re.escape(text[at:])
    if "subject" not in seen:
        raise ValueError("must say where the person stands, such as {subject}/*/T1")
    return Pattern(text, re.compile(built))


def ways_to_write(name: PurePosixPath, stem: str, is_folder: bool, file: str = "") -> tuple[str, ...]:
    """The paths a pattern may mean: below the given folder, without and with suffix.

    Args:
        name: path from the given folder, that folder included; for a series, its folder.
        stem: the last part without suffixes.
        is_folder: whether it is a series' folder.
        file: the name of a series' first file.
    """
    ways = ([name, name / file] if file else [name]) if is_folder else [name.with_name(stem), name]
    return tuple(PurePosixPath(*way.parts[1:]).as_posix() for way in ways if len(way.parts) > 1)
