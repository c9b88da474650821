"""One folder's or file's name taken apart: what in it could be a person, a session, a site, and what is neither."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field

from mri_transfer.datasets.volumes.people import words

# How much an atom looks like a person, by itself.
COUNTER, WORD, NUMBER, CODE, MARKED = 1, 2, 3, 4, 5

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
    rf"|{_Y}[-.]{_M}|(?<![^/]){_Y}_{_M}(?![^/]))(?!\d)",
    re.IGNORECASE,
)
_RUN = re.compile(r"[^\W_]+")
_PIECES = re.compile(r"\d+|[^\W\d_]+")
_CAMEL = re.compile(r"[A-ZÀ-Þ]+(?![a-zß-ÿ])|[A-ZÀ-Þ]?[a-zß-ÿ]+|\d+|[^\W\d_]+")
_SCANNER = re.compile(
    r"(ge|siemens|philips|prisma|skyra|trio|verio|achieva|ingenia|signa|avanto|aera)[\dpt]+"
)
_SPACE = re.compile(
    r"(?:in|to|coreg|reg)?2?(?:mni|t1w?|t2w?|flair|native|std|template)(?:152|305)?(?:space|\d?mm)"
)
_KNOWN = words.SEQUENCE | words.PROCESSED | words.GENERIC


@dataclass(frozen=True)
class Atom:
    """What may say who a person is.

    Attributes:
        rank: COUNTER to MARKED.
        shape: atoms of one shape stand for the same kind of thing.
        key: what makes it the same as another, whatever its case, separators and zeros in front.
        start, end: where it stands in the name.
        widths: digits of its last number, 0 without one.
        number: its last number, or None.
    """

    rank: int
    shape: str
    key: tuple[str | int, ...]
    start: int
    end: int
    widths: int = 0
    number: int | None = None


@dataclass
class Parsed:
    """A name taken apart.

    Attributes:
        atoms: in order, those that may be persons.
        sessions: words that tell scans of a person apart, as written.
        sites: keys of sites, groups and data sets, which scope the ids below and beside them.
        split: it is a part of a split (train, test), and nothing else.
        site_text: the sites as they are written.
        letters: sessions of one letter and a number (M17, V2), which may be people where nothing else is.
    """

    atoms: list[Atom] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    sites: list[tuple[str | int, ...]] = field(default_factory=list)
    site_text: list[str] = field(default_factory=list)
    letters: list[Atom] = field(default_factory=list)
    split: str = ""


@dataclass
class _Token:
    kind: str  # sequence session site split proc generic marker unit date | number word code letter
    text: str
    start: int
    end: int
    number: int | None = None  # of a word that has one attached: session1, scan01
    binds: bool = False  # a free number after it belongs to it
    letter: str = ""  # of siteA


_CLASSES = (
    ("sequence", words.SEQUENCE),
    ("site", words.SITE),
    ("split", words.SPLIT),
    ("session", words.SESSION),
    ("proc", words.PROCESSED),
    ("marker", words.MARKER),
    ("generic", words.GENERIC),
)


def _class_of(word: str) -> str:
    for kind, known in _CLASSES:
        if word in known:
            return kind
    return "month" if word in words.MONTH_NAMES and len(word) > 3 else ""


def _tokens_of_run(text: str, start: int) -> list[_Token]:
    """Letters and digits without a separator: a known word, one with a number, several, or something unknown."""
    lower, end = text.lower(), start + len(text)
    if text.isdigit():
        return [_Token("number", lower, start, end, int(text))]
    if kind := _class_of(lower):
        return [_Token(kind, lower, start, end, binds=True)]
    if _SCANNER.fullmatch(lower):
        return [_Token("site", lower, start, end)]
    if match := re.fullmatch(r"(\d+)([^\W\d_]+)", lower):
        number, unit = int(match[1]), match[2]
        if unit in words.UNITS["session"] and len(match[1]) <= 2 and unit != "d":
            return [_Token("session", lower, start, end, number)]
        if unit in words.UNITS["noise"]:
            return [_Token("unit", lower, start, end, number)]
    if re.fullmatch(r"\d(?:p|\.)?\d*(t|mm)", lower):
        return [_Token("unit", lower, start, end)]
    if match := re.fullmatch(r"([^\W\d_]+)(\d+)([^\W\d_]?)", lower):
        word, number = match[1], int(match[2])
        kind = _class_of(word)
        if word in words.SESSION_LETTERS:
            kind = "session" if len(match[2]) <= 2 else ""
        elif kind == "session" and len(word) <= 3 and len(match[2]) > 2:
            kind = ""
        elif kind == "site" and not _is_place(word):
            kind = ""  # HC0001: a person, in a group
        elif word in ("i", "e", "r", "a", "run", "se", "sr", "im") and kind != "marker":
            kind = "generic"
        if len(word) == 2 and len(match[2]) > 2 and word not in ("se", "im", "sr"):
            kind = ""  # initials, and not a sequence or a site that is written alike
        if not kind and (_class_of(word) or word in words.SESSION_LETTERS):
            return [_code(lower, start, end)]
        if kind:
            if match[3] and kind != "marker":
                return [_Token(kind, lower, start, end, number)]
            return [_Token(kind, word, start, end, number)] if not match[3] else [_code(lower, start, end)]
    if match := re.fullmatch(
        r"(sites?|cent(?:er|re)|hospital|group|cohort|clinic|lab|batch|arm)([a-z])", lower
    ):
        word = re.sub(r".$", "", lower)
        return [_Token("site", word, start, end, letter=lower[-1])]
    if _SPACE.fullmatch(lower):
        return [_Token("proc", lower, start, end)]
    if _is_run_together(lower):
        return [_Token("sequence", lower, start, end)]
    pieces = [(match.group(), start + match.start()) for match in _CAMEL.finditer(text)]
    if len(pieces) > 1:
        kinds = [
            "number" if piece.isdigit() else _class_of(piece.lower()) or _single(piece) for piece, _ in pieces
        ]
        known = [kind for kind in kinds if kind not in ("number", "letter", "")]
        if known and "" not in kinds:
            tokens: list[_Token] = []
            for (piece, at), kind in zip(pieces, kinds, strict=True):
                here = at + len(piece)
                if kind == "number" and tokens and tokens[-1].number is None and tokens[-1].end == at:
                    tokens[-1].number, tokens[-1].end = int(piece), here
                elif kind == "number":
                    tokens.append(_Token("number", piece, at, here, int(piece)))
                else:
                    tokens.append(_Token(kind, piece.lower(), at, here, binds=True))
            return tokens
        if known and kinds[0] in ("sequence", "proc", "marker", "generic", "site") and "number" not in kinds:
            # brainT1Anna: what is unknown in it stands alone
            return [
                _Token(kind or "word", piece.lower(), at, at + len(piece), binds=bool(kind))
                for (piece, at), kind in zip(pieces, kinds, strict=True)
            ]
    if any(letter.isdigit() for letter in text):
        return [_code(lower, start, end)]
    return [_Token("letter" if len(text) == 1 else "word", lower, start, end)]


def _is_run_together(lower: str) -> bool:
    """Whether a name is known words written as one, a sequence among them: axt1, inplanet2, 3dflair, t1sag."""
    if not any(core in lower for core in words.CORE_SEQUENCE):
        return False
    # By length: is lower[:n] made of known words, and was one of them a sequence?
    reached: dict[int, bool] = {0: False}
    for start in range(len(lower)):
        if start in reached:
            for end in range(start + 2, len(lower) + 1):
                word = lower[start:end]
                if word in _KNOWN or word.isdigit():
                    core = reached[start] or word in words.CORE_SEQUENCE
                    reached[end] = reached.get(end, False) or core
    return reached.get(len(lower), False)


def _single(piece: str) -> str:
    return "letter" if len(piece) == 1 else ""


def _code(lower: str, start: int, end: int) -> _Token:
    numbers = re.findall(r"\d+", lower)
    return _Token("code", lower, start, end, int(numbers[-1]) if numbers else None)


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
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
            tokens.append(_Token(kind, match.group().lower(), match.start(), match.end()))
            at = match.end()
    return tokens


@functools.lru_cache(maxsize=1 << 16)
def parse(text: str) -> Parsed:
    """Take a folder's name, or a file's without its suffixes, apart."""
    parsed = Parsed()
    tokens = _without_entities(text, _tokens(text))
    kinds = {token.kind for token in tokens}
    if kinds == {"split"}:
        parsed.split = text.lower()
        return parsed
    after_sequence = after_date = False
    at = 0
    while at < len(tokens):
        token, following = tokens[at], tokens[at + 1] if at + 1 < len(tokens) else None
        used = 1
        bound = following if token.binds and following and following.kind in ("number", "letter") else None
        if at == 0 and token.kind in ("proc", "generic", "sequence") and _is_initials(token, following):
            token.kind = "word"
        if token.kind == "date":
            parsed.sessions.append(text[token.start : token.end])
            after_date = at > 0  # t1_20200102101112_3: a series; 20200102_0007 may be a person
        elif token.kind == "hash":
            parsed.atoms.append(Atom(CODE, "hash", (token.text,), token.start, token.end))
        elif token.kind == "uid":  # of an examination or a series; of a person where nothing else is
            parsed.atoms.append(Atom(COUNTER, "uid", (token.text,), token.start, token.end))
        elif token.kind == "month":
            parsed.sessions.append(text[token.start : token.end])
        elif token.kind == "sequence":
            after_sequence = True
            if bound and bound.kind == "number":
                used = 2
                _count(parsed, bound, after_date)
            elif token.number is not None:
                _count(parsed, token, after_date)
        elif token.kind == "unit":
            pass
        elif token.kind == "session" and token.text not in words.CONTRAST | {"repeat", "run", "runs"}:
            end = bound.end if bound else token.end
            used = 2 if bound else 1
            if len(token.text) == 1 and token.number is not None:
                key: tuple[str | int, ...] = (token.text, token.number)
                parsed.letters.append(_atom(COUNTER, f"letter {token.text}", key, token, token, text))
            parsed.sessions.append(text[token.start : end])
        elif token.kind == "session":
            used = 2 if bound else 1
            if len(tokens) == used:
                parsed.sessions.append(text[token.start : (bound or token).end])
        elif token.kind == "site":
            value: tuple[str | int, ...] = (token.text,)
            end = token.end
            if token.number is not None or token.letter:
                value += (token.letter if token.number is None else token.number,)
            elif following and following.kind in ("number", "letter", "code") and _is_place(token.text):
                used, end = 2, following.end
                value += (following.number if following.kind == "number" else following.text,)  # type: ignore[operator]
            elif following and following.kind == "number":
                # HC_01, LGG_12: a group and a number in it
                used, end = 2, following.end
                atom = (token.text, following.number or 0)
                parsed.atoms.append(_atom(CODE, "a9", atom, token, following, text))
                value = ()
            if value and parsed.atoms and token.text not in _PLACES:
                parsed.sessions.append(text[token.start : end])  # P01_study2, P01_scanner2: one person twice
            elif value:
                parsed.sites.append(value)
                parsed.site_text.append(text[token.start : end])
        elif token.kind == "marker":
            used = _marker(parsed, text, tokens, at, after_sequence)
        elif token.kind in ("generic", "proc", "split"):
            after_sequence = after_sequence or token.kind == "proc"  # brain_only, reg_rigid
            if token.number is not None:
                _count(parsed, token, after_date)
            elif bound and token.kind == "split":
                parsed.atoms.append(_atom(CODE, "a9", (token.text, bound.number or 0), token, bound, text))
                used = 2
            elif bound and bound.kind == "number":
                _count(parsed, bound, after_date)
                used = 2
        elif token.kind == "number" and _counts_time(tokens, at):
            assert following is not None
            parsed.sessions.append(text[token.start : following.end])  # 24_months
            used = 2
        elif token.kind == "number":
            _number(parsed, text, tokens, at, after_sequence, after_date)
        elif token.kind in ("word", "letter", "code"):
            used = _unknown(parsed, text, tokens, at, after_sequence)
        at += used
    return parsed


_PLACES = frozenset(
    ("site", "sites", "center", "centre", "hospital", "hosp", "clinic", "institute", "institution")
)


def _counts_time(tokens: list[_Token], at: int) -> bool:
    """Whether a number stands before months or weeks: 24_months, but not 0012_month_6."""
    number, following, after = tokens[at], *(tokens[at + 1 : at + 3] + [None, None])[:2]
    if following is None or following.number is not None or len(number.text) > 2:
        return False
    return following.text in words.UNITS["session"] and not (after and after.kind == "number")


def _is_initials(token: _Token, following: _Token | None) -> bool:
    """Two letters and a number, such as NO-01, that are a person's though the letters are also a known word."""
    known = token.text in ("mr", "se", "im", "sr") or any(letter.isdigit() for letter in token.text)
    return bool(following and following.kind == "number" and len(token.text) == 2 and not known)


