"""Who is who in a whole collection: every file's data set, subject, session and sequence, with the evidence for it.

The evidence, strongest first: what the user says (`--subject`; the table comes later), BIDS entities, DICOM's patient
ID, ids of well-known collections anywhere in the path, and the shape of the tree.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from mri_transfer.datasets.volumes.naming import sequence_of
from mri_transfer.datasets.volumes.people.atoms import (
    CODE,
    COUNTER,
    MARKED,
    NUMBER,
    WORD,
    Atom,
    Parsed,
    parse,
)
from mri_transfer.datasets.volumes.people.known_ids import key_of_id, known_id
from mri_transfer.datasets.volumes.people.tree import Chain, Chosen, choose

_SUB = re.compile(r"(?:^|(?<=[^0-9A-Za-z]))sub-([0-9A-Za-z]+)")
_SES = re.compile(r"(?:^|(?<=[^0-9A-Za-z]))ses-([0-9A-Za-z]+)")


_MOST_VISITS = 6  # M1 to M6 may be visits; of more, people


@dataclass(frozen=True)
class File:
    """What is known of a file, or of a DICOM series, before anyone looks into it.

    Attributes:
        parts: its path from the folder that was given, that folder first, and its name without suffixes last; of a
            series the folders only.
        top: absolute path of the folder that was given.
        dataset: absolute path of the BIDS data set it lies in, or "".
        patient: DICOM's patient ID where it says something, or "".
        study: DICOM's date of the study, or "".
        sequence: what DICOM's tags say, or "unknown".
        picture: a picture of one slice, of which a person has many; numbers in its name count slices.
        told: what a pattern of the user says: subject, and perhaps session, sequence and dataset.
        is_folder: the last part is a folder, that of a series.
    """

    parts: tuple[str, ...]
    top: str
    dataset: str = ""
    patient: str = ""
    study: str = ""
    sequence: str = "unknown"
    picture: bool = False
    told: tuple[tuple[str, str], ...] = ()
    is_folder: bool = False


@dataclass(frozen=True)
class Whose:
    """Whose a file is, and what it shows.

    Attributes:
        dataset: name of the data set, for tables.
        subject: a name that no other person has.
        session, sequence: as in `naming.Identity`.
        site: where it was made, or "".
        how: the evidence in words.
        key: what persons are told apart by; equal keys are one person.
    """

    dataset: str
    subject: str
    session: str
    sequence: str
    site: str
    how: str
    key: tuple[Hashable, ...]


@dataclass
class _Guess:
    """A person before it has a name: scopes from the nearest to the farthest, that are added to it as needed."""

    key: tuple[Hashable, ...]
    name: str
    scopes: list[str]
    dataset: str
    session: str
    site: str
    how: str
    longer: str = ""  # the name with the words that follow, if they are the same in all its files


def decide(files: Sequence[File]) -> list[Whose]:
    """Whose each file is.

    All files of a collection must be given at once, those that a store holds already as well.

    Returns:
        One entry a file, in order.
    """
    tops = _named_tops(files)
    guesses: list[_Guess | None] = [None] * len(files)
    rest: list[int] = []
    for number, file in enumerate(files):
        guesses[number] = _stated(file, tops)
        if guesses[number] is None:
            rest.append(number)
    for number, guess in zip(rest, _by_tree([files[number] for number in rest], tops), strict=True):
        guesses[number] = guess
    return _named(files, [guess for guess in guesses if guess is not None])


def _named_tops(files: Sequence[File]) -> dict[str, str]:
    """A short name for each given folder: its own, with as many folders above it as tell it from the others."""
    tops = {file.top for file in files} | {file.dataset for file in files if file.dataset}
    named: dict[str, str] = {}
    for top in tops:
        parts = top.replace("\\", "/").rstrip("/").split("/")
        for count in range(1, len(parts) + 1):
            name = "/".join(parts[-count:])
            if sum(other == top or other.replace("\\", "/").endswith("/" + name) for other in tops) <= 1:
                break
        named[top] = name
    return named


def _dataset_of(file: File, tops: dict[str, str]) -> tuple[str, str]:
    """Key and name of the data set: BIDS's own, else the given folder."""
    where = file.dataset or file.top
    return where, tops[where]


