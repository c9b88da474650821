"""Trees of files that nobody has, with the person of every file known: other words, depths and orders each time."""

from __future__ import annotations

import random
from dataclasses import dataclass

SYLLABLES = (
    *("ka", "lo", "mi", "ru", "te", "no", "sha", "vel", "dor", "gim"),
    *("pau", "zen", "bra", "kul", "tos", "wik", "fen", "hul", "jas", "yor"),
)
SEQUENCES = [
    ["T1", "T2", "FLAIR"],
    ["t1w", "t2w"],
    ["t1", "t1ce", "t2", "flair"],
    ["MPRAGE", "FLAIR"],
    ["T1w", "PD"],
    ["t1_mprage", "t2_tse"],
    ["T1"],
]
SESSIONS = [
    ["session_1", "session_2", "session_3"],
    ["ses-01", "ses-02"],
    ["V1", "V2", "V3"],
    ["visit1", "visit2"],
    ["baseline", "followup"],
    ["month00", "month06", "month12"],
    ["tp0", "tp1"],
    ["pre", "post"],
    ["timepoint-1", "timepoint-2"],
    ["2019-04-05", "2020-01-13", "2021-12-30"],
    ["20190405", "20200113"],
    ["m06", "m12", "m24"],
    ["wave1", "wave2"],
    ["exam_1", "exam_2"],
    ["preop", "postop"],
    ["Week4", "Week12"],
    ["BL", "FU1"],
    ["year1", "year2"],
    ["1", "2", "3"],
    ["01", "02"],
    ["6months", "12months"],
    ["Follow-up 1", "Follow-up 2"],
    ["2019_04", "2019_10"],
    ["scan1", "scan2"],
    ["T0", "T12"],
    ["05.04.2019", "13.01.2020"],
]
SITES = [
    ["siteA", "siteB", "siteC"],
    ["center_1", "center_2"],
    ["hospital1", "hospital2"],
    ["Site-01", "Site-02"],
]
CONTAINERS = [
    "anat",
    "nifti",
    "NIFTI",
    "scans",
    "raw",
    "images",
    "anat_1",
    "MR",
    "data",
    "structural",
    "orig",
]
STEPS = [
    "N4",
    "brain",
    "bet",
    "restore",
    "acpc_dc_restore",
    "MNI152",
    "reg",
    "defaced",
    "anonymized",
    "biascorr",
    "n4_corrected",
]
STEMS = ["mprage", "T1", "anat", "brain", "highres001", "scan", "image", "volume", "mri", "orig", "t1_brain"]
MARKERS = [
    "sub",
    "subj",
    "subject",
    "patient",
    "pat",
    "P",
    "case",
    "s",
    "participant",
    "Subject",
    "PATIENT",
    "pt",
]


@dataclass(frozen=True)
class Tree:
    """Paths from the folder that is given, without it and without suffixes, and whose each is."""

    paths: tuple[str, ...]
    people: tuple[int, ...]
    about: str


def word(rng: random.Random) -> str:
    """A word that no list knows."""
    return "".join(rng.sample(SYLLABLES, rng.choice([2, 3])))


def _ids(rng: random.Random, count: int, anew: bool) -> tuple[list[str], str]:
    """Names of people as one collection has them, and of which kind they are."""
    kind = rng.choice(
        ["number", "number", "marked", "marked", "marked", "code", "code", "name", "hash", "initials"]
    )
    start = rng.choice([1, 1, 1, 7, 101, 10023])
    numbers = [start + at for at in range(count)]
    if rng.random() < 0.4 and not anew:  # two sites that begin anew do not leave out the same numbers
        numbers = sorted(rng.sample(range(start, start + 20 * count), count))
    pad = rng.choice([0, 2, 3, 4, 5])
    texts = [str(number).zfill(pad) for number in numbers]
    if kind == "number":
        # 1 to 9 without zeros may be anything; with them, or from ten on, they are no sessions
        return texts, kind
    if kind == "marked":
        marker, separator = rng.choice(MARKERS), rng.choice(["", "", "_", "-"])
        return [f"{marker}{separator}{text}" for text in texts], kind
    if kind == "code":
        prefix = word(rng)
        prefix = rng.choice([prefix, prefix.upper(), prefix.title(), prefix[:2].upper()])
        separator = rng.choice(["", "_", "-"])
        return [f"{prefix}{separator}{text}" for text in texts], kind
    if kind == "name":
        names: set[str] = set()
        while len(names) < count:
            names.add(word(rng))
        style = rng.choice([str.lower, str.title])
        return [style(name) for name in sorted(names)], kind
    if kind == "hash":
        return [f"{rng.getrandbits(64):016x}" for _ in range(count)], kind
    letters = "ABCDEFGHJKLNOPQRSTUXZ"
    return ["".join(rng.sample(letters, 2)) + str(rng.randint(1000, 9999)) for _ in range(count)], kind


