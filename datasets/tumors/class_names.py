"""What classes are called elsewhere: `Glioma Tumor` and `glioma_tumor` are one, as are `notumor` and `healthy`."""

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
    """Letters and digits only, small, in American spelling: "No Tumour" becomes "notumor"."""
    return re.sub(r"[\W_]+", "", name.casefold()).replace("tumour", "tumor")


def kind(name: str) -> str | None:
    """What a class of brain tumour images shows, whatever it is called; None if that can't be told.

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
    """Which of our classes each of theirs is.

    Args:
        theirs, ours: names of classes.
        given: by their name, ours, or "" for a class that is to be left out; what is said here counts. Names of
            classes that are not among `theirs` are passed over, as one table may serve several folders.
        option: what to call the folder in an error, such as "--external DIR".

    Returns:
        By their name, ours or None (left out).

    Raises:
        UserError: a name that can't be understood or is understood in two ways.
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
                    f"--class-map '{name}={meant}': {meant} is none of {names}; name one of these"
                )
            raise UserError(
                f"{option}: class {name} is none of {names}; say which by --class-map '{name}=NAME', or leave it out "
                f"by --class-map '{name}='"
            )
    return matches


def _one_of(name: str, ours: Sequence[str]) -> str | None:
    """The class that a name means; None if there is none, or more than one."""
    if name in ours:
        return name
    candidates = [candidate for candidate in ours if plain(candidate) == plain(name)]
    if not candidates and (own_kind := kind(name)) is not None:
        candidates = [candidate for candidate in ours if kind(candidate) == own_kind]
    return candidates[0] if len(candidates) == 1 else None


def class_map(pairs: Sequence[str]) -> dict[str, str]:
    """`their name=our name` pairs, as `--class-map` takes them.

    Raises:
        UserError: one without an equals sign or a name before it, or one name twice with different meanings.
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