def _is_place(word: str) -> bool:
    return word in (
        *_PLACES,
        *(
            "study",
            "inst",
            "univ",
            "university",
            "lab",
            "scanner",
            "location",
            "cohort",
            "dataset",
            "ds",
            "group",
            "grp",
        ),
        *(
            "batch",
            "arm",
            "part",
            "subset",
            "chunk",
            "disc",
            "disk",
            "release",
            "shard",
            "vendor",
            "collection",
        ),
        *("db", "region", "country", "city"),
    )


def _without_entities(text: str, tokens: list[_Token]) -> list[_Token]:
    """Without `acq-highres`, `run-2` and their like, whose values name no person."""
    kept: list[_Token] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        following = tokens[at + 1] if at + 1 < len(tokens) else None
        entity = token.number is None and token.text in words.ENTITIES
        if entity and at > 0 and following and text[token.end : following.start] == "-":
            at += 2
            while at < len(tokens) and text[tokens[at - 1].end : tokens[at].start] == "":
                at += 1
            continue
        kept.append(token)
        at += 1
    return kept


def _count(parsed: Parsed, token: _Token, after_date: bool) -> None:
    """A number that counts pictures, scans or series; it may count people where nothing else does."""
    if after_date or token.number is None:
        return
    digits = len(re.sub(r"\D", "", token.text)) if token.kind == "number" else 0
    parsed.atoms.append(
        Atom(COUNTER, "counter", (token.number,), token.start, token.end, digits, token.number)
    )


