"""The findings in plain words: which numbers on this set are meaningless, and what to do instead."""

from __future__ import annotations

from typing import Any

from mri_transfer.datasets.audit.shortcuts import ALL
from mri_transfer.datasets.tumors.persons.recognised import origin_tells_class, sentences
from mri_transfer.words import counted

SHOWN = 10  # lines of a list to print; audit.json has them all


def headline(findings: dict[str, Any]) -> str:
    """The most important finding, in one sentence."""
    test, leaky = findings["test_files"], findings["test_near_duplicate"]
    if test and leaky:
        return f"{leaky / test:.0%} of the test images can be answered from memory"
    if findings.get("against", {}).get("leaks"):
        number = len(findings["against"]["leaks"])
        return f"{number} of these images {_are(number)} among the pretraining slices"
    copies = findings["readable"] - findings["distinct"]
    if copies or findings["near_duplicate_pairs"]:
        pairs = findings["near_duplicate_pairs"]
        return f"{copies} copies and {pairs} near-duplicate pairs in {findings['readable']} images"
    if any(entry["shortcut"] for entry in findings["shortcuts"]["features"]):
        return "No copies, but the files give the class away"
    return "No leak was found"


def advice(findings: dict[str, Any]) -> list[str]:
    """Sentences, the most pressing first."""
    recommendations = []
    test, leaky = findings["test_files"], findings["test_near_duplicate"]
    if leaky:
        recommendations.append(
            f"A score on this test split means little: {leaky} of its {test} images are in the training split, as they "
            "are or nearly so. Do not quote it alone, and do not choose anything by it. Pool both splits, drop the "
            "copies and score on folds of whole groups; `mri-transfer compare` does all three."
        )
    elif findings["readable"] > findings["distinct"] or findings["near_duplicate_pairs"]:
        recommendations.append(
            "A random split of these images would put copies on both sides. Drop them and split by groups; "
            "`mri-transfer compare` does both."
        )
    nearest = findings["nearest"]
    if nearest["grouped"] and nearest["alarm"]:
        recommendations.append(
            f"Cross-validation that ignores groups means little too: comparing raw pixels, which knows nothing of "
            f"disease, scores {nearest['ungrouped']['accuracy']:.0%} in it and {nearest['grouped']['accuracy']:.0%} "
            "where groups stay whole."
        )
    shortcuts = [entry for entry in findings["shortcuts"]["features"] if entry["shortcut"]]
    if shortcuts:
        single = [entry["name"] for entry in shortcuts if entry["feature"] != ALL]
        names = (
            ", ".join(single[:4])
            or "by figures of the file and the picture together, though by no single one"
        )
        recommendations.append(
            f"The class can be guessed without looking at the anatomy ({names}). Give all images one size, crop "
            "and range before training, as this program does, and doubt a model that is tested only on images from the "
            "same collection."
        )
    if tells := origin_tells_class(findings["sources"]):
        recommendations.append(tells)
    if wrong := findings["source_conflicts"]:
        recommendations.append(
            f"The collection that they come from gives {counted(len(wrong), 'file')} another label than the folder: "
            "`compare` and `finetune` take the source's label, unless run with `--labels folder`."
        )
    if findings["label_conflicts"]:
        recommendations.append(
            f"{counted(len(findings['label_conflicts']), 'pair')} of one picture "
            f"{_carry(len(findings['label_conflicts']))} "
            "two labels: look at them, and remove the wrong files."
        )
    for key, what in (
        ("markings", "letters, arrows or frames"),
        ("others", "something other than an MRI slice"),
    ):
        telling = [kind for kind, numbers in findings[key]["kinds"].items() if numbers["depends_on_class"]]
        if telling:
            recommendations.append(
                f"Some classes show {what} more often than others ({', '.join(telling)}): a model may learn that "
                "instead of the disease."
            )
    against = findings.get("against")
    if against and against["leaks"]:
        recommendations.append(
            f"The slice store {against['store']} holds {counted(len(against['leaks']), 'picture')} of this set: "
            "extract it again without those sources before pretraining."
        )
    if findings["skipped"]:
        recommendations.append(
            f"{counted(len(findings['skipped']), 'file')} could not be read: fetch them again or remove them."
        )
    if unread := findings.get("unread_pictures"):
        recommendations.append(
            f"{counted(unread, 'picture')} of other kinds {_are(unread)} not read: convert those that belong to PNG."
        )
    return recommendations or ["No leak was found. Split by groups anyway: `mri-transfer compare` does."]


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _carry(count: int) -> str:
    return "carries" if count == 1 else "carry"


