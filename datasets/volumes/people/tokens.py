"""The words of a folder's or file's name, each with its kind: sequence, session, site, step, or nothing known."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mri_transfer.datasets.volumes.people import vocabulary

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_UID = r"\d+(?:\.\d+){4,}"  # of DICOM
_Y, _M, _D = r"(?:19|20)\d\d", r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
_NAMES = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_TIME = r"(?:[T_ -]?[0-2]\d[-_:.]?[0-5]\d[-_:.]?[0-5]\d(?:\.\d+)?|T[0-2]\d:?[0-5]\d)?"
_SPECIAL = re.compile(
    rf"(?<![0-9a-z])(?:(?P<uuid>{_UUID})|(?P<uid>{_UID}))(?![0-9a-z])"
    rf"|(?<!\d)(?P<date>{_Y}{_M}{_D}{_TIME}|{_Y}(?P<sep>[-_. ]){_M}(?P=sep){_D}{_TIME}"
    rf"|{_D}(?P<sep2>[-_.]){_M}(?P=sep2){_Y}"
    rf"|{_M}(?P<sep4>[-_.]){_D}(?P=sep4){_Y}|{_D}{_M}{_Y}"
    rf"|{_Y}[-_. ]?{_NAMES}[-_. ]?{_D}|{_D}[-_. ]?{_NAMES}[-_. ]?{_Y}|{_NAMES}[-_. ]?{_Y}|{_Y}[-_. ]?{_NAMES}"
    rf"|(?<![a-z]){_Y}[-.]{_M}|(?<![^/]){_Y}_{_M}(?![^/]))(?!\d)",
    re.IGNORECASE,
)
_RUN = re.compile(r"[^\W_]+")
_CAMEL = re.compile(r"[A-ZÀ-Þ]+(?![a-zß-ÿ])|[A-ZÀ-Þ]?[a-zß-ÿ]+|\d+|[^\W\d_]+")
_SCANNER = re.compile(
    r"(ge|siemens|philips|prisma|skyra|trio|verio|achieva|ingenia|signa|avanto|aera)[\dpt]+"
)
_SPACE = re.compile(
    r"(?:in|to|coreg|reg)?2?(?:mni|t1w?|t2w?|flair|native|std|template)(?:152|305)?(?:space|\d?mm)"
)
_KNOWN = vocabulary.SEQUENCE | vocabulary.PROCESSED | vocabulary.GENERIC


@dataclass
class Token:
    """A word of a name.

    Attributes:
        kind: sequence, session, site, split, proc, generic, marker, unit, month; date, uid, hash; number; or, if it is
            unknown, word, code (letters and digits) or letter.
        text: in lower case, without an attached number.
        start, end: its position in the name.
        number: its own, or the one attached to a word: session1, scan01.
        binds: a free number after it belongs to it.
        letter: that of siteA.
    """

    kind: str
    text: str
    start: int
    end: int
    number: int | None = None
    binds: bool = False
    letter: str = ""


_CLASSES = (
    ("sequence", vocabulary.SEQUENCE),
    ("site", vocabulary.SITE),
    ("split", vocabulary.SPLIT),
    ("session", vocabulary.SESSION),
    ("proc", vocabulary.PROCESSED),
    ("marker", vocabulary.MARKER),
    ("generic", vocabulary.GENERIC),
)


def _class_of(word: str) -> str:
    for kind, words in _CLASSES:
        if word in words:
            return kind
    return "month" if word in vocabulary.MONTH_NAMES and len(word) > 3 else ""


def _tokens_of_run(text: str, start: int) -> list[Token]:
    """Letters and digits without a separator: a known word, one with a number, several, or something unknown."""
    lower, end = text.lower(), start + len(text)
    if text.isdigit():
        return [Token("number", lower, start, end, int(text))]
    if kind := _class_of(lower):
        return [Token(kind, lower, start, end, binds=True)]
    if re.fullmatch(r"(?=.*\d)(?=.*[a-f])[0-9a-f]{8,}", lower):
        return [_code(lower, start, end)]
    if _SCANNER.fullmatch(lower):
        return [Token("site", lower, start, end)]
    if match := re.fullmatch(r"(\d+)([^\W\d_]+)", lower):
        number, unit = int(match[1]), match[2]
        if unit in vocabulary.UNITS["session"] and len(match[1]) <= 2 and unit != "d":
            return [Token("session", lower, start, end, number)]
        if unit in vocabulary.UNITS["noise"]:
            return [Token("unit", lower, start, end, number)]
    if re.fullmatch(r"\d(?:p|\.)?\d*(t|mm)", lower):
        return [Token("unit", lower, start, end)]
    if match := re.fullmatch(r"([^\W\d_]+)(\d+)([^\W\d_]?)", lower):
        word, number = match[1], int(match[2])
        kind = _class_of(word)
        if word in vocabulary.SESSION_LETTERS:
            kind = "session" if len(match[2]) <= 2 else ""
        elif kind == "session" and len(word) <= 3 and len(match[2]) > 2:
            kind = ""
        elif kind == "site" and word not in vocabulary.NUMBERED_SITE:
            kind = ""  # HC0001: a person, in a group
        elif (
            word == "run"
            or (word in ("e", "r", "i") and len(match[2]) <= 2)
            or _counts_series(word, match[2])
        ):
            kind = "generic"  # echoes, repeats, images
        elif (word == "i" and len(match[2]) >= 5) or (word == "s" and len(match[2]) >= 6):
            kind = "generic"  # numbers of images and series in downloads from LONI, such as ADNI and PPMI
        elif len(word) == 2 and (len(match[2]) > 2 or kind == "proc" or word in ("op", "rt", "tx", "dx")):
            kind = ""  # initials, and not a sequence, site or step spelled the same
        if not kind and (_class_of(word) or word in vocabulary.SESSION_LETTERS):
            return [_code(lower, start, end)]
        if kind:
            if match[3] and kind != "marker":
                return [Token(kind, lower, start, end, number)]
            return [Token(kind, word, start, end, number)] if not match[3] else [_code(lower, start, end)]
    if match := re.fullmatch(
        r"(sites?|cent(?:er|re)|hospital|group|cohort|clinic|lab|batch|arm)([a-z])", lower
    ):
        word = re.sub(r".$", "", lower)
        return [Token("site", word, start, end, letter=lower[-1])]
    if _SPACE.fullmatch(lower):
        return [Token("proc", lower, start, end)]
    if _is_run_together(lower):
        return [Token("sequence", lower, start, end)]
    pieces = [(match.group(), start + match.start()) for match in _CAMEL.finditer(text)]
    if len(pieces) > 1:
        kinds = [
            "number" if piece.isdigit() else _class_of(piece.lower()) or _single(piece) for piece, _ in pieces
        ]
        known = [kind for kind in kinds if kind not in ("number", "letter", "")]
        if known and "" not in kinds:
            tokens: list[Token] = []
            for (piece, at), kind in zip(pieces, kinds, strict=True):
                stop = at + len(piece)
                if kind == "number" and tokens and tokens[-1].number is None and tokens[-1].end == at:
                    tokens[-1].number, tokens[-1].end = int(piece), stop
                elif kind == "number":
                    tokens.append(Token("number", piece, at, stop, int(piece)))
                else:
                    tokens.append(Token(kind, piece.lower(), at, stop, binds=True))
            return tokens
        if known and kinds[0] in ("sequence", "proc", "marker", "generic", "site") and "number" not in kinds:
            # brainT1Anna: the unknown part is separate
            return [
                Token(kind or "word", piece.lower(), at, at + len(piece), binds=bool(kind))
                for (piece, at), kind in zip(pieces, kinds, strict=True)
            ]
    if any(letter.isdigit() for letter in text):
        return [_code(lower, start, end)]
    return [Token("letter" if len(text) == 1 else "word", lower, start, end)]


def _counts_series(word: str, digits: str) -> bool:
    """Whether a word is an archive's count of series or images: SE000001, IM12, but not the initials SE4711."""
    return word in ("se", "sr", "im") and (len(digits) <= 2 or digits[0] == "0")