def _stated(file: File, tops: dict[str, str]) -> _Guess | None:
    """A person that a pattern, BIDS, DICOM or a known collection names."""
    key, dataset = _dataset_of(file, tops)
    told = dict(file.told)
    if told:
        scope = told.get("dataset", "")
        whose = ("told", scope or key, told["subject"])
        session = told.get("session") or _session(file, -1)
        return _Guess(
            whose, told["subject"], [scope or dataset], scope or dataset, session, "", "by --subject"
        )
    if guess := _bids(file, key, dataset):
        return guess
    if file.patient:
        return _Guess(
            ("dicom", key, file.patient), file.patient, [dataset], dataset, file.study, "", "DICOM patient ID"
        )
    if known := known_id(file.parts):
        session = known.session or _session(file, known.part)
        if not known.session and file.study:
            session = file.study
        whose = ("known", key_of_id(known.subject))
        return _Guess(whose, known.subject, [], dataset, session, known.site, f"{known.collection} name")
    return None


def _bids(file: File, key: str, dataset: str) -> _Guess | None:
    found = [(number, match) for number, part in enumerate(file.parts) if (match := _SUB.search(part))]
    if not found:
        return None
    number, match = found[-1]
    session = next((here[1] for part in reversed(file.parts) if (here := _SES.search(part))), "") or _session(
        file, number
    )
    subject = f"sub-{match[1]}"
    first, begins = found[0]
    before = file.parts[first][: begins.start()].strip("-_. ")
    scopes = [before] if before and (parse(before).atoms or parse(before).sites) else []
    if not file.dataset:
        own = match[1].lower()  # OAS30001_MR_d0129/anat/sub-OAS30001_T1w
        scopes += [
            part for part in reversed(file.parts[1:first]) if _scopes(parse(part)) and own not in part.lower()
        ]
    whose = ("bids", key, *(scope.lower() for scope in scopes), subject)
    # A data set's name belongs to the subject, as it always has; a folder's only where another has the same subject.
    if file.dataset or (before and scopes):
        home = scopes[0] if before and scopes else dataset
        return _Guess(
            whose, f"{home}/{subject}", [*scopes[bool(before) :], dataset], home, session, "", "BIDS name"
        )
    return _Guess(
        whose, subject, [*scopes, dataset], scopes[0] if scopes else dataset, session, "", "BIDS name"
    )


def _scopes(parsed: Parsed) -> bool:
    return bool(parsed.sites or parsed.split or any(atom.rank > COUNTER for atom in parsed.atoms))


def _session(file: File, person: int) -> str:
    """What tells scans of one person apart in a path: explicit words first, else the last date."""
    words: list[str] = []
    dates: list[str] = []
    for part in file.parts[1:]:
        for text in parse(part).sessions:
            known = dates if text[:1].isdigit() and not text[-1].isalpha() else words
            if text not in known:
                known.append(text)
    if words:
        return "_".join(words)
    return dates[-1] if dates else ""


# ---------------------------------------------------------------------------------------------------------------------


def _by_tree(files: Sequence[File], tops: dict[str, str]) -> list[_Guess]:
    roots = {file.top for file in files}
    parents = {top.rsplit("/", 1)[0] for top in roots}
    siblings = len(roots) > 1 and len(parents) == 1
    parsed = [[parse(part) for part in file.parts] for file in files]
    chains = [_chain(file, each, siblings) for file, each in zip(files, parsed, strict=True)]
    chains = _with_letters(chains, parsed)
    chosen: list[Chosen] = [Chosen(-1)] * len(files)
    # Of several given folders each is a collection by itself, unless they lie side by side as people's folders do.
    groups: dict[str, list[int]] = defaultdict(list)
    for number, file in enumerate(files):
        groups["" if siblings else _collection(file, parsed[number][0])].append(number)
    for group in groups.values():
        for number, choice in zip(group, choose([chains[number] for number in group]), strict=True):
            chosen[number] = choice
    scopes = [
        _scope(file, each, chain, choice)
        for file, each, chain, choice in zip(files, parsed, chains, chosen, strict=True)
    ]
    mirrored = _mirrors(files, chains, chosen, scopes, parsed)
    return [
        _guess(file, each, chain, choice, scope, tops, mirrored)
        for file, each, chain, choice, scope in zip(files, parsed, chains, chosen, scopes, strict=True)
    ]


