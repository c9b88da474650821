"""A name for every person that no other has."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from mri_transfer.datasets.volumes.people.evidence import Guess, Key


def names_of(guesses: Sequence[Guess]) -> dict[Key, str]:
    """A name for each key: the id as it is written most often, and before it as much of its scope as is needed."""
    longer: dict[Key, set[str]] = defaultdict(set)
    for guess in guesses:
        longer[guess.key].add(guess.longer)
    written: dict[Key, Counter[tuple[str, tuple[str, ...]]]] = defaultdict(Counter)
    for guess in guesses:
        alone = len(longer[guess.key]) == 1 and guess.longer
        written[guess.key][guess.longer if alone else guess.name, tuple(guess.scopes)] += 1
    return _unique({key: min(ways, key=lambda way: (-ways[way], way)) for key, ways in written.items()})


def _unique(names: Mapping[Key, tuple[str, Sequence[str]]]) -> dict[Key, str]:
    """A name for each person: its own, and before it its scopes, the nearest first, for as long as others have it."""
    final = {key: name for key, (name, _) in names.items()}
    depth: dict[Key, int] = dict.fromkeys(names, 0)
    while True:
        counts = Counter(final.values())
        doubtful = [key for key in names if counts[final[key]] > 1]
        grown = False
        for key in doubtful:
            name, scopes = names[key]
            while depth[key] < len(scopes):
                depth[key] += 1
                longer = "/".join([*reversed(scopes[: depth[key]]), name])
                if longer != final[key]:
                    final[key], grown = longer, True
                    break
        if not grown:
            break
    counts = Counter()
    for key in sorted(names, key=repr):  # what is left differs in case or separators only
        base, number = final[key], 1
        while counts[final[key]]:
            number += 1
            final[key] = f"{base} ({number})"
        counts[final[key]] += 1
    return final