def _is_run_together(lower: str) -> bool:
    """Whether a name is joined known words including a sequence: axt1, inplanet2, 3dflair, t1sag."""
    if not any(core in lower for core in vocabulary.CORE_SEQUENCE):
        return False
    # By length: is lower[:n] made of known words, and is one of them a sequence?
    reached: dict[int, bool] = {0: False}
    for start in range(len(lower)):
        if start in reached:
            for end in range(start + 2, len(lower) + 1):
                word = lower[start:end]
                if word in _KNOWN or word.isdigit():
                    core = reached[start] or word in vocabulary.CORE_SEQUENCE
                    reached[end] = reached.get(end, False) or core
    return reached.get(len(lower), False)


def _single(piece: str) -> str:
    return "letter" if len(piece) == 1 else ""


def _code(lower: str, start: int, end: int) -> Token:
    numbers = re.findall(r"\d+", lower)
    return Token("code", lower, start, end, int(numbers[-1]) if numbers else None)


def tokens_of(text: str) -> list[Token]:
    """The words of a name in order, without BIDS entities, whose values name no person."""
    tokens: list[Token] = []
    at = 0
    for match in (*_SPECIAL.finditer(text), None):
        until = match.start() if match else len(text)
        tokens += [
            token
            for run in _RUN.finditer(text, at, until)
            for token in _tokens_of_run(run.group(), run.start())
        ]
        if match:
            kind = "date" if match["date"] else "uid" if match["uid"] else "hash"
            tokens.append(Token(kind, match.group().lower(), match.start(), match.end()))
            at = match.end()
    return _without_entities(text, tokens)


def _without_entities(text: str, tokens: list[Token]) -> list[Token]:
    """Without `acq-highres`, `run-2` and the like."""
    result: list[Token] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        following = tokens[at + 1] if at + 1 < len(tokens) else None
        entity = (
            at > 0 and token.text in vocabulary.ENTITIES and text[tokens[at - 1].end : token.start] == "_"
        )
        if entity and following and text[token.end : following.start] == "-":
            at += 2
            while at < len(tokens) and text[tokens[at - 1].end : tokens[at].start] == "":
                at += 1
            continue
        result.append(token)
        at += 1
    return result