def make(seed: int) -> Tree:
    """The tree of a number; the same each time."""
    rng = random.Random(seed)
    scoped = rng.random() < 0.25
    scopes: list[str] = [""]
    if scoped:
        scopes = list(rng.choice(SITES))
        if rng.random() < 0.4:
            names = {word(rng).title() for _ in range(3)}
            scopes = sorted(names)
    count = rng.choice([2, 3, 3, 4, 6, 12, 30]) if not scoped else rng.choice([3, 4, 6, 12])
    if not scoped and rng.random() < 0.05:
        count = 1
    anew = scoped and rng.random() < 0.6
    ids, kind = _ids(rng, count, anew)
    anew = anew and kind in ("number", "marked", "code")
    named_scope = scoped and scopes[0].istitle() and not any(s[:4].lower() == "site" for s in scopes)
    sequences = rng.choice(SEQUENCES)
    sessions = rng.choice(SESSIONS) if rng.random() < 0.5 else [""]
    # Where everything stands. A word of no list over people of no list, or people's plain names beside one, is left to
    # the user: nobody can tell.
    if named_scope and kind in ("name",):
        ids, kind = [f"sub{at:02d}" for at in range(1, count + 1)], "marked"
    person_in_folder = rng.random() < 0.7
    repeated = person_in_folder and rng.random() < 0.3
    sequence_at = rng.choice(["file", "file", "folder", "folder above"])
    session_at = rng.choice(["folder", "folder", "above", "file"])
    step = rng.choice(STEPS) if rng.random() < 0.3 else ""
    step_at = rng.choice(["file", "folder above", "folder"])
    container = rng.choice(CONTAINERS) if rng.random() < 0.4 else ""
    container_at = rng.choice(["below", "above"])
    noise = word(rng) if rng.random() < 0.2 else ""
    separator = rng.choice(["_", "_", "-", "."])
    site_in_file = scoped and not named_scope and not person_in_folder and rng.random() < 0.5
    stem = rng.choice(STEMS)
    outer = word(rng) if rng.random() < 0.3 and not named_scope else ""  # a folder of everything
    inner = (
        word(rng) if rng.random() < 0.15 and person_in_folder and kind != "name" else ""
    )  # one in each person's
    other_case = repeated and rng.random() < 0.3
    if sessions[0][:4] in ("1", "01", "scan") or sessions == ["T0", "T12"]:
        # By themselves they may be anything; below a person that says so, they are sessions.
        session_at = "folder"
        person_in_folder = repeated = person_in_folder and kind == "marked"
        if not person_in_folder:
            sessions = [""]
    if sessions == ["2019_04", "2019_10"]:
        session_at = "folder"  # in a name with other numbers nobody knows what they are
    order_above, order_below = rng.random(), rng.random()
    stray = rng.choice([0, 0, 0, 1, 2])  # folders that only some people have above them
    paths: list[str] = []
    people: list[int] = []
    number = 0
    for scope_number, scope in enumerate(scopes):
        members = ids if anew or not scoped else ids[scope_number :: len(scopes)]
        for name in members:
            attended = [s for s in sessions if rng.random() < 0.7] or sessions[:1]
            for session in attended:
                acquired = [s for s in sequences if rng.random() < 0.8] or sequences[:1]
                for sequence in acquired:
                    above = [scope] if scope and not site_in_file else []
                    if outer:
                        above.insert(0, outer)
                    if stray and kind == "marked" and name[0] != "s" and not scoped and number % 3 == 1:
                        above += ["more", "extra"][:stray]
                    if session and session_at == "above":
                        above.insert(rng.choice([0]), session)
                    if sequence_at == "folder above":
                        above.append(sequence)
                    if step and step_at == "folder above":
                        above.append(step)
                    if container and container_at == "above":
                        above.append(container)
                    below: list[str] = [inner] if inner else []
                    if session and session_at == "folder":
                        below.append(session)
                    if container and container_at == "below":
                        below.append(container)
                    if sequence_at == "folder":
                        below.append(sequence)
                    if step and step_at == "folder":
                        below.append(step)
                    random.Random(order_above).shuffle(above)
                    random.Random(order_below).shuffle(below)
                    words: list[str] = []
                    if site_in_file:
                        words.append(scope)
                    if repeated or not person_in_folder:
                        words.append(name.swapcase() if other_case else name)
                    if session and session_at == "file":
                        words.append(session)
                    if sequence_at == "file":
                        words.append(sequence)
                    if step and step_at == "file":
                        words.append(step)
                    if noise and person_in_folder:
                        words.append(noise)
                    if not words:
                        words.append(stem)
                    folders = [
                        *above,
                        *([name] if person_in_folder else []),
                        *(below if person_in_folder else []),
                    ]
                    if not person_in_folder:
                        folders = [*above, *below]
                    paths.append("/".join([*folders, separator.join(words)]))
                    people.append(number)
            number += 1
    description = f"{kind}, scoped={scoped}, anew={anew}, folder={person_in_folder}"
    return Tree(tuple(paths), tuple(people), description)
