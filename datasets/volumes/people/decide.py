"""Identify a whole collection: every file's data set, subject, session and sequence, with evidence.

Evidence, strongest first: the user (`--subject`; the table comes later), BIDS entities, DICOM's patient ID, ids of
well-known collections anywhere in the path, and the shape of the tree.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mri_transfer.datasets.volumes.naming import sequence_of
from mri_transfer.datasets.volumes.people.atoms import CODE, COUNTER, MARKED, NUMBER, WORD, parse
from mri_transfer.datasets.volumes.people.chains import chains_of
from mri_transfer.datasets.volumes.people.evidence import File, Guess, Key, Whose, collection_of
from mri_transfer.datasets.volumes.people.names import names_of
from mri_transfer.datasets.volumes.people.scopes import Scope, mirrors, scope_of
from mri_transfer.datasets.volumes.people.stated import join_known, session_of, stated
from mri_transfer.datasets.volumes.people.tree import Chain, Chosen, choose

_PREFIXES = "wmrusa"  # SPM's: warped, corrected for bias, resliced, unwarped, smoothed, timed
_NUMBERED = re.compile(r"[A-Za-z]+[-_]?\d")


def decide(files: Sequence[File]) -> list[Whose]:
    """Decide each file's identity.

    All files of a collection must be given at once, including those already in a store.

    Returns:
        One entry per file, in order.
    """
    files = _without_prefixes(_without_placeholders(files))
    tops = _named_tops(files)
    guesses = [stated(file, tops) for file in files]
    rest = [number for number, guess in enumerate(guesses) if guess is None]
    for number, guess in zip(rest, _by_tree([files[number] for number in rest], tops), strict=True):
        guesses[number] = guess
    known = [guess for guess in guesses if guess is not None]
    join_known(known)
    names = names_of(known)
    return [
        Whose(
            guess.dataset, names[guess.key], guess.session, _sequence(file), guess.site, guess.how, guess.key
        )
        for file, guess in zip(files, known, strict=True)
    ]


def _without_placeholders(files: Sequence[File]) -> list[File]:
    """Drop patient IDs that occur in the folders of several people, such as REMOVED for all."""
    people: dict[str, set[Key]] = defaultdict(set)
    for file in files:
        if file.patient:
            people[file.patient].update(
                atom.key for part in file.parts for atom in parse(part).atoms if atom.rank == MARKED
            )
    return [replace(file, patient="") if len(people[file.patient]) > 1 else file for file in files]


def _without_prefixes(files: Sequence[File]) -> list[File]:
    """Files SPM derived from a file beside them, such as `wmP001` from `P001`, with that file's name."""
    paths = {(file.top, file.parts) for file in files if not file.is_folder}

    def plain(file: File) -> File:
        name = file.parts[-1]
        for length in range(1, 5) if not file.is_folder else ():
            if name[length - 1 : length] not in _PREFIXES or not name[length - 1 : length]:
                break
            rest = name[length:]
            # 17 and M17, anna and sanna may be two people
            if _NUMBERED.match(rest) and (file.top, (*file.parts[:-1], rest)) in paths:
                return plain(replace(file, parts=(*file.parts[:-1], rest)))
        return file

    return [plain(file) for file in files]


def _named_tops(files: Sequence[File]) -> dict[str, str]:
    """A short name for each given folder: its own, with enough parent folders to be unique."""
    tops = {file.top for file in files} | {file.dataset for file in files if file.dataset}
    names: dict[str, str] = {}
    for top in tops:
        parts = top.replace("\\", "/").rstrip("/").split("/")
        for count in range(1, len(parts) + 1):
            name = "/".join(parts[-count:])
            if sum(other == top or other.replace("\\", "/").endswith("/" + name) for other in tops) <= 1:
                break
        names[top] = name
    return names


