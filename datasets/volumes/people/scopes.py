"""The scope of an id: the site, the group, the folder in which numbering restarts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from mri_transfer.datasets.volumes.people.atoms import COUNTER, NUMBER, Atom, Parsed
from mri_transfer.datasets.volumes.people.evidence import File
from mri_transfer.datasets.volumes.people.tree import Chain, Chosen

_MOST_COMPARED = 500  # folders compared pairwise


@dataclass(frozen=True)
class Scope:
    """The scope of an id.

    Attributes:
        firm: keys of sites, groups and data sets, which always count.
        soft: keys of unknown folders and of splits: they count if numbering restarts in them.
        texts: both as written.
    """

    firm: tuple[Hashable, ...] = ()
    soft: tuple[Hashable, ...] = ()
    texts: tuple[str, ...] = ()


def scope_of(
    file: File, parsed: Sequence[Parsed], chain: Chain, choice: Chosen, retested: bool = False
) -> Scope:
    """The scope of the chosen person's id, without the given folder and anything in derivatives/.

    Args:
        file, parsed, chain, choice: the file, its parsed path, the candidates for a person, and the one chosen.
        retested: the collection has a `retest`, so `test` is a session and not a part of a split.
    """
    firm: list[Hashable] = []
    soft: list[Hashable] = []
    texts: list[str] = []
    person_part = len(parsed) - 1 if choice.person < 0 else chain.parts[choice.person]
    folders = [part.lower() for part in file.parts]
    derivatives = folders.index("derivatives") if "derivatives" in folders else len(folders)
    folds = any(name.fold for name in parsed)  # fold0/train and fold1/val hold the same people
    for number, name in enumerate(parsed[: person_part + 1]):
        if number == 0 or derivatives < number < person_part:
            continue
        if name.sites:
            firm += name.sites
            texts.append("-".join(name.site_text))
        if name.split and not folds and not (retested and name.split == "test"):
            soft.append(("split", name.split))
            texts.append(name.split)
    for index in range(max(choice.person, 0)):
        number, atom = chain.parts[index], chain.atoms[index]
        if number == 0 or derivatives < number < person_part:
            continue
        if number == person_part and index not in choice.scope:
            continue
        if number < person_part and _counts_sessions(atom, chain.atoms[choice.person]):
            continue
        soft.append(atom.key)
        if number != person_part:  # otherwise it is part of the name
            texts.append(file.parts[number][atom.start : atom.end])
    return Scope(tuple(firm), tuple(soft), tuple(texts))


def _counts_sessions(atom: Atom, person: Atom) -> bool:
    """Whether a folder above a person's counts scans rather than sites: scan_1/P01, S1/P01."""
    return atom.rank == COUNTER or (person.widths > 1 and person.rank >= NUMBER and atom.is_small_s)


def mirrors(
    homes: Sequence[str], chains: Sequence[Chain], chosen: Sequence[Chosen], scopes: Sequence[Scope]
) -> Mapping[tuple[Hashable, ...], tuple[Hashable, ...]]:
    """Folders with the same people as another: their ids agree, and not just by counting from 1.

    Args:
        homes: the collection of each file.
        chains, chosen, scopes: of each file.

    Returns:
        (home, firm, soft) → the soft scope that represents all its mirrors.
    """
    ids_by_scope: dict[tuple[Hashable, ...], dict[tuple[Hashable, ...], set[tuple[str | int, ...]]]] = (
        defaultdict(lambda: defaultdict(set))
    )
    for home, chain, choice, scope in zip(homes, chains, chosen, scopes, strict=True):
        if choice.person >= 0:
            ids_by_scope[home, scope.firm][scope.soft].add(chain.atoms[choice.person].key)
    mirror_of: dict[tuple[Hashable, ...], tuple[Hashable, ...]] = {}
    for place, ids in ids_by_scope.items():
        softs = sorted(ids, key=repr)
        if len(softs) > _MOST_COMPARED:
            continue
        for at, soft in enumerate(softs):
            for other in softs[:at]:
                shared = ids[soft] & ids[other]
                enough = len(shared) >= max(2, 0.8 * min(len(ids[soft]), len(ids[other])))
                if enough and not _are_counted(shared):
                    mirror_of[(*place, soft)] = mirror_of.get((*place, other), other)
                    break
    return mirror_of


def _are_counted(keys: set[tuple[str | int, ...]]) -> bool:
    """Whether ids are consecutive, as when numbering restarts."""
    numbers = sorted(key[-1] for key in keys if isinstance(key[-1], int))
    if len(numbers) < len(keys):
        return False
    span = numbers[-1] - numbers[0] + 1
    return span <= 2 * len(numbers)
