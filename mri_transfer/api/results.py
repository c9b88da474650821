"""Return values of the API: a command's summary with attributes, tables, figures and a page.

Each is also a dictionary, with the entries of the command's `summary.json`.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mri_transfer.errors import UserError
from mri_transfer.options import did_you_mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 50  # rows of a table in a notebook
HEIGHT = 640  # pixels of a page in a notebook
AGAIN = "make it again with the same `mri-transfer compare`"


class Result(dict[str, Any]):
    """A command's summary; its entries are also attributes.

    Attributes
    ----------
    folder : Path or None
        Where everything was written.
    """

    PAGE: ClassVar[str] = ""  # in the folder
    ROWS: ClassVar[str] = ""  # the entry that is a table
    folder: Path | None

    def __init__(self, summary: Mapping[str, Any], folder: Path | None = None):
        super().__init__(summary)
        self.folder = folder

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        hint = "" if name.startswith("_") else did_you_mean(name, [*self, *dir(type(self))])
        raise AttributeError(f"{type(self).__name__} has no {name}{hint}")

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self]

    @property
    def page(self) -> Path | None:
        """The page to open in a browser, if there is one."""
        path = self.folder / self.PAGE if self.folder is not None and self.PAGE else None
        return path if path is not None and path.is_file() else None

    def rows(self) -> list[dict[str, Any]]:
        """The table of `to_frame` as dictionaries, nested entries joined by "_"."""
        return [_flat(row) for row in self.get(self.ROWS) or ()]

    def to_frame(self) -> Any:
        """The main table as a `pandas.DataFrame`.

        Raises
        ------
        UserError
            pandas is not installed, or there is no table.
        """
        return _frame(self.rows(), type(self).__name__)

    def __repr__(self) -> str:
        gist = self.get("verdict") or self.get("sentence")
        parts = [str(gist)] if gist else []
        return f"{type(self).__name__}({'; '.join([*parts, *([str(self.folder)] if self.folder else [])])})"

    def _repr_html_(self) -> str:
        if page := self.page:
            return (
                f'<iframe srcdoc="{html.escape(page.read_text(encoding="utf-8"))}" '
                f'sandbox="allow-scripts" style="width:100%;height:{HEIGHT}px;border:0"></iframe>'
                f"<p><small>{html.escape(str(page))}</small></p>"
            )
        rows = self.rows()
        if not rows:
            rows = [{"": key, " ": value} for key, value in _flat(self).items()]
        more = f"<p>and {len(rows) - SHOWN} more</p>" if len(rows) > SHOWN else ""
        columns = list(dict.fromkeys(key for row in rows[:SHOWN] for key in row))
        head = "".join(f"<th>{html.escape(key)}</th>" for key in columns)
        body = "".join(
            f"<tr>{''.join(f'<td>{_cell(row.get(key))}</td>' for key in columns)}</tr>"
            for row in rows[:SHOWN]
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


class Slices(Result):
    """A store of slices: counts by plane and sequence, and what was left out. Its table has one row per slice."""

    PAGE = "summary.html"

    def rows(self) -> list[dict[str, Any]]:
        return _csv(self.folder, "slices.csv")


class Audit(Result):
    """Faults of a folder of labelled images. Its table has one row per file, with its group."""

    PAGE = "audit.html"

    def rows(self) -> list[dict[str, Any]]:
        return _csv(self.folder, "groups.csv")


class Doctor(Result):
    """A machine's description and what to fix. Its table has one row per finding."""

    ROWS = "findings"


class Encoders(Result):
    """The encoders shipped with this program. Its table has one row per encoder."""

    ROWS = "encoders"


class Verified(Result):
    """Results of a verification. Its table has one row per folder."""

    ROWS = "paths"


class Predictions(Result):
    """Classes of images and slices. Its table has one row each, with the probability of every class."""

    ROWS = "images"