def _collection(file: File, root: Parsed) -> str:
    """The given folder; of T1/ and T2/ beside one another the folder they lie in."""
    empty = not root.atoms and not root.sites and not root.split
    return file.top.rsplit("/", 1)[0] if empty else file.top


def _chain(file: File, parsed: list[Parsed], siblings: bool) -> Chain:
    """The atoms of a path; an id that is repeated below (P01/P01_T1) counts once."""
    atoms: list[Atom] = []
    parts: list[int] = []
    for number, each in enumerate(parsed):
        last = number == len(parsed) - 1
        candidates = each.atoms
        if number == 0:
            # The folder that was given is the same for all; it is a person only if it says so.
            candidates = [
                atom
                for atom in candidates
                if atom.rank == MARKED or (siblings and (atom.rank == NUMBER or atom.shape == "99999"))
            ]
        if file.picture and last and len(file.parts) > 1:
            candidates = _without_slice(candidates, file.parts[number])
        for atom in candidates:
            if not any(atom.key == known.key for known in atoms if atom.rank > NUMBER):
                atoms.append(atom)
                parts.append(number)
    return Chain(tuple(atoms), tuple(parts))


def _with_letters(chains: list[Chain], parsed: list[list[Parsed]]) -> list[Chain]:
    """Where nothing else can be a person, M17/ and M18/ are, if there are sessions below or more than visits go on."""
    found: dict[int, tuple[Atom, int]] = {}
    sessions_below: set[str] = set()
    values: dict[str, set[tuple[str | int, ...]]] = defaultdict(set)
    for number, (chain, each) in enumerate(zip(chains, parsed, strict=True)):
        letters = [(atom, part) for part, name in enumerate(each) if part for atom in name.letters]
        if not letters or any(atom.shape != "uid" for atom in chain.atoms):
            continue
        found[number] = letters[0]
        atom = letters[0][0]
        values[atom.shape].add(atom.key)
        if chain.atoms or sum(len(name.sessions) for name in each[1:]) > 1:
            sessions_below.add(atom.shape)
    return [
        Chain((found[number][0],), (found[number][1],))
        if number in found
        and (found[number][0].shape in sessions_below or len(values[found[number][0].shape]) > _MOST_VISITS)
        else chain
        for number, chain in enumerate(chains)
    ]


def _without_slice(atoms: list[Atom], text: str) -> list[Atom]:
    """Of a picture's name without what counts slices: the last number, unless a person's word stands before it."""
    kept = [atom for atom in atoms if atom.rank > COUNTER]
    if kept and kept[-1].rank in (NUMBER,):
        return kept[:-1]
    if kept and kept[-1].shape == "a9" and len(kept[-1].key) > 1 and isinstance(kept[-1].key[-1], int):
        last = kept[-1]
        words = tuple(key for key in last.key[:-1])
        if len(kept) == 1 and len(words) == 1 and len(str(words[0])) == 1:
            return kept  # s1.png
        end = last.start + len(text[last.start : last.end].rstrip("0123456789").rstrip("-_. "))
        if any(isinstance(word, int) for word in words):
            return [*kept[:-1], replace(last, key=words, end=end)]
        return [*kept[:-1], replace(last, rank=WORD, shape="word", key=words, end=end)]
    return kept


