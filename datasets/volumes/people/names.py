"""A unique name for every person."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from mri_transfer.datasets.volumes.people.evidence import Guess, Key


def names_of(guesses: Sequence[Guess]) -> dict[Key, str]:
    """A name for each key: the id in its most frequent spelling, prefixed with as much scope as needed."""
    longer: dict[Key, set[str]] = defaultdict(set)
    for guess in guesses:
        longer[guess.key].add(guess.longer)
    written: dict[Key, Counter[tuple[str, tuple[str, ...]]]] = defaultdict(Counter)
    for guess in guesses:
        alone = len(longer[guess.key]) == 1 and guess.longer
        written[guess.key][guess.longer if alone else guess.name, tuple(guess.scopes)] += 1
    return _unique({key: min(ways, key=lambda way: (-ways[way], way)) for key, ways in written.items()})


def _unique(names: Mapping[Key, tuple[str, Sequence[str]]]) -> dict[Key, str]:
    """A name for each person: its own, prefixed with its scopes, nearest first, until unique."""
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
    for key in sorted(names, key=repr):  # the remaining ones differ only in case or separators
        base, number = final[key], 1
        while counts[final[key]]:
            number += 1
            final[key] = f"{base} ({number})"
        counts[final[key]] += 1
    return final
