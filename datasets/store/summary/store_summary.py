"""The final report of the command `slices`, and the licences in the summary that it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mri_transfer.errors import UserError
from mri_transfer.progress import say

CONTACT_SHEET = "contact_sheet.png"
PAGE = "summary.html"
SUMMARY = "summary.json"
SAME_SCAN = "the same scan as "
ANOTHERS = ", which counts as another person's"
_REASONS = 8  # to print; all are in the summary


def tell(out: Path, summary: dict[str, Any], seconds: float) -> None:
    """Print a store's content, what was left out of it, and what to look at."""

    def in_words(counts: dict[str, int]) -> str:
        return ", ".join(f"{count} {name}" for name, count in counts.items())

    rate = f", {summary['added_slices'] / seconds:.0f} slices/s" if summary["added_slices"] else ""
    say(
        f"{out}: {summary['slices']} slices ({in_words(summary['by_plane'])}) of {summary['volumes']} volumes "
        f"and {summary['subjects']} subjects ({in_words(summary['by_sequence'])}); "
        f"{summary['added_slices']} new{rate}"
    )
    if redundant := summary["redundant"]:
        cut = summary["slices"] + redundant
        say(
            f"{redundant} of {cut} slices dropped as redundant ({100 * redundant / cut:.1f}%): they correlate above "
            f"{summary['settings'].get('max_correlation', 1.0):g} with a kept one"
        )
    if moved := summary["moved"]:
        say(f"of the store's volumes, {len(moved)} moved (such as to {moved[0]['to']}); their slices stay")
    if missing := summary["missing"]:
        say(f"of the store's volumes, {len(missing)} are gone (such as {missing[0]}); their slices stay")
    say_skipped(summary["skipped"], "skipped", f"all are in {out / PAGE}")
    say(f"look at {out / PAGE}")


def licences_in(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """The "file" and "text" of each licence in a store's summary, leaving out what is something else."""
    licences = summary.get("licences")
    return [
        {"file": str(licence["file"]), "text": str(licence["text"])}
        for licence in (licences if isinstance(licences, list) else [])
        if isinstance(licence, dict) and {"file", "text"} <= set(licence)
    ]


def nothing_used(
    out: Path, count: int, failed: Sequence[dict[str, str]], skipped: Sequence[dict[str, str]]
) -> UserError:
    """The error to raise if no volume can be used; it names one that was tried, not one left out earlier.

    Args:
        out: the store's folder.
        count: number of volumes found.
        failed: the unusable ones, as {"file", "reason"}.
        skipped: all unused files, for programs.
    """
    first = (failed or skipped)[0]
    text = f"{out}: none of {count} volumes can be used; the first, {first['file']}: {first['reason']}"
    return UserError(text, {"skipped": list(skipped)})


def by_reason(entries: Sequence[dict[str, str]], key: str = "reason") -> dict[str, list[str]]:
    """Files by reason, most common first; copies in one group, each with its original."""
    groups: dict[str, list[str]] = {}
    for entry in entries:
        reason, file = entry[key], entry["file"]
        if reason.startswith(SAME_SCAN):
            file = f"{file} ({reason})"
            group = f"{SAME_SCAN}another file"
            twice = f"{group}{ANOTHERS}: if they are one person, say so with --subject or --table"
            reason = twice if reason.endswith(ANOTHERS) else group
        groups.setdefault(reason, []).append(file)
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))


def say_skipped(skipped: Sequence[dict[str, str]], what: str, where: str) -> None:
    """Print the number of unused files and the most common reasons."""
    if not skipped:
        return
    say(f"{len(skipped)} files {what}; {where}:")
    groups = list(by_reason(skipped).items())
    for reason, files in groups[:_REASONS]:
        if len(files) > 1:
            say(f"  {len(files)} x {reason} (such as {files[0]})")
        else:
            say(f"  {files[0]}: {reason}" if not reason.startswith(SAME_SCAN) else f"  {files[0]}")
    if rest := sum(len(files) for _, files in groups[_REASONS:]):
        say(f"  and {rest} more")