class Pretraining(Result):
    """A pretraining run. Its table has one row per line of metrics.

    Attributes
    ----------
    encoder : str
        Folder of the encoder; `load_encoder` opens it.
    sentence : str
        How the run went.
    """

    PAGE = "run.html"

    def rows(self) -> list[dict[str, Any]]:
        from mri_transfer.storage.json_lines import read_lines

        path = self.folder / "metrics.jsonl" if self.folder is not None else None
        if path is None or not path.is_file():
            return []
        with path.open("rb") as file:
            return [dict(line.value) for line in read_lines(file) if isinstance(line.value, dict)]

    def figures(self) -> dict[str, Figure]:
        """The charts of the run's page, by name."""
        from mri_transfer.pretrain.health.run_charts import draw

        return {
            picture.name: picture.figure for pictures in draw(self.rows()).values() for picture in pictures
        }


class Finetuned(Result):
    """A classifier; `load_classifier(result.run)` opens it."""


class Comparison(Result):
    """Which start is better: the verdict, and every figure behind it.

    Attributes
    ----------
    verdict : str
        The answer in a sentence.
    outcome : str
        "ahead", "behind", "not settled", "no difference", "undefined" or "single".
    report : str
        Path of the page.
    """

    PAGE = "report.html"
    ROWS = "results"

    @property
    def details(self) -> dict[str, Any]:
        """Everything in `report.json`."""
        from mri_transfer.storage.files import Kind, read_object

        if self.folder is None or not (self.folder / "report.json").is_file():
            raise UserError("this comparison has no report yet")
        kinds: dict[str, Kind] = {"pairs": [dict], "results": [dict], "arm_names": [str], "verdict": dict}
        return read_object(self.folder / "report.json", kinds, remedy=AGAIN)

    @property
    def pairs(self) -> list[dict[str, Any]]:
        """Each pair of arms: difference, interval, probability that the first is better."""
        return list(self.details["pairs"])

    def to_frame(self, table: Literal["results", "pairs", "trials"] = "results") -> Any:
        """A table as a `pandas.DataFrame`.

        Parameters
        ----------
        table : {"results", "pairs", "trials"}
            Scores of the arms, differences between them, or every single trial.

        Raises
        ------
        UserError
            pandas is not installed, or there is no such table.
        """
        rows = {
            "results": self.rows,
            "pairs": lambda: [_flat(pair) for pair in self.pairs],
            "trials": lambda: _csv(self.folder, "trials.csv"),
        }
        if table not in rows:
            raise UserError(f"{table}: no such table{did_you_mean(table, rows)}; choose {', '.join(rows)}")
        return _frame(rows[table](), table)

    def figures(self) -> dict[str, Figure]:
        """The charts of the report, by name: "headline", "scores-probe", "recall", ..."""
        from mri_transfer.finetune.report import charts
        from mri_transfer.finetune.report.styles import looks

        report = self.details
        try:
            sections = charts.draw(report, looks(report["arm_names"]))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            what = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
            raise UserError(f"{self.folder}/report.json: is damaged ({what}); {AGAIN}") from None
        return {picture.name: picture.figure for pictures in sections.values() for picture in pictures}


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, keys joined by "_"."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        flat |= _flat(value, f"{prefix}{key}_") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _csv(folder: Path | None, name: str) -> list[dict[str, Any]]:
    """The rows of a table written by a command; numbers as numbers."""
    import csv

    path = folder / name if folder is not None else None
    if path is None or not path.is_file():
        return []
    try:
        # File names may be any bytes; Python represents those that are not UTF-8 as surrogates.
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = list(csv.DictReader(file))
    except csv.Error as error:
        raise UserError(f"{path}: not readable as a table ({error}); make it again") from None
    if any(None in row for row in rows):
        raise UserError(f"{path}: is damaged (a line has more cells than the heading); make it again")
    return [{key: _number(value) for key, value in row.items()} for row in rows]


def _number(text: str | None) -> Any:
    for kind in (int, float):
        try:
            return kind(text or "")
        except ValueError:
            continue
    return text or None


def _frame(rows: list[dict[str, Any]], name: str) -> Any:
    try:
        import pandas
    except ImportError:
        raise UserError("to_frame: needs pandas; pip install pandas, or use rows()") from None
    if not rows:
        raise UserError(f"{name}: there is no table")
    return pandas.DataFrame(rows)


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
    return html.escape(text.encode(errors="replace").decode())