@dataclass(frozen=True)
class _Scope:
    """What an id holds within: keys that always count, and those that only do where numbers begin anew."""

    firm: tuple[Hashable, ...]
    soft: tuple[Hashable, ...]
    texts: tuple[str, ...]


def _scope(file: File, parsed: list[Parsed], chain: Chain, choice: Chosen) -> _Scope:
    firm: list[Hashable] = []
    soft: list[Hashable] = []
    texts: list[str] = []
    person_part = len(parsed) - 1 if choice.person < 0 else chain.parts[choice.person]
    for number, each in enumerate(parsed[: person_part + 1]):
        if number == 0:
            continue  # the data set
        if each.sites:
            firm += each.sites
            texts.append("-".join(each.site_text))
        if each.split:
            soft.append(("split", each.split))
            texts.append(each.split)
    for index in range(max(choice.person, 0)):
        number, atom = chain.parts[index], chain.atoms[index]
        if number == 0 or (index not in choice.scope and (number == person_part or atom.rank == COUNTER)):
            continue
        soft.append(atom.key)
        if number != person_part:  # else it is part of the name
            texts.append(file.parts[number][atom.start : atom.end])
    return _Scope(tuple(firm), tuple(soft), tuple(texts))


def _mirrors(
    files: Sequence[File],
    chains: list[Chain],
    chosen: list[Chosen],
    scopes: list[_Scope],
    parsed: list[list[Parsed]],
) -> set[tuple[Hashable, ...]]:
    """Scopes that hold the same people as another: their ids agree, and no counting from 1 explains it.

    Returns:
        Keys (data set, firm, soft) of scopes whose soft part tells no people apart.
    """
    held: dict[tuple[Hashable, ...], dict[tuple[Hashable, ...], set[tuple[str | int, ...]]]] = defaultdict(
        lambda: defaultdict(set)
    )
    for number, (chain, choice, scope) in enumerate(zip(chains, chosen, scopes, strict=True)):
        if choice.person >= 0 and scope.soft:
            where = (_collection(files[number], parsed[number][0]), scope.firm)
            held[where][scope.soft].add(chain.atoms[choice.person].key)
    mirrored: set[tuple[Hashable, ...]] = set()
    for where, ids in held.items():
        for soft, own in ids.items():
            for other, theirs in ids.items():
                shared = own & theirs
                smaller = min(len(own), len(theirs))
                if soft != other and len(shared) >= max(2, 0.8 * smaller) and not _are_counted(shared):
                    mirrored.add((*where, soft))
    return mirrored


def _are_counted(keys: set[tuple[str | int, ...]]) -> bool:
    """Whether ids follow one another, as where numbering begins anew; short words count as such too."""
    numbers = sorted(key[-1] for key in keys if isinstance(key[-1], int))
    if len(numbers) < len(keys):
        return False
    span = numbers[-1] - numbers[0] + 1
    return span <= 2 * len(numbers)


def _guess(
    file: File,
    parsed: list[Parsed],
    chain: Chain,
    choice: Chosen,
    scope: _Scope,
    tops: dict[str, str],
    mirrored: set[tuple[Hashable, ...]],
) -> _Guess:
    where = _collection(file, parsed[0])
    dataset = tops.get(file.top, file.parts[0])
    if choice.person < 0:
        name = file.parts[0] if len(file.parts) > 1 else file.parts[-1]
        if _is_empty(parsed[0]) and len(file.parts) > 1:
            name = file.parts[0]
        key: tuple[Hashable, ...] = ("nobody", file.top, scope.firm, scope.soft)
        scopes = [*reversed(scope.texts)]
        if scopes:
            name, scopes = scopes[0], [*scopes[1:], name]
        return _Guess(key, name or "unnamed", scopes, dataset, _session(file, -1), "", "the folder given")
    atom, part = chain.atoms[choice.person], chain.parts[choice.person]
    soft = () if (where, scope.firm, scope.soft) in mirrored else scope.soft
    root = file.top.rsplit("/", 1)[0] if part == 0 else where
    key = ("tree", root, scope.firm, soft, atom.key)
    begin = min(
        [chain.atoms[index].start for index in choice.scope if chain.parts[index] == part] + [atom.start]
    )
    name = file.parts[part][begin : atom.end]
    session = _session(file, part) or _inner_session(file, chain, choice)
    kind = "file name" if part == len(file.parts) - 1 and not file.is_folder else "folder name"
    longer = file.parts[part][begin : _end_of_name(chain, choice.person)]
    if atom.rank == COUNTER and not sequence_of(file.parts[part][: atom.end]):
        longer = file.parts[part][: atom.end]  # image_001 and not 001
    return _Guess(key, name, [*reversed(scope.texts), dataset], dataset, session, "", kind, longer)


