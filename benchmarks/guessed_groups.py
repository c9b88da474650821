"""The comparison from before the pictures' persons were known, plus the floors it lacked.

    python benchmarks/guessed_groups.py TUMORS --out DIR [--size 160] [--arm NAME=START ...]

Nothing is recognised, so groups come only from file names and similarity. Then the same with persons. It prints
macro-F1 of a linear probe, of a random forest on the picture's global figures and of raw pixels, on the same folds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from results import interval

from mri_transfer import api
from mri_transfer.datasets.tumors import tumors
from mri_transfer.datasets.tumors.persons.originals import SIDE, Originals

NOTHING = Originals("nothing", (), np.zeros((0, SIDE, SIDE), np.uint8), (), (), ())


def scores(report: dict[str, Any]) -> dict[str, str]:
    """Macro-F1 of every arm and floor of a report, in words."""
    arms = {entry["arm"]: interval(entry["macro_f1"]) for entry in report["results"]}
    return arms | {f"floor: {floor['words']}": interval(floor["macro_f1"]) for floor in report["floors"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("tumors", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for both comparisons")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--arm", action="append", default=None, help="as of `compare`; random and imagenet")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    table = {}
    recognised = tumors.figshare_originals
    for name, originals in (("guessed groups", lambda: NOTHING), ("persons", recognised)):
        tumors.figshare_originals = originals  # type: ignore[assignment]
        comparison = api.compare(
            options.tumors,
            out=options.out / name.replace(" ", "-"),
            arm=options.arm or ["random", "imagenet"],
            mode="probe",
            size=options.size,
            one_source="none",
        )
        table[name] = scores(comparison.details)
    print(f"| macro-F1, all labels | {' | '.join(table)} |\n|{'---|' * (len(table) + 1)}")
    for row in table["persons"]:
        print(f"| {row} | {' | '.join(column[row] for column in table.values())} |")


if __name__ == "__main__":
    main()
