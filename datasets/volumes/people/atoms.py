"""Parse one folder or file name: parts that could be a person, a session or a site, and the rest."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field

from mri_transfer.datasets.volumes.people import vocabulary
from mri_transfer.datasets.volumes.people.tokens import Token, tokens_of

# How much an atom by itself looks like a person.
COUNTER, WORD, NUMBER, CODE, MARKED = 1, 2, 3, 4, 5

_PIECES = re.compile(r"\d+|[^\W\d_]+")
# Folders of examinations and of series in the Cancer Imaging Archive: a date or a number, words, part of a UID.
_ARCHIVED = re.compile(r"(?:(?P<date>\d\d-\d\d-\d{4}|\d{4}-\d\d-\d\d)-.*|\d+\.\d{6}-.*)-\d{5}", re.DOTALL)
# HNSCC-01-0001 and 900-00-1961, but not a month and a year after a name.
_TRIPLE = re.compile(r"(?:[A-Za-z]{2,}|\d{3})-(?!(?:0[1-9]|1[0-2])-(?:19|20))\d\d-\d{4}")
_NAMED = ("sub", "subj", "subject", "patient", "participant")  # before a name as well: subject anna


@dataclass(frozen=True)
class Atom:
    """Part of a name that may identify a person.

    Attributes:
        rank: COUNTER to MARKED.
        shape: atoms of one shape denote the same kind of thing.
        key: equal for equal atoms, ignoring case, separators and leading zeros.
        start, end: its position in the name.
        widths: digits of its last number, 0 without one.
    """

    rank: int
    shape: str
    key: tuple[str | int, ...]
    start: int
    end: int
    widths: int = 0

    @property
    def is_code(self) -> bool:
        """Whether it is words with a number, such as BRATS_001."""
        return self.shape in ("a9", "aa9")

    @property
    def is_small_s(self) -> bool:
        """S1 to S9, which may be a subject, a session or a scan."""
        return self.key[0] == "s" and self.widths == 1


@dataclass
class Parsed:
    """A parsed name.

    Attributes:
        atoms: those that may be persons, in order.
        sessions: words that distinguish scans of a person, as written.
        sites: keys of sites, groups and data sets, which scope ids below and beside them.
        split: it is only a part of a split (train, test).
        fold: that split is one of cross-validation.
        site_text: the sites as written.
        letters: sessions of one letter and a number (M17, V2), which may be people if nothing else is.
    """

    atoms: list[Atom] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    sites: list[tuple[str | int, ...]] = field(default_factory=list)
    site_text: list[str] = field(default_factory=list)
    letters: list[Atom] = field(default_factory=list)
    split: str = ""
    fold: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether it names no person, site or part of a split."""
        return not self.atoms and not self.sites and not self.split


@functools.lru_cache(maxsize=1 << 16)
def parse(text: str) -> Parsed:
    """Parse a folder name, or a file name without suffixes."""
    return _Reading(text).read()


