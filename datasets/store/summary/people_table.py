"""A table of people by data set for the user to check: counts, scans, how paths were read, and what is odd."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mri_transfer.datasets.store.ledger import Ledger, source_of
from mri_transfer.datasets.store.summary.doubts import doubts
from mri_transfer.datasets.volumes.find import Source

_MOST_ROWS = 40
_MOST_EXAMPLES = 8  # data sets to give an example of


@dataclass(frozen=True)
class Scan:
    """A volume for the table."""

    dataset: str
    subject: str
    session: str
    sequence: str
    name: str
    how: str


def scans_of(sources: Iterable[Source]) -> list[Scan]:
    """From files found."""
    return [
        Scan(
            source.identity.dataset or source.name.split("/")[0],
            *(source.identity.subject, source.identity.session, source.identity.sequence, source.name),
            source.identity.how,
        )
        for source in sources
    ]


def scans_in(ledger: Ledger) -> list[Scan]:
    """From volumes in a store."""
    return [
        Scan(
            entry.get("dataset") or source_of(entry),
            *(entry["subject"], entry["session"], entry["sequence"], entry["source"]),
            entry.get("how") or "",
        )
        for entry in ledger.used
    ]


def overview(scans: Sequence[Scan]) -> dict[str, Any]:
    """The people, for the user to check.

    Returns:
        "rows": one per data set: dataset, people, sessions, scans, scans_a_person [fewest, median, most], read [{"how",
        "scans", "file", "subject"}, ...] with an example each; "odd": sentences about what looks wrong.
    """
    by_dataset: dict[str, list[Scan]] = defaultdict(list)
    for scan in scans:
        by_dataset[scan.dataset].append(scan)
    rows = []
    for dataset, members in sorted(by_dataset.items()):
        counts = Counter(scan.subject for scan in members)
        ways: dict[str, list[Scan]] = defaultdict(list)
        for scan in members:
            ways[scan.how].append(scan)
        rows.append(
            {
                "dataset": dataset,
                "people": len(counts),
                "sessions": len({(scan.subject, scan.session) for scan in members}),
                "scans": len(members),
                "scans_a_person": [
                    min(counts.values()),
                    statistics.median(counts.values()),
                    max(counts.values()),
                ],
                "read": [
                    {"how": how, "scans": len(files), "file": files[0].name, "subject": files[0].subject}
                    for how, files in sorted(ways.items(), key=lambda item: -len(item[1]))
                ],
            }
        )
    return {"rows": rows, "odd": doubts(by_dataset)}


def table_lines(table: dict[str, Any]) -> list[str]:
    """The table as text: heading, one line per data set, sources of identities, oddities."""
    rows = table["rows"][:_MOST_ROWS]
    heading = ("data set", "people", "sessions", "scans", "scans per person")
    cells = [
        (row["dataset"], str(row["people"]), str(row["sessions"]), str(row["scans"]), range_text(row))
        for row in rows
    ]
    widths = [max(len(line[at]) for line in (heading, *cells)) for at in range(5)]
    lines = []
    for line in (heading, *cells):
        first, *rest = (
            text.ljust(widths[0]) if not at else text.rjust(widths[at]) for at, text in enumerate(line)
        )
        lines.append("  ".join((first, *rest)))
    if more := len(table["rows"]) - len(rows):
        lines.append(f"and {more} more data sets")
    for row in rows[:_MOST_EXAMPLES]:
        for read in row["read"][:2]:
            lines.append(f"{read['file']}: {read['subject']}" + (f" ({read['how']})" if read["how"] else ""))
    lines += [f"odd: {sentence}" for sentence in table["odd"]]
    return lines


def range_text(row: dict[str, Any]) -> str:
    """Scans per person: `2`, or `1 to 5`."""
    fewest, _, most = row["scans_a_person"]
    return str(fewest) if fewest == most else f"{fewest} to {most}"
