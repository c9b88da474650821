"""From a path to the chain of atoms used to judge the tree's shape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from mri_transfer.datasets.volumes.naming import sequence_of
from mri_transfer.datasets.volumes.people.atoms import COUNTER, MARKED, NUMBER, WORD, Atom, Parsed
from mri_transfer.datasets.volumes.people.evidence import File
from mri_transfer.datasets.volumes.people.tree import Chain

_MOST_VISITS = 6  # M1 to M6 may be visits; more are people


def chains_of(files: Sequence[File], parsed: Sequence[Sequence[Parsed]], side_by_side: bool) -> list[Chain]:
    """The chain of each path.

    Args:
        files: the files.
        parsed: the parsed parts of each path.
        side_by_side: several sibling folders were given, as when each is a person's.
    """
    chains = [_chain(file, names, side_by_side) for file, names in zip(files, parsed, strict=True)]
    return _with_letters(_without_series(files, chains), parsed)


def _without_series(files: Sequence[File], chains: list[Chain]) -> list[Chain]:
    """Drop series numbers, as in `alice/3_t1` and `alice/5_t2`: in each folder all numbers and all names differ."""
    folders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, (file, chain) in enumerate(zip(files, chains, strict=True)):
        last = len(file.parts) - 1
        own_atom = chain.atoms[-1] if chain.parts[-1:] == (last,) and not file.picture else None
        alone = last not in chain.parts[:-1]  # the only atom of its name, with another one above
        if (
            own_atom
            and alone
            and chain.parts[0] < last
            and own_atom.rank == NUMBER
            and own_atom.start == 0
            and own_atom.widths < 3
        ):
            folders[(file.top, *file.parts[:-1])] += [number] if sequence_of(file.parts[last]) else []
    several = 0
    for members in folders.values():
        keys = {chains[number].atoms[-1].key for number in members}
        names = {files[number].parts[-1][chains[number].atoms[-1].end :] for number in members}
        if len(keys) < len(members) or len(names) < len(members):
            return chains
        several += len(members) > 1
    if several < 2:
        return chains
    series = {number for members in folders.values() for number in members}
    return [
        Chain(chain.atoms[:-1], chain.parts[:-1]) if number in series else chain
        for number, chain in enumerate(chains)
    ]


def _chain(file: File, parsed: Sequence[Parsed], side_by_side: bool) -> Chain:
    """The atoms of a path; an id repeated below (P01/P01_T1) counts once."""
    atoms: list[Atom] = []
    parts: list[int] = []
    for number, name in enumerate(parsed):
        last = number == len(parsed) - 1
        candidates = name.atoms
        if number == 0:
            # The given folder is the same for all; it is a person only if it says so.
            candidates = [
                atom
                for atom in candidates
                if atom.rank == MARKED or (side_by_side and (atom.rank == NUMBER or atom.shape == "99999"))
            ]
        if file.picture and last and len(file.parts) > 1:
            candidates = _without_slice(candidates, file.parts[number])
        for atom in candidates:
            if not any(atom.key == other.key and min(atom.rank, other.rank) > NUMBER for other in atoms):
                atoms.append(atom)
                parts.append(number)
    return Chain(tuple(atoms), tuple(parts))


def _with_letters(chains: list[Chain], parsed: Sequence[Sequence[Parsed]]) -> list[Chain]:
    """If nothing else can be a person, M17/ and M18/ are, given sessions below or more of them than visits."""
    letter_of: dict[int, tuple[Atom, int]] = {}
    sessions_below: set[str] = set()
    values: dict[str, set[tuple[str | int, ...]]] = defaultdict(set)
    for number, (chain, names) in enumerate(zip(chains, parsed, strict=True)):
        letters = [(atom, depth) for depth, name in enumerate(names) if depth for atom in name.letters]
        if not letters or any(atom.shape != "uid" for atom in chain.atoms):
            continue
        letter_of[number] = letters[0]
        atom = letters[0][0]
        values[atom.shape].add(atom.key)
        if chain.atoms or sum(len(name.sessions) for name in names[1:]) > 1:
            sessions_below.add(atom.shape)
    # M01 beside F01
    lone = any(
        chain.atoms and chain.atoms[0].shape == "a9" and len(str(chain.atoms[0].key[0])) == 1
        for number, chain in enumerate(chains)
        if number not in letter_of
    )
    return [
        Chain((letter_of[number][0],), (letter_of[number][1],))
        if number in letter_of
        and (
            lone
            or letter_of[number][0].shape in sessions_below
            or len(values[letter_of[number][0].shape]) > _MOST_VISITS
        )
        else chain
        for number, chain in enumerate(chains)
    ]


def _without_slice(atoms: list[Atom], text: str) -> list[Atom]:
    """Drop the slice counter of a picture's name: the last number, unless a word for a person precedes it."""
    core = [atom for atom in atoms if atom.rank > COUNTER]
    if core and core[-1].rank in (NUMBER,):
        return core[:-1]
    if core and core[-1].is_code and len(core[-1].key) > 1 and isinstance(core[-1].key[-1], int):
        last = core[-1]
        words = tuple(key for key in last.key[:-1])
        if len(core) == 1 and len(words) == 1 and len(str(words[0])) == 1:
            return core  # s1.png
        end = last.start + len(text[last.start : last.end].rstrip("0123456789").rstrip("-_. "))
        if any(isinstance(word, int) for word in words):
            return [*core[:-1], replace(last, key=words, end=end)]
        return [*core[:-1], replace(last, rank=WORD, shape="word", key=words, end=end)]
    return core
