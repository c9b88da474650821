"""`mri-transfer demo`: the whole pipeline on generated heads, to try before committing data and a night."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mri_transfer import __version__, progress
from mri_transfer.options import option, positive_int, seed_number, side, time_in
from mri_transfer.storage.files import atomic_write, claim_folder, object_or_none, read_object, write_json
from mri_transfer.storage.locks import alone_in, require_here

BANNER = "generated heads, no evidence"
SUBJECTS, IMAGES_PER_CLASS = 8, 100
TEMPLATES = Path(__file__).parent / "templates"


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """Settings of the demo; the defaults finish in minutes on two cores."""

    EXAMPLE: ClassVar[str] = """\
What it does, and the commands that do the same with real data:
  generates heads                           mri-transfer fetch ...
  cuts their volumes into slices            mri-transfer slices VOLUMES --out STORE
  pretrains briefly on ImageNet's weights   mri-transfer pretrain STORE --out RUN --hours 8 --init imagenet
  audits the labelled images                mri-transfer audit TUMORS --against STORE
  compares three starts                     mri-transfer compare TUMORS --arm random --arm imagenet --arm mri=RUN

The heads are drawn from ellipsoids and noise. What comes out says nothing about real MRI.
"""

    out: Path = option(Path("demo"), help="folder for everything the demo makes", metavar="DIR")
    minutes: float = option(1.0, help="time for pretraining, in minutes", metavar="M", parse=time_in("min"))
    size: int = option(96, help="side of slices and images in pixels", metavar="PX", parse=side)
    batch: int = option(16, help="pairs of slices in a pretraining step", metavar="PAIRS", parse=positive_int)
    seed: int = option(
        0, help="seed of the heads, and of everything made from them", metavar="N", parse=seed_number
    )


def demo(config: DemoConfig) -> dict[str, Any]:
    """Generate, slice, pretrain, audit, compare; finished parts are not repeated.

    Returns:
        The summary, with the path of the page that links to all others.

    Raises:
        UserError: the folder holds something else, or a demo with different settings.
    """
    claim_folder(config.out, "demo")
    with alone_in(config.out):
        return _demo(config)


def _demo(config: DemoConfig) -> dict[str, Any]:
    from mri_transfer.datasets.audit.audit import AuditConfig, audit
    from mri_transfer.datasets.extraction.extract import SlicesConfig, extract
    from mri_transfer.finetune.compare import compare
    from mri_transfer.finetune.config import CompareConfig
    from mri_transfer.pretrain.config import PretrainConfig
    from mri_transfer.pretrain.pretrain import pretrain

    out = config.out
    volumes, tumors, store, report = out / "volumes", out / "tumors", out / "store", out / "report"
    run = out / "imagenet-mri"
    started = time.monotonic()

    def say_step(title: str) -> None:
        require_here(out)
        progress.say(f"\n── {title} · {BANNER}")

    say_step("Generating heads")
    _generate(config, volumes, tumors)
    say_step("Volumes to slices")
    stored = extract(SlicesConfig(paths=(volumes,), out=store, size=config.size, banner=BANNER))
    say_step("Pretraining, briefly, on top of ImageNet's weights")
    trained = pretrain(
        PretrainConfig(
            store=store,
            out=run,
            minutes=config.minutes,
            init="imagenet",
            batch=config.batch,
            seed=config.seed,
            banner=BANNER,
        )
    )
    say_step("Auditing the labelled images")
    audited = audit(AuditConfig(folder=tumors, out=out / "audit", against=store, banner=BANNER))
    comparison = CompareConfig(
        tumors=tumors,
        out=report,
        groups=out / "audit" / "groups.csv",
        arm=("random", "imagenet", f"imagenet+mri={run}"),
        size=config.size,
        seed=config.seed,
        title="Demo: which start is better?",
        banner=BANNER,
    )
    say_step("Comparing three starts on the same folds")
    summary = compare(comparison)
    page = (out / "index.html").resolve()
    _write_index(page, config, summary, stored, trained, audited)
    result = {
        "page": str(page),
        "report": str((report / "report.html").resolve()),
        "verdict": summary.get("verdict"),
        "banner": BANNER,
    }
    write_json(out / "summary.json", result)
    progress.say(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes. Open {page} in a browser.")
    return result


def _write_index(
    path: Path,
    config: DemoConfig,
    compared: dict[str, Any],
    stored: dict[str, Any],
    trained: dict[str, Any],
    audited: dict[str, Any],
) -> None:
    """One page that shows each part of the demo and links to that part's page; the others are the parts' summaries."""
    from mri_transfer.datasets.store.store import SliceStore
    from mri_transfer.pages.html_pages import data_uri, environment

    out = config.out
    store = SliceStore.open(out / "store")
    indices = np.linspace(0, len(store) - 1, 6).round().astype(int)
    labelled = [
        (folder.name, data_uri(picture, 160))
        for folder in sorted((out / "tumors" / "Training").iterdir())
        if (picture := _first_picture(folder)) is not None
    ]
    report = read_object(out / "report" / "report.json", {"pairs": [dict], "results": [dict]})
    page = (
        environment(TEMPLATES)
        .get_template("demo.html.j2")
        .render(
            banner=BANNER,
            verdict=compared.get("verdict"),
            beyond_random=_lead_of(report["pairs"], "imagenet", "random"),
            scores=[entry for entry in report["results"] if entry["mode"] == "probe"],
            slices=[data_uri(image, 160) for image in store.images(indices)],
            store=stored,
            labelled=labelled,
            audit=audited,
            run=trained,
            minutes=config.minutes,
            version=__version__,
        )
    )
    with atomic_write(path) as file:
        file.write(page)


def _first_picture(folder: Path) -> np.ndarray | None:
    """The first readable picture of a class; None if there is none."""
    from mri_transfer.datasets.image_files import read_grey

    for path in sorted(folder.glob("*.jpg")):
        with contextlib.suppress(Exception):  # a damaged one; Pillow raises nearly anything
            return read_grey(path)
    return None


def _lead_of(pairs: list[dict[str, Any]], a: str, b: str) -> dict[str, float] | None:
    """How far start `a` leads `b` by linear probe; None unless the interval lies above zero."""
    for pair in pairs:
        if pair["mode"] == "probe" and {pair["a"], pair["b"]} == {a, b}:
            interval = pair["difference"]
            if pair["a"] != a:
                interval = {
                    "estimate": -interval["estimate"],
                    "low": -interval["high"],
                    "high": -interval["low"],
                }
            return interval if interval["low"] > 0 else None
    return None


def _generate(config: DemoConfig, volumes: Path, tumors: Path) -> None:
    """Generate the data once; the same seed gives the same heads, so an interrupted generation simply restarts."""
    from mri_transfer.datasets.synthetic.generate import write_tumors, write_volumes

    record, settings = (
        config.out / "generated.json",
        {"seed": config.seed, "subjects": SUBJECTS, "images": IMAGES_PER_CLASS, "one_each": True},
    )
    if object_or_none(record) == settings:
        return
    write_volumes(volumes, subjects=SUBJECTS, seed=config.seed)
    write_tumors(tumors, per_class=IMAGES_PER_CLASS, seed=config.seed + 1, one_each=True)
    write_json(record, settings)