class _Reading:
    """One name, read from left to right."""

    def __init__(self, text: str):
        self.text, self.tokens, self.parsed = text, tokens_of(text), Parsed()
        self.after_step = self.after_date = False

    def read(self) -> Parsed:
        if archived := _ARCHIVED.fullmatch(self.text):
            self.parsed.sessions += [archived["date"]] if archived["date"] else []
            return self.parsed
        if _TRIPLE.fullmatch(self.text):
            self.parsed.atoms.append(Atom(CODE, "hash", (self.text.lower(),), 0, len(self.text)))
            return self.parsed
        # A fold's number is not a person's: fold_1
        numbered = [at for at, token in enumerate(self.tokens) if at and token.kind == "number"]
        numbered = [at for at in numbered if self.tokens[at - 1].text in vocabulary.FOLD]
        kinds = {token.kind for at, token in enumerate(self.tokens) if at not in numbered}
        if "split" in kinds and kinds <= {"split", "generic"} and not any(map(_numbers_people, self.tokens)):
            # TrainingData as well as training, and fold1
            parts = [token.text for token in self.tokens if token.kind == "split"]
            self.parsed.split, self.parsed.fold = "_".join(parts), not vocabulary.FOLD.isdisjoint(parts)
            return self.parsed
        at = 0
        while at < len(self.tokens):
            at += self._take(at)
        return self.parsed

    def _take(self, at: int) -> int:
        """Consume a token and those that belong to it; returns their number."""
        token, following = self.tokens[at], self._token(at + 1)
        kind = token.kind
        bound = following if token.binds and following and following.kind in ("number", "letter") else None
        if at == 0 and kind in ("proc", "generic", "sequence") and _is_initials(token, following):
            kind = "word"
        if kind in ("date", "month"):
            self.parsed.sessions.append(self._text(token))
            # t1_20200102101112_3: a series; 20200102_0007 may be a person.
            self.after_date = self.after_date or (kind == "date" and at > 0)
        elif kind == "hash":
            self.parsed.atoms.append(Atom(CODE, "hash", (token.text,), token.start, token.end))
        elif kind == "uid":  # an examination or a series; a person if nothing else is
            self.parsed.atoms.append(Atom(COUNTER, "uid", (token.text,), token.start, token.end))
        elif kind == "session":
            return self._session(token, bound)
        elif kind == "site":
            return self._site(token, following)
        elif kind == "marker":
            return self._marker(at)
        elif kind in ("sequence", "generic", "proc", "split"):
            self.after_step = self.after_step or kind in ("sequence", "proc")
            return self._counter(token, bound, kind)
        elif kind == "number":
            return self._number(at)
        elif kind in ("word", "letter", "code"):
            return self._unknown(at)
        return 1

    def _token(self, at: int) -> Token | None:
        return self.tokens[at] if at < len(self.tokens) else None

    def _text(self, first: Token, last: Token | None = None) -> str:
        return self.text[first.start : (last or first).end]

    def _add(
        self, rank: int, shape: str, key: tuple[str | int, ...], first: Token, last: Token | None = None
    ) -> None:
        self.parsed.atoms.append(self._atom(rank, shape, key, first, last or first))

    def _atom(self, rank: int, shape: str, key: tuple[str | int, ...], first: Token, last: Token) -> Atom:
        digits = re.findall(r"\d+", self._text(first, last))
        return Atom(rank, shape, key, first.start, last.end, len(digits[-1]) if digits else 0)

    def _session(self, token: Token, bound: Token | None) -> int:
        count = 2 if bound else 1
        # In T1_pre and reg_T1_run_2 they denote contrast and repeats; alone, they distinguish sessions.
        if token.text not in vocabulary.CONTRAST | {"repeat", "run", "runs"} or len(self.tokens) == count:
            self.parsed.sessions.append(self._text(token, bound))
            if len(token.text) == 1 and token.number is not None:
                letter = self._atom(COUNTER, f"letter {token.text}", (token.text, token.number), token, token)
                self.parsed.letters.append(letter)
        return count

    def _site(self, token: Token, following: Token | None) -> int:
        value: tuple[str | int, ...] = (token.text,)
        last, count = token, 1
        if token.number is not None:
            value = (token.text, token.number)
        elif token.letter:
            value = (token.text, token.letter)
        elif (
            following
            and token.text in vocabulary.NUMBERED_SITE
            and following.kind in ("number", "letter", "code")
        ):
            last, count = following, 2
            value = (token.text, _value(following))
        elif following and following.kind == "number":  # HC_01: a group and a number in it
            self._add(CODE, "a9", (token.text, following.number or 0), token, following)
            return 2
        if self.parsed.atoms and token.text not in vocabulary.PLACE:
            self.parsed.sessions.append(
                self._text(token, last)
            )  # P01_study2, P01_scanner2: the same person again
        else:
            self.parsed.sites.append(value)
            self.parsed.site_text.append(self._text(token, last))
        return count

    def _counter(self, token: Token, bound: Token | None, kind: str) -> int:
        """A number that counts pictures, scans or series; it may count people if nothing else does."""
        if token.text in vocabulary.FOLD:
            return 2 if bound else 1
        if _numbers_people(token):
            self._add(CODE, "a9", (token.text, token.number or 0), token)
            return 1
        if kind == "split" and bound and token.number is None:
            self._add(CODE, "a9", (token.text, _value(bound)), token, bound)
            return 2
        counts = token if token.number is not None else bound if bound and bound.kind == "number" else None
        if counts is not None and not self.after_date:
            widths = len(re.findall(r"\d+", self._text(counts))[-1])
            atom = Atom(COUNTER, "counter", (counts.number or 0,), counts.start, counts.end, widths)
            self.parsed.atoms.append(atom)
        return 2 if counts is not None and counts is bound else 1

    def _marker(self, at: int) -> int:
        """A word before a person's number or name: sub-01, patient7, subject_anna, case A-12."""
        token, following = self.tokens[at], self._token(at + 1)
        strong = token.text in vocabulary.STRONG_MARKER
        rank, shape = (MARKED, f"mark {token.text}") if strong else (CODE, "a9")
        if token.number is not None:
            digits = re.findall(r"\d+", self._text(token))[-1]
            if not (self.after_step and len(token.text) == 1 and len(digits) == 1):
                self._add(rank, shape, (token.text, token.number), token)
            return 1  # p2 and s3 after a sequence: acceleration, series
        if following and following.kind in ("number", "code", "letter", "hash", "word"):
            if following.kind == "word" and token.text not in _NAMED:
                return 1
            key: tuple[str | int, ...] = (token.text, _value(following))
            last, count, after = following, 2, self._token(at + 2)
            is_more = following.kind != "number" and after is not None and after.kind == "number"
            if is_more and after and self.text[following.end : after.start] in ("", "-"):  # subject A-12
                last, count, key = after, 3, (*key, after.number or 0)
            self._add(rank, shape, key, token, last)
            return count
        if token.text in ("control", "ctrl", "ctl", "hc", "normal", "healthycontrol"):
            self.parsed.sites.append((token.text,))
            self.parsed.site_text.append(self._text(token))
        return 1

    def _number(self, at: int) -> int:
        token = self.tokens[at]
        number, width = token.number or 0, len(token.text)
        atoms = self.parsed.atoms
        if _counts_time(self.tokens, at):
            self.parsed.sessions.append(self._text(token, self.tokens[at + 1]))  # 24_months
            return 2
        if self.after_date:
            return 1
        if at == len(self.tokens) - 1 and width == 4 and number < 20 and atoms and atoms[-1].widths:
            return 1  # nnU-Net's channels: BRATS_001_0000
        if width == 4 and 1980 <= number < 2040:
            self.parsed.atoms.append(Atom(COUNTER, "year", (number,), token.start, token.end))
        elif self.after_step:
            self._add(COUNTER, "counter", (number,), token)
        elif width < 5:
            self._add(NUMBER, "9", (number,), token)
        else:
            self._add(CODE, "99999", (number,), token)
        return 1

    def _unknown(self, at: int) -> int:
        """Unknown words, with or without a number: anna, BRATS_001, M2006, UPENN-GBM-00001."""
        first = last = self.tokens[at]
        key: list[str | int] = [
            int(piece) if piece.isdigit() else piece for piece in _PIECES.findall(first.text)
        ]
        count, numbered = 1, first.kind == "code"
        while not numbered and (following := self._token(at + count)):
            if following.kind == "number":
                key.append(following.number or 0)
                last, numbered, count = following, True, count + 1
            elif following.kind in ("word", "letter", "split") and self._number_follows(at + count):
                key.append(following.text)
                last, count = following, count + 1
            else:
                break
        if numbered:
            several = sum(isinstance(piece, str) for piece in key) > 1
            shape = "aa9" if several else "a9"
            self._add(NUMBER if self.after_step else CODE, shape, tuple(key), first, last)
            return count
        self._add(COUNTER if self.after_step else WORD, "word", tuple(key), first)
        return 1

    def _number_follows(self, at: int) -> bool:
        """Whether the unknown words from here end in a number."""
        rest = (token.kind for token in self.tokens[at:])
        return next((kind for kind in rest if kind not in ("word", "letter", "split")), "") == "number"


def _numbers_people(token: Token) -> bool:
    """Whether a part of a split has a number of several digits: training01, but not fold1."""
    digits = token.end - token.start - len(token.text)
    if token.text in vocabulary.FOLD:
        return False
    return token.kind == "split" and token.number is not None and digits > 1


def _value(token: Token) -> str | int:
    return (token.number or 0) if token.kind == "number" else token.text


def _counts_time(tokens: list[Token], at: int) -> bool:
    """Whether a number stands before months or weeks: 24_months, but not 0012_month_6."""
    following, after = [*tokens[at + 1 : at + 3], None, None][:2]
    if following is None or following.number is not None or len(tokens[at].text) > 2:
        return False
    return following.text in vocabulary.UNITS["session"] and not (after and after.kind == "number")


def _is_initials(token: Token, following: Token | None) -> bool:
    """Two letters and a number, such as NO-01, that are a person's even though the letters are a known word."""
    is_known = token.text in ("mr", "se", "im", "sr") or any(letter.isdigit() for letter in token.text)
    return bool(following and following.kind == "number" and len(token.text) == 2 and not is_known)
