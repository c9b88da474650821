"""`--subject PATTERN`: the user says where in a path the person stands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

PLACES = ("subject", "session", "sequence", "dataset")
_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True)
class Pattern:
    """A path with places to read off, such as `{subject}/*/T1`."""

    text: str
    regex: re.Pattern[str]

    def match(self, paths: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        """What the first of several ways to write a path says, as (place, text) pairs; empty if none matches."""
        for path in paths:
            if match := self.regex.fullmatch(path):
                return tuple((place, text) for place, text in match.groupdict().items() if text)
        return ()


def subject_pattern(text: str) -> Pattern:
    """Read a pattern: `{subject}`, `{session}`, `{sequence}` and `{dataset}` stand for a part of one level of the path.

    `*` is anything within a level, `**` any number of levels. A place takes as little as fits, and one that comes again
    must have the same text.

    Raises:
        ValueError: it names no subject, or an unknown place.
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
        elif place is None or place not in PLACES:
            names = ", ".join(f"{{{name}}}" for name in PLACES)
            raise ValueError(f"{token} is no place; there are {names}")
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
        name: path from the given folder on, that folder included; of a series the folder it lies in.
        stem: the last part without suffixes.
        is_folder: it is a series' folder.
        file: the name of a series' first file.
    """
    ways = ([name, name / file] if file else [name]) if is_folder else [name.with_name(stem), name]
    return tuple(PurePosixPath(*way.parts[1:]).as_posix() for way in ways if len(way.parts) > 1)