def counts(findings: dict[str, Any]) -> dict[str, Any]:
    """The findings without their lists, for `summary.json`."""
    plain = {
        key: value
        for key, value in findings.items()
        if isinstance(value, str | int | float) or key.endswith("_by_class") or key == "thresholds"
    }
    return {
        **plain,
        "skipped": len(findings["skipped"]),
        "label_conflicts": len(findings["label_conflicts"]),
        "source_conflicts": len(findings["source_conflicts"]),
        "bound": findings["sources"]["bound"],
        "persons": findings["sources"]["persons"],
        "test_person_in_training": findings["sources"]["test_person_in_training"],
        "groups": findings["groups"]["number"],
        "shortcuts": [entry["feature"] for entry in findings["shortcuts"]["features"] if entry["shortcut"]],
        "against_leaks": len(findings["against"]["leaks"]) if "against" in findings else None,
        "advice": findings["advice"],
    }


def report(findings: dict[str, Any]) -> list[str]:
    """The findings as lines to read in a terminal."""
    groups = findings["groups"]
    lines = [
        f"{findings['folder']}: {findings['files']} files, {findings['distinct']} distinct images "
        f"({_by_class(findings['distinct_by_class'])})",
        "",
    ]
    if findings["skipped"]:
        lines += [f"Unreadable, left out: {len(findings['skipped'])}"]
        lines += _entry_lines([f"{entry['file']}: {entry['reason']}" for entry in findings["skipped"]])
    test, identical = findings["test_files"], findings["test_identical"]
    lines.append(f"Pixel-identical copies dropped: {findings['readable'] - findings['distinct']}")
    limits = findings["thresholds"]
    if test:
        lines += [
            f"Test images identical to a training image: {identical} of {test} "
            f"({_by_class(findings['test_identical_by_class'])}); {findings['test_byte_identical']} byte for byte",
            f"Test images identical or nearly so: {findings['test_near_duplicate']} of {test} "
            f"(correlation at least {limits['near_duplicate']:.3f})",
        ]
    if limits["planted_copies_found"] is not None:
        gap = limits["gap"]
        widest = f", in a gap from {gap[0]:.3f} to {gap[1]:.3f}" if None not in gap else ""
        lines.append(
            f"  that threshold, measured on this set, finds {limits['planted_copies_found']:.0%} of "
            f"{limits['planted_copies']} planted copies{widest}"
        )
    lines.append(f"Near-duplicate pairs among the distinct images: {findings['near_duplicate_pairs']}")
    conflicts = findings["label_conflicts"]
    lines.append(f"The same picture in two classes: {len(conflicts)}")
    lines += _entry_lines([f"{c['first']} = {c['second']} ({c['correlation']:.3f})" for c in conflicts])
    lines += [
        f"Groups of images that belong together: {groups['number']} ({_by_class(groups['by_class'])}), "
        f"the largest of {groups['largest'][0]} images",
        f"Most similar images in different groups: {groups['correlation_with_other_groups']['max']:.3f}",
    ]
    lines += sentences(findings)
    lines += _entry_lines(
        [f"{c['file']}: {c['source_label']} ({c['source']})" for c in findings["source_conflicts"]]
    )
    if against := findings.get("against"):
        lines.append(
            f"Images among the {against['slices']} slices of {against['store']}: {len(against['leaks'])}"
        )
        lines += _entry_lines(
            [
                f"{leak['image']} = slice {leak['slice']} of {leak['source']} ({leak['correlation']:.3f})"
                for leak in against["leaks"]
            ]
        )
        if against["closest"]:
            lines.append(f"  the most similar of the others: {against['closest'][0]['correlation']:.3f}")
    for key in ("nearest", "shortcuts", "markings", "others"):
        lines += findings[key]["sentences"]
    return [*lines, "", *findings["advice"]]


def _by_class(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _entry_lines(entries: list[str]) -> list[str]:
    more = [f"  ... and {len(entries) - SHOWN} more (in audit.json)"] if len(entries) > SHOWN else []
    return [f"  {' '.join(entry.split())}" for entry in entries[:SHOWN]] + more