def _atom(rank: int, shape: str, key: tuple[str | int, ...], first: _Token, last: _Token, text: str) -> Atom:
    digits = re.findall(r"\d+", text[first.start : last.end])
    width, number = (len(digits[-1]), int(digits[-1])) if digits else (0, None)
    return Atom(rank, shape, key, first.start, last.end, width, number)


def _marker(parsed: Parsed, text: str, tokens: list[_Token], at: int, after_sequence: bool) -> int:
    token = tokens[at]
    following = tokens[at + 1] if at + 1 < len(tokens) else None
    strong = token.text in words.STRONG_MARKER
    if token.number is not None:
        digits = re.findall(r"\d+", text[token.start : token.end])[-1]
        letter = len(token.text) == 1
        rank = MARKED if strong else CODE
        if after_sequence and (letter and len(digits) == 1):
            return 1  # p2 and s3 behind a sequence: acceleration, series
        shape = f"mark {token.text}" if rank == MARKED else "a9"
        parsed.atoms.append(_atom(rank, shape, (token.text, token.number), token, token, text))
        return 1
    if following and following.kind in ("number", "code", "letter", "hash", "word"):
        if following.kind == "word" and token.text not in (
            "sub",
            "subj",
            "subject",
            "patient",
            "participant",
        ):
            return 1
        value: str | int = following.number or 0 if following.kind == "number" else following.text
        rank = MARKED if strong else CODE
        shape = f"mark {token.text}" if rank == MARKED else "a9"
        used, last = 2, following
        after = tokens[at + 2] if at + 2 < len(tokens) else None
        key: tuple[str | int, ...] = (token.text, value)
        if (
            following.kind in ("letter", "code", "word")
            and after
            and after.kind == "number"
            and text[following.end : after.start] in ("", "-")
        ):
            used, last, key = 3, after, (*key, after.number or 0)  # subject A-12
        parsed.atoms.append(_atom(rank, shape, key, token, last, text))
        return used
    if len(tokens) == 1 and token.text not in ("control", "normal", "human", "animal", "donor"):
        return 1
    if token.text in ("control", "ctrl", "ctl", "hc", "normal", "healthycontrol"):
        parsed.sites.append((token.text,))
        parsed.site_text.append(text[token.start : token.end])
    return 1