def _by_tree(files: Sequence[File], tops: Mapping[str, str]) -> list[Guess]:
    """People identified by the shape of the tree."""
    parsed = [[parse(part) for part in file.parts] for file in files]
    roots = {file.top for file in files}
    # Each of several given folders is its own collection, unless they are siblings, as people's folders are.
    side_by_side = len(roots) > 1 and len({root.rsplit("/", 1)[0] for root in roots}) == 1
    homes = [collection_of(file, names[0].is_empty) for file, names in zip(files, parsed, strict=True)]
    chains = chains_of(files, parsed, side_by_side)
    chosen = [Chosen(-1)] * len(files)
    groups: dict[str, list[int]] = defaultdict(list)
    for number, home in enumerate(homes):
        groups["" if side_by_side else home].append(number)
    for group in groups.values():
        for number, choice in zip(group, choose([chains[number] for number in group]), strict=True):
            chosen[number] = choice
    retested = any(text.lower() == "retest" for names in parsed for name in names for text in name.sessions)
    scopes = [scope_of(*arguments, retested) for arguments in zip(files, parsed, chains, chosen, strict=True)]
    mirror_of = mirrors(homes, chains, chosen, scopes)
    guesses = []
    for file, home, chain, choice, scope in zip(files, homes, chains, chosen, scopes, strict=True):
        soft = mirror_of.get((home, scope.firm, scope.soft), scope.soft)
        if choice.person < 0:
            guesses.append(_nobody(file, tops[file.top], scope))
        else:
            guesses.append(_somebody(file, tops[file.top], home, chain, choice, scope, soft))
    return guesses


def _nobody(file: File, dataset: str, scope: Scope) -> Guess:
    """Nothing in the path can be a person: the whole given folder is one."""
    *above, name = (file.parts[0] or "unnamed", *scope.texts)
    key = ("nobody", file.top, scope.firm, scope.soft)
    return Guess(key, name, above[::-1], dataset, session_of(file), "the folder given")


def _somebody(
    file: File,
    dataset: str,
    home: str,
    chain: Chain,
    choice: Chosen,
    scope: Scope,
    soft: Key,
) -> Guess:
    atom, depth = chain.atoms[choice.person], chain.parts[choice.person]
    text = file.parts[depth]
    starts = [chain.atoms[index].start for index in choice.scope if chain.parts[index] == depth]
    start = min([*starts, atom.start])
    longer = text[start : _end_of_name(chain, choice.person)]
    if atom.rank == COUNTER and not sequence_of(text[: atom.end]):
        longer = text[: atom.end]  # image_001 and not 001
    is_file = depth == len(file.parts) - 1 and not file.is_folder
    return Guess(
        ("tree", file.top.rsplit("/", 1)[0] if depth == 0 else home, scope.firm, soft, atom.key),
        text[start : atom.end],
        [*reversed(scope.texts), dataset],
        dataset,
        session_of(file) or _inner_session(file, chain, choice),
        "file name" if is_file else "folder name",
        longer=longer,
    )


def _end_of_name(chain: Chain, person: int) -> int:
    """End of the unknown words that follow an id in its part of the path: nvr_stroke and not nvr."""
    end = chain.atoms[person].end
    for atom, depth in list(zip(chain.atoms, chain.parts, strict=True))[person + 1 :]:
        if depth != chain.parts[person] or atom.rank not in (WORD, CODE):
            break
        end = atom.end
    return end


def _inner_session(file: File, chain: Chain, choice: Chosen) -> str:
    """An otherwise unexplained folder below the person, such as the 2 of P01/2/T1."""
    for index in range(choice.person + 1, len(chain.atoms)):
        atom, depth = chain.atoms[index], chain.parts[index]
        if atom.rank == NUMBER and chain.parts[choice.person] < depth < len(file.parts) - 1:
            return file.parts[depth][atom.start : atom.end]
    return ""


def _sequence(file: File) -> str:
    if statement := dict(file.told).get("sequence", ""):
        return sequence_of(statement) or "unknown"
    if file.sequence != "unknown":
        return file.sequence
    own_sequence = next(
        (sequence for part in reversed(file.parts) if (sequence := sequence_of(part))), "unknown"
    )
    knows_more = own_sequence == "unknown" or (own_sequence, file.beside) == ("T1", "T1c")
    return file.beside if knows_more else own_sequence
