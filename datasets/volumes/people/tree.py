"""Identify people by a tree's shape: the person is the level whose values differ while everything below repeats.

A path is read as a chain of atoms, from its first folder to the end of the file's name: words and numbers that may be a
person, without those known to be something else. Going down, one atom is taken as the person; the next replaces it if
it distinguishes people better, and the former becomes its scope, such as a site. This is decided for whole groups of
paths with similar atoms, never for a single path.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from mri_transfer.datasets.volumes.people.atoms import CODE, COUNTER, MARKED, NUMBER, WORD, Atom

_PADDED = 3  # digits of a counter of people
_MANY = 8  # this many values below one are too many for one person's sessions


@dataclass(frozen=True)
class Chosen:
    """Indices in a chain of the person's atom and of its scope; -1 if there is none."""

    person: int
    scope: tuple[int, ...] = ()


@dataclass(frozen=True)
class Chain:
    """The atoms of a path, each with the index of its part of the path."""

    atoms: tuple[Atom, ...]
    parts: tuple[int, ...]


def choose(chains: Sequence[Chain]) -> list[Chosen]:
    """The person's atom in each path."""
    result = [Chosen(-1)] * len(chains)
    first: dict[str, list[int]] = defaultdict(list)
    for number, chain in enumerate(chains):
        if chain.atoms:
            first[chain.atoms[0].shape].append(number)
    for group in first.values():
        _descend(chains, group, 0, 1, (), result)
    return result


def _descend(
    chains: Sequence[Chain],
    group: list[int],
    current: int,
    following: int,
    scope: tuple[int, ...],
    result: list[Chosen],
) -> None:
    """For paths whose atom `current` has one shape, decide whether the atom `following` replaces it."""
    rest: dict[str, list[int]] = defaultdict(list)
    ended: set[tuple] = set()
    everyone: set[tuple] = set()
    for number in group:
        chain = chains[number]
        value = _value(chain, (*scope, current))
        everyone.add(value)
        if len(chain.atoms) <= following:
            result[number] = Chosen(current, scope)
            ended.add(value)
        else:
            rest[chain.atoms[following].shape].append(number)
    ended -= {_value(chains[number], (*scope, current)) for members in rest.values() for number in members}
    for members in rest.values():
        if _replaces(chains, members, current, following, scope, everyone, ended):
            _descend(chains, members, following, following + 1, (*scope, current), result)
        else:
            _descend(chains, members, current, following + 1, scope, result)


def _value(chain: Chain, indices: tuple[int, ...]) -> tuple:
    return tuple(chain.atoms[index].key for index in indices)


def _replaces(
    chains: Sequence[Chain],
    members: list[int],
    current: int,
    following: int,
    scope: tuple[int, ...],
    everyone: set[tuple],
    ended: set[tuple],
) -> bool:
    """Whether the following atom is the person, and the held one only the place of the scan."""
    above, below = chains[members[0]].atoms[current], chains[members[0]].atoms[following]
    same_name = chains[members[0]].parts[current] == chains[members[0]].parts[following]
    values: dict[tuple, set[tuple]] = defaultdict(set)  # of the held atom → of the following one
    under: dict[tuple, set[tuple]] = defaultdict(set)  # of the following → of the held
    for number in members:
        high, low = _value(chains[number], (*scope, current)), chains[number].atoms[following].key
        values[high].add(low)
        under[low].add(high)
    high_count, low_count = len(values), len(under)
    pairs = sum(len(low) for low in values.values())
    mean = pairs / high_count
    recurs = sum(len(high) > 1 for high in under.values()) / low_count
    rank, new = above.rank, below.rank
    if new == MARKED and rank < MARKED:
        return True
    if rank == MARKED and new < MARKED:
        return False
    if below.shape == "uid" and (rank > COUNTER or above.shape == "uid"):
        return False  # examinations and series
    if len(everyone) > 1 and 2 * len(ended) >= len(everyone):
        return False  # most of those above are complete without it
    if rank == COUNTER and new > COUNTER:
        return not (below.is_small_s and high_count > 1)
    if low_count == 1 and len(everyone) > 1:
        return False  # everything below repeats
    if new == COUNTER:
        if rank == COUNTER:
            return high_count == 1 and pairs > 1 and above.shape == below.shape and not same_name
        if rank != WORD:
            return False
        if len(everyone) == 1:
            return pairs > 1
        if _width(chains, members, following) < _PADDED:
            return mean > _MANY and mean > 3 * high_count
        new = NUMBER  # img_0001 and on: nobody numbers one person's scans like this
    wider = _width(chains, members, following) - _width(chains, members, current)
    if high_count == 1 and len(everyone) == 1:
        if pairs == 1:
            return new > rank
        if same_name and rank == CODE and new >= NUMBER:
            return True  # OASIS-TRT-20-1
        if rank == WORD:
            return True
        if new == WORD:
            return False
        if rank == CODE and above.is_code and new in (NUMBER, CODE):
            return low_count > 3 or new == CODE or not _counts_up(under)
        return rank == NUMBER and new == CODE
    if recurs < 0.2:
        if mean == 1:
            return new > rank and not same_name
        if new == rank:
            if rank == WORD:
                return True
            if above.is_code and above.widths == 1 and below.widths >= 4:
                return len(str(above.key[0])) > 2  # BNU_1/0025864: a site's number and a person's
            return mean >= 4 and mean > 2 * len(everyone)
        return new > rank or (mean > _MANY and mean > 2 * high_count)
    if rank == WORD and new in (NUMBER, CODE):
        few = mean <= 2 < len(everyone) and _counts_up(under)  # sessions of people with names
        return not few and not (len(everyone) >= 4 and mean < len(everyone) / 2)
    if rank == WORD:
        # MGH_anna, MGH_bert: a site's name before the person's.
        # john_smith, john_doe, jane_smith: as many second words as first ones, and not in all combinations.
        full_names = same_name and low_count >= high_count > 1 and high_count < pairs < high_count * low_count
        return full_names or mean > (high_count if same_name else max(_MANY, 3 * high_count))
    if new == WORD:
        return False
    if mean > 2 * high_count and mean >= 6:
        return True
    return wider > 0 and (mean > high_count or (same_name and rank == new == NUMBER))


def _counts_up(under: dict[tuple, set[tuple]]) -> bool:
    """Whether numbers run 1, 2, 3, as sessions do."""
    numbers = sorted(key[-1] for key in under if isinstance(key[-1], int))
    return numbers in (list(range(1, len(numbers) + 1)), list(range(len(numbers))))


def _width(chains: Sequence[Chain], members: list[int], index: int) -> int:
    return max(chains[number].atoms[index].widths for number in members)
