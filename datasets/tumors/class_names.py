"""Synonyms of class names: `Glioma Tumor` and `glioma_tumor` are the same, as are `notumor` and `healthy`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mri_transfer.errors import UserError

_NONE = "no|none|healthy|normal|non|without|control|controls"
_KINDS = (
    (
        "no tumor",
        re.compile(rf"({_NONE})(brain|tumors?|tumorfree|cancer)*|(brain|tumors?)({_NONE})|tumorfree"),
    ),
    ("glioma", re.compile(r"gliomas?")),
    ("meningioma", re.compile(r"meningiomas?|menin")),
    ("pituitary", re.compile(r"pituitary|pituitaryadenomas?|pituitarygland")),
)
_PADDING = re.compile(r"^(brain|mri|tumors?)+|(tumors?|cancer|mri|images?|scans?|class)+$")


def plain(name: str) -> str:
    """Letters and digits only, in lower case and American spelling: "No Tumour" becomes "notumor"."""
    return re.sub(r"[\W_]+", "", name.casefold()).replace("tumour", "tumor")


def kind(name: str) -> str | None:
    """The content of a class of brain tumour images under any name; None if unclear.

    >>> kind("Glioma Tumour"), kind("notumor"), kind("NORMAL"), kind("pituitary-tumor"), kind("yes")
    ('glioma', 'no tumor', 'no tumor', 'pituitary', None)
    """
    bare = plain(name)
    for text in (bare, _PADDING.sub("", bare)):
        for label, pattern in _KINDS:
            if pattern.fullmatch(text):
                return label
    return None


def match_classes(
    theirs: Sequence[str], ours: Sequence[str], given: Mapping[str, str], option: str
) -> dict[str, str | None]:
    """Map their classes to ours.

    Args:
        theirs, ours: names of classes.
        given: by their name, ours, or "" for a class to leave out; takes precedence. Names not in `theirs` are ignored,
            as one table may serve several folders.
        option: the folder's name in an error, such as "--external DIR".

    Returns:
        By their name, ours or None (left out).

    Raises:
        UserError: a name is unknown or ambiguous.
    """
    by_plain = {plain(name): (name, meant) for name, meant in given.items()}
    matches: dict[str, str | None] = {}
    for name in theirs:
        meant = given.get(name, by_plain.get(plain(name), ("", None))[1])
        if meant == "":
            matches[name] = None
            continue
        matches[name] = _one_of(meant if meant is not None else name, ours)
        if matches[name] is None:
            names = ", ".join(ours)
            if meant is not None:
                raise UserError(
                    f"--class-map '{name}={meant}': {meant} is not one of {names}; name one of these"
                )
            raise UserError(
                f"{option}: class {name} is not one of {names}; say which by --class-map '{name}=NAME', or leave "
                f"it out by --class-map '{name}='"
            )
    return matches


def _one_of(name: str, ours: Sequence[str]) -> str | None:
    """The class a name means; None if there is none, or more than one."""
    if name in ours:
        return name
    candidates = [candidate for candidate in ours if plain(candidate) == plain(name)]
    if not candidates and (own_kind := kind(name)) is not None:
        candidates = [candidate for candidate in ours if kind(candidate) == own_kind]
    return candidates[0] if len(candidates) == 1 else None


def class_map(pairs: Sequence[str]) -> dict[str, str]:
    """`their name=our name` pairs, as `--class-map` takes them.

    Raises:
        UserError: one lacks an equals sign or a name before it, or a name occurs twice with different meanings.
    """
    mapping: dict[str, str] = {}
    for pair in pairs:
        theirs, equals, ours = (side.strip() for side in pair.partition("="))
        if not equals or not theirs:
            raise UserError(
                f"--class-map '{pair}': write 'their name=our name', or 'their name=' to leave it out"
            )
        if mapping.setdefault(theirs, ours) != ours:
            raise UserError(
                f"--class-map: {theirs} means both {mapping[theirs]} and {ours}; give one of them"
            )
    return mapping