def _end_of_name(chain: Chain, person: int) -> int:
    """Where the unknown words end that follow an id in its part of the path: nvr_stroke and not nvr."""
    end = chain.atoms[person].end
    for atom, part in list(zip(chain.atoms, chain.parts, strict=True))[person + 1 :]:
        if part != chain.parts[person] or atom.rank not in (WORD, CODE):
            break
        end = atom.end
    return end


def _is_empty(parsed: Parsed) -> bool:
    return not parsed.atoms and not parsed.sites


def _inner_session(file: File, chain: Chain, choice: Chosen) -> str:
    """A folder below the person that isn't explained otherwise, such as the 2 of P01/2/T1."""
    for index in range(choice.person + 1, len(chain.atoms)):
        atom, part = chain.atoms[index], chain.parts[index]
        if atom.rank == NUMBER and chain.parts[choice.person] < part < len(file.parts) - 1:
            return file.parts[part][atom.start : atom.end]
    return ""


def _named(files: Sequence[File], guesses: Sequence[_Guess]) -> list[Whose]:
    """Give every person a name of its own: the id, and before it as much of its scope as tells it from others."""
    longer: dict[tuple[Hashable, ...], set[str]] = defaultdict(set)
    for guess in guesses:
        longer[guess.key].add(guess.longer)
    written: dict[tuple[Hashable, ...], Counter[tuple[str, tuple[str, ...]]]] = defaultdict(Counter)
    for guess in guesses:
        alone = len(longer[guess.key]) == 1 and guess.longer
        written[guess.key][guess.longer if alone else guess.name, tuple(guess.scopes)] += 1
    # As it is written most often, whatever the order of the files.
    names = {key: min(ways, key=lambda way: (-ways[way], way)) for key, ways in written.items()}
    final = unique_names(names)
    result = []
    for file, guess in zip(files, guesses, strict=True):
        sequence = dict(file.told).get("sequence", "")
        sequence = (sequence_of(sequence) or "unknown") if sequence else _sequence(file)
        result.append(
            Whose(guess.dataset, final[guess.key], guess.session, sequence, guess.site, guess.how, guess.key)
        )
    return result


def unique_names(
    names: Mapping[tuple[Hashable, ...], tuple[str, Sequence[str]]], taken: Collection[str] = ()
) -> dict[tuple[Hashable, ...], str]:
    """A name for each person: its own, and before it its scopes, the nearest first, for as long as others have it."""
    final = {key: name for key, (name, _) in names.items()}
    used = set(taken)
    depth: dict[tuple[Hashable, ...], int] = dict.fromkeys(names, 0)
    while True:
        counts = Counter(final.values())
        doubtful = [key for key in names if counts[final[key]] > 1 or final[key] in used]
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
    counts = Counter(used)
    for key in sorted(names, key=repr):  # what is left differs in case or separators only
        base, number = final[key], 1
        while counts[final[key]]:
            number += 1
            final[key] = f"{base} ({number})"
        counts[final[key]] += 1
    return final


def _sequence(file: File) -> str:
    if file.sequence != "unknown":
        return file.sequence
    for part in reversed(file.parts):
        if found := sequence_of(part):
            return found
    return "unknown"
