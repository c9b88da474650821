"""`mri-transfer audit`: what is wrong with a folder of labelled images, and what to do about it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mri_transfer.datasets.audit import advice
from mri_transfer.datasets.audit.examination import examine, examine_against
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.datasets.tumors.layout import Layout, read_layout
from mri_transfer.datasets.tumors.persons.figshare import read_figshare
from mri_transfer.datasets.tumors.persons.group_table import write_groups
from mri_transfer.datasets.tumors.persons.originals import Originals
from mri_transfer.datasets.tumors.tumors import load_tumors
from mri_transfer.options import argument, option
from mri_transfer.progress import say, show
from mri_transfer.storage.files import check_outside, claim_folder, write_json
from mri_transfer.storage.locks import alone_in
from mri_transfer.storage.sums import signed

SIZE = 64  # pixels; thumbnails are taken from the full image, so this decides nothing


@dataclass(frozen=True)
class AuditConfig:
    """Settings of `mri-transfer audit`."""

    folder: Path = argument(
        help="folder of labelled images: one folder per class, with or without splits above", metavar="TUMORS"
    )
    out: Path = option(
        Path("audit"), help="folder for audit.html, audit.json, groups.csv and summary.json", metavar="DIR"
    )
    against: Path | None = option(
        None, help="slice store to check: are any of these images among its slices?", metavar="STORE"
    )
    figshare: Path | None = option(
        None,
        help="folder with the .mat files of Figshare's brain tumour dataset, from which many of these images come: "
        "only needed if your copy has changed or additional slices; the patients of the published ones are known",
        metavar="DIR",
    )
    groups: Path | None = option(
        None, help="groups.csv, corrected or your own, to use instead of inferring the groups", metavar="FILE"
    )
    force_groups: bool = option(
        False, help="accept --groups or --figshare even if one group holds more than a quarter of a class"
    )
    strict: bool = option(
        False, help="treat an unreadable image as an error instead of listing it in the summary"
    )
    banner: str = ""  # not an option: the banner of the demo's page

    EXAMPLE: ClassVar[str] = (
        "example:\n"
        "  mri-transfer audit data/tumors --against store --out audit\n"
        "  mri-transfer compare data/tumors --groups audit/groups.csv --arm imagenet --arm random --out report\n\n"
        "Reads every image, changes none. Open audit/audit.html to see the pairs side by side."
    )


def audit(config: AuditConfig) -> dict[str, Any]:
    """Read the folder, write the findings, print a summary and return it.

    Raises:
        UserError: a folder, the store, the table or `--out` can't be used.
    """
    store = SliceStore.open(config.against) if config.against else None
    if store is not None:
        store.check_pixels()
    originals, unread = read_figshare(config.figshare) if config.figshare else (None, [])
    layout = read_layout(config.folder)  # first, so that a wrong folder leaves no trace
    check_outside(config.out, config.folder)
    claim_folder(config.out, "audit")
    with alone_in(config.out), signed(config.out, "audit"):
        return _audit(config, layout, store, originals, unread)


def _audit(
    config: AuditConfig,
    layout: Layout,
    store: SliceStore | None,
    originals: Originals | None,
    unread: list[dict[str, str]],
) -> dict[str, Any]:
    tumors = load_tumors(
        config.folder,
        SIZE,
        strict=config.strict,
        cache=config.out / "cache",
        groups_from=config.groups,
        force_groups=config.force_groups,
        originals=[originals] if originals else [],
        layout=layout,
    )
    findings = examine(config.folder, tumors)
    if originals is not None:
        findings["figshare"] = {"originals": len(originals), "skipped": unread}
    if store is not None:
        findings["against"] = examine_against(tumors, store)
    findings["headline"], findings["advice"] = advice.headline(findings), advice.advice(findings)

    write_groups(config.out / "groups.csv", tumors)
    write_json(config.out / "audit.json", findings)
    write_json(config.out / "summary.json", advice.counts(findings))
    # Imports Matplotlib, which neither `--help` nor the signatures of the Python API need.
    from mri_transfer.datasets.audit.audit_page import write_page

    page = config.out / "audit.html"
    write_page(page, findings, tumors, store, _command(config), config.banner)
    show("\n".join(advice.report(findings)))
    say(f"\nlook at {page}; audit.json and groups.csv are beside it")
    return findings


def _command(config: AuditConfig) -> str:
    words = ["mri-transfer", "audit", str(config.folder), "--out", str(config.out)]
    for name in ("against", "figshare", "groups"):
        if value := getattr(config, name):
            words += [f"--{name}", str(value)]
    if config.force_groups:
        words.append("--force-groups")
    return shlex.join(words)
