"""Options of `mri-transfer fetch`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mri_transfer.datasets.fetch.sources import IXI_MODALITIES, OASIS_DISCS, OASIS_VARIANTS, SOURCES
from mri_transfer.datasets.fetch.transfer.addresses import shown, split_credentials
from mri_transfer.errors import UserError
from mri_transfer.options import argument, did_you_mean, option, positive_float, positive_int


def modalities(text: str) -> tuple[str, ...]:
    """Comma-separated names, in their usual order."""
    names = {name.strip().upper() for name in text.split(",")}
    if not names <= set(IXI_MODALITIES):
        raise ValueError(f"name some of {','.join(IXI_MODALITIES)}")
    return tuple(name for name in IXI_MODALITIES if name in names)


def discs(text: str) -> tuple[int, ...]:
    """Numbers and ranges, such as 1,3,5-8."""
    numbers: set[int] = set()
    for item in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", item)
        if not match:
            raise ValueError("name discs such as 1,3,5-8")
        numbers |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    if not numbers or not numbers <= set(OASIS_DISCS):
        raise ValueError(f"discs go from {OASIS_DISCS[0]} to {OASIS_DISCS[-1]}")
    return tuple(sorted(numbers))


def check_number(text: str | None) -> str:
    """The accession number of a data set, such as ds000001.

    Raises:
        UserError: it is invalid.
    """
    number = (text or "").strip().lower()
    if not re.fullmatch(r"ds\d{6}", number):
        problem = f"{text!r} is no" if text else "needs the"
        raise UserError(
            f"openneuro: {problem} number of a data set; name one such as ds000001 from https://openneuro.org"
        )
    return number


@dataclass(frozen=True)
class FetchConfig:
    """Settings of `mri-transfer fetch`."""

    EXAMPLE: ClassVar[str] = """\
sources:
  ixi         nearly 600 healthy adults, T1, T2, PD, MRA    4.8 GB for T1, 3.9 for T2   CC BY-SA 3.0
  oasis1      416 adults, T1, on 12 discs                   1.5 GB per disc             asks for agreement
  openneuro   any data set of openneuro.org, anat/ only     mostly small                mostly CC0
  tumors      the four-class tumour set, from Kaggle        92 MB                       needs your Kaggle token

examples:
  mri-transfer fetch ixi --out ~/data/ixi --modalities T1
  mri-transfer fetch oasis1 --out ~/data/oasis1 --discs 1-3 --accept-terms
  mri-transfer fetch openneuro ds000001 --out ~/data/openneuro
  mri-transfer fetch tumors --out ~/data/tumors --zip ~/Downloads/archive.zip

Licence and terms are shown first and kept beside the data. Run the same command again after any interruption:
it continues, and finished files are not fetched again. What was received, with checksums, is in receipt.jsonl;
what can't be fetched is skipped and listed in summary.json (--strict makes it an error).
"""

    HEADINGS: ClassVar[dict[str, str]] = {
        "of one source": "modalities discs variant zip accept_terms",
        "downloading": "mirror parallel retries timeout keep_archives verify",
    }

    source: str = argument(help=f"one of {', '.join(SOURCES)}", metavar="SOURCE", parse=str.lower)
    out: Path = option(
        help="folder for the data; new, or one that the same source was fetched to", metavar="DIR"
    )
    name: str | None = argument(
        help="for openneuro, the number of the data set: ds000001", metavar="NAME", default=None
    )
    modalities: tuple[str, ...] = option(
        ("T1", "T2"), help=f"ixi: some of {','.join(IXI_MODALITIES)}", parse=modalities, metavar="NAMES"
    )
    discs: tuple[int, ...] = option(
        OASIS_DISCS, help="oasis1: which discs, such as 1,3,5-8", parse=discs, metavar="NUMBERS"
    )
    variant: str = option(
        "subj111",
        help="oasis1: which image of each scan: the average of its repeats (subj111), the first repeat (raw), or the "
        "average in atlas space (t88)",
        choices=OASIS_VARIANTS,
    )
    zip: Path | None = option(
        None, help="tumors: unpack this zip that you downloaded yourself", metavar="FILE"
    )
    accept_terms: bool = option(False, help="agree to the terms shown; oasis1 requires this")
    mirror: str | None = option(None, help="base address of a mirror to download from instead", metavar="URL")
    parallel: int = option(4, help="files downloaded at the same time", parse=positive_int, metavar="N")
    keep_archives: bool = option(False, help="keep archives after they are unpacked")
    verify: bool = option(
        False, help="check finished files against their checksums, and download again those that differ"
    )
    retries: int = option(
        8,
        help="give up after this many failures in a row without receiving a byte",
        parse=positive_int,
        metavar="N",
    )
    timeout: float = option(
        60.0,
        help="drop and retry a connection after this many seconds without a byte",
        parse=positive_float,
        metavar="S",
    )
    strict: bool = option(False, help="treat a file that can't be fetched or unpacked as an error")

    def check(self) -> None:
        """Check that the options are consistent.

        Raises:
            UserError: they aren't.
        """
        if self.source not in SOURCES:
            hint = did_you_mean(self.source, SOURCES)
            raise UserError(f"{self.source}: no such source; choose one of {', '.join(SOURCES)}{hint}")
        if self.source == "openneuro":
            check_number(self.name)
        elif self.name:
            raise UserError(f"{self.name}: {self.source} takes no NAME; remove it")
        if self.zip and self.source != "tumors":
            raise UserError(f"--zip {self.zip}: is for tumors; {self.source} is downloaded")
        if self.zip and not self.zip.is_file():
            raise UserError(f"{self.zip}: no such file; name the zip that you downloaded")
        if self.mirror is not None:
            try:
                address = split_credentials(self.mirror)[0]
            except ValueError:
                address = ""
            if not re.match(r"https?://[^/]", address):
                raise UserError(
                    f"--mirror {shown(self.mirror)}: no address; give one that begins with https:// or http://"
                )
