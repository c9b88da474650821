"""What the command `slices` tells at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mri_transfer.progress import say

CONTACT_SHEET = "contact_sheet.png"
SUMMARY = "summary.json"
_REASONS = 8  # that are told; all are in the summary


def tell(out: Path, summary: dict[str, Any], seconds: float) -> None:
    """Say what a store holds now, what was left out of it, and what to look at."""

    def listed(counts: dict[str, int]) -> str:
        return ", ".join(f"{count} {name}" for name, count in counts.items())

    rate = f", {summary['added_slices'] / seconds:.0f} slices/s" if summary["added_slices"] else ""
    say(
        f"{out}: {summary['slices']} slices ({listed(summary['by_plane'])}) of {summary['volumes']} volumes "
        f"and {summary['subjects']} subjects ({listed(summary['by_sequence'])}); "
        f"{summary['added_slices']} new{rate}"
    )
    if redundant := summary["redundant"]:
        cut = summary["slices"] + redundant
        say(
            f"{redundant} of {cut} slices dropped as redundant ({100 * redundant / cut:.1f}%): they correlate above "
            f"{summary['settings']['max_correlation']:g} with a kept one"
        )
    if moved := summary["moved"]:
        say(f"{len(moved)} volumes of the store have moved (such as {moved[0]['to']}); their slices stay")
    if missing := summary["missing"]:
        say(f"{len(missing)} volumes of the store are gone (such as {missing[0]}); their slices stay")
    say_skipped(summary["skipped"], "skipped", f"listed in {out / SUMMARY}")
    say(f"look at {out / CONTACT_SHEET}")


def say_skipped(skipped: Sequence[dict[str, str]], what: str, where: str) -> None:
    """Say how many files are not used, and the commonest reasons."""
    if not skipped:
        return
    say(f"{len(skipped)} files {what}; {where}:")
    reasons = Counter(skip["reason"] for skip in skipped)
    first = {skip["reason"]: skip["file"] for skip in reversed(skipped)}
    for reason, count in reasons.most_common(_REASONS):
        example = first[reason]
        say(f"  {count} x {reason} (such as {example})" if count > 1 else f"  {example}: {reason}")
    if len(reasons) > _REASONS:
        say(f"  and {sum(count for _, count in reasons.most_common()[_REASONS:])} more")
