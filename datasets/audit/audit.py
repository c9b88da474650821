"""`mri-transfer audit`: what is wrong with a folder of tumour images, and what to do about it."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mri_transfer.datasets.audit.leaks import leaks_between
from mri_transfer.datasets.store import SliceStore
from mri_transfer.datasets.tumors import TumorSet, load_tumors
from mri_transfer.files import atomic_write, claim_folder, write_json
from mri_transfer.options import argument, option
from mri_transfer.progress import say

SIZE = 64  # pixels; thumbnails are taken from the full image, so this decides nothing
SHOWN = 10  # lines of a list that are printed; all of it goes into the summary


@dataclass(frozen=True)
class AuditConfig:
    """Settings of `mri-transfer audit`."""

    folder: Path = argument(
        help="folder with Training and Testing, or with one folder of images a class", metavar="TUMORS"
    )
    against: Path | None = option(
        None, help="a slice store: is any of these images among its slices?", metavar="STORE"
    )
    out: Path | None = option(None, help="folder for summary.json and groups.csv", metavar="DIR")
    strict: bool = option(False, help="an unreadable image is an error, not a line in the summary")

    EXAMPLE: ClassVar[str] = (
        "example:\n  mri-transfer audit data/tumors --against slices --out audit\n\n"
        "Reads every image, changes none."
    )


def audit(config: AuditConfig) -> dict:
    """Read the folder, print what was found, return it.

    Raises:
        UserError: the folder, the store or `--out` can't be used.
    """
    store = SliceStore.open(config.against) if config.against else None
    if config.out:
        claim_folder(config.out, "audit")
    tumors = load_tumors(config.folder, SIZE, strict=config.strict)
    summary = {"folder": str(config.folder), "classes": list(tumors.classes), **tumors.audit}
    summary["fingerprint"] = tumors.fingerprint
    if store is not None:
        summary["against"] = {
            "store": str(config.against),
            "fingerprint": store.fingerprint,
            "slices": len(store),
            "leaks": leaks_between(tumors, store),
        }
    for line in report(summary):
        say(line)
    if config.out:
        write_json(config.out / "summary.json", summary)
        write_groups(config.out / "groups.csv", tumors)
        say(f"\nwritten: {config.out / 'summary.json'}, {config.out / 'groups.csv'}")
    return summary


def write_groups(path: Path, tumors: TumorSet) -> None:
    """One row a distinct image: file, split, class, group."""
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "split", "class", "group"))
        for name, split, label, group in zip(
            tumors.paths, tumors.split, tumors.labels, tumors.groups, strict=True
        ):
            writer.writerow((name, split, tumors.classes[label], group))


def report(summary: dict) -> list[str]:
    """The findings as lines to read."""
    groups = summary["groups"]
    lines = [
        f"{summary['folder']}: {summary['files']} files, {summary['distinct']} distinct images "
        f"({_by_class(summary['distinct_by_class'])})",
        "",
    ]
    if summary["skipped"]:
        lines += [f"Unreadable, left out: {len(summary['skipped'])}"]
        lines += _listed([f"{entry['file']}: {entry['reason']}" for entry in summary["skipped"]])
    test, identical = summary["test_files"], summary["test_identical"]
    copies = summary["readable"] - summary["distinct"]
    lines.append(f"Pixel-identical copies dropped: {copies}")
    if test:
        lines += [
            f"Test images identical to a training image: {identical} of {test} "
            f"({_by_class(summary['test_identical_by_class'])}); {summary['test_byte_identical']} byte for byte",
            f"Test images identical or nearly so: {summary['test_near_duplicate']} of {test} "
            f"(correlation at least {summary['thresholds']['near_duplicate']})",
        ]
    lines.append(f"Near-duplicate pairs among the distinct images: {summary['near_duplicate_pairs']}")
    conflicts = summary["label_conflicts"]
    lines.append(f"The same picture in two classes: {len(conflicts)}")
    lines += _listed([f"{c['first']} = {c['second']} ({c['correlation']:.3f})" for c in conflicts])
    lines += [
        f"Groups of images that belong together: {groups['number']} ({_by_class(groups['by_class'])}), "
        f"the largest of {groups['largest'][0]} images",
        f"Most alike images in different groups: {groups['correlation_with_other_groups']['max']:.3f}",
    ]
    against = summary.get("against")
    if against:
        leaks = against["leaks"]
        lines.append(f"Images among the {against['slices']} slices of {against['store']}: {len(leaks)}")
        lines += _listed(
            [
                f"{leak['image']} = slice {leak['slice']} of {leak['source']} ({leak['correlation']:.3f})"
                for leak in leaks
            ]
        )
    return [*lines, "", *_advice(summary)]


def _by_class(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _listed(entries: list[str]) -> list[str]:
    more = [f"  ... and {len(entries) - SHOWN} more (in the summary)"] if len(entries) > SHOWN else []
    return [f"  {entry}" for entry in entries[:SHOWN]] + more


def _advice(summary: dict) -> list[str]:
    """What the findings mean, in plain words."""
    advice = []
    test, leaky = summary["test_files"], summary["test_near_duplicate"]
    if leaky:
        advice.append(
            f"Scores on this test split mean little: {leaky / test:.0%} of it can be answered from memory. "
            "Score on grouped folds instead; `mri-transfer compare` does."
        )
    if summary["label_conflicts"]:
        advice.append("Some pictures carry two labels: look at the pairs above, and remove the wrong ones.")
    if summary.get("against", {}).get("leaks"):
        advice.append(
            "The slice store holds tumour images: extract it again without those sources before pretraining."
        )
    return advice or ["No leak was found."]