def _number(
    parsed: Parsed, text: str, tokens: list[_Token], at: int, after_sequence: bool, after_date: bool
) -> None:
    token = tokens[at]
    last = at == len(tokens) - 1
    if after_date:
        return
    if (
        last
        and len(token.text) == 4
        and (token.number or 0) < 20
        and parsed.atoms
        and parsed.atoms[-1].widths
    ):
        return  # nnU-Net's channels: BRATS_001_0000
    if len(token.text) == 4 and 1980 <= (token.number or 0) < 2040 and token.text[0] != "0":
        parsed.atoms.append(Atom(COUNTER, "year", (token.number or 0,), token.start, token.end))
        return
    rank = NUMBER if len(token.text) < 5 else CODE
    if after_sequence:
        rank = COUNTER
    shape = "counter" if rank == COUNTER else "9" if rank == NUMBER else "99999"
    parsed.atoms.append(_atom(rank, shape, (token.number or 0,), token, token, text))


def _unknown(parsed: Parsed, text: str, tokens: list[_Token], at: int, after_sequence: bool) -> int:
    """An unknown word, or words and a number that count something unknown: anna, BRATS_001, M2006, UPENN-GBM-00001."""
    first = tokens[at]
    last, used = first, 1
    key: list[str | int] = list(_pieces(first.text))
    numbered = first.kind == "code"
    while not numbered and at + used < len(tokens):
        following = tokens[at + used]
        if following.kind == "number":
            key.append(following.number or 0)
            last, numbered, used = following, True, used + 1
        elif following.kind in ("word", "letter") or (
            following.kind == "split"
            and at + used + 1 < len(tokens)
            and tokens[at + used + 1].kind == "number"
        ):
            ahead = next(
                (each.kind for each in tokens[at + used :] if each.kind not in ("word", "letter", "split")),
                "",
            )
            if ahead != "number":
                break
            key.append(following.text)
            last, used = following, used + 1
        else:
            break
    if numbered:
        rank = NUMBER if after_sequence else CODE
        parsed.atoms.append(_atom(rank, "a9", tuple(key), first, last, text))
        return used
    rank = COUNTER if after_sequence else WORD
    parsed.atoms.append(_atom(rank, "word", tuple(key), first, first, text))
    return 1


def _pieces(text: str) -> list[str | int]:
    return [int(piece) if piece.isdigit() else piece for piece in _PIECES.findall(text)]
