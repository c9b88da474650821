"""`mri-transfer demo`: the whole job on generated heads, to see it work before giving it data and a night."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any, ClassVar

from mri_transfer import progress
from mri_transfer.options import option, positive_float, positive_int, whole
from mri_transfer.storage.files import claim_folder, read_json, write_json

BANNER = "generated heads, no evidence"
SUBJECTS, IMAGES_PER_CLASS = 8, 60


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """Settings of the demo; the defaults finish in minutes on two cores."""

    EXAMPLE: ClassVar[str] = """\
What it does, and the commands that do the same with real data:
  generates heads                   mri-transfer fetch ...
  cuts their volumes into slices    mri-transfer slices VOLUMES --out STORE
  pretrains twice, briefly          mri-transfer pretrain STORE --out RUN --hours 8 [--init imagenet]
  audits the labelled images        mri-transfer audit TUMORS --against STORE
  compares four starts              mri-transfer compare TUMORS --arm random --arm imagenet --arm mri=RUN ...

The heads are drawn from ellipsoids and noise. What comes out says nothing about real MRI.
"""

    out: Path = option(Path("demo"), help="folder for everything the demo makes", metavar="DIR")
    minutes: float = option(
        0.75, help="time for each of the two pretraining runs, in minutes", metavar="M", parse=positive_float
    )
    size: int = option(96, help="side of slices and images in pixels", metavar="PX", parse=positive_int)
    batch: int = option(16, help="pairs of slices in a pretraining step", metavar="PAIRS", parse=positive_int)
    seed: int = option(0, help="of the heads, and of everything after them", metavar="N", parse=whole)


def demo(config: DemoConfig) -> dict[str, Any]:
    """Generate, slice, pretrain, audit, compare; a part that is already done is not done again.

    Returns:
        The summary, with the path of the report.

    Raises:
        UserError: the folder holds something else, or a demo with other settings.
    """
    from mri_transfer.datasets.audit.audit import AuditConfig, audit
    from mri_transfer.datasets.extraction.extract import SlicesConfig, extract
    from mri_transfer.finetune.compare import compare
    from mri_transfer.finetune.config import CompareConfig
    from mri_transfer.pretrain.config import PretrainConfig
    from mri_transfer.pretrain.run.run import pretrain

    out = config.out
    claim_folder(out, "demo")
    volumes, tumors, store, report = out / "volumes", out / "tumors", out / "store", out / "report"
    started = time.monotonic()

    def say_step(title: str) -> None:
        progress.say(f"\n── {title} · {BANNER}")

    say_step("Generating heads")
    _generate(config, volumes, tumors)
    say_step("Volumes to slices")
    extract(SlicesConfig(paths=(volumes,), out=store, size=config.size, banner=BANNER))
    runs = {"mri": ("random", out / "mri"), "imagenet+mri": ("imagenet", out / "imagenet-mri")}
    for name, (init, run) in runs.items():
        say_step(f"Pretraining the arm '{name}', from {init} weights")
        pretrain(
            PretrainConfig(
                store=store,
                out=run,
                minutes=config.minutes,
                init=init,
                batch=config.batch,
                seed=config.seed,
                banner=BANNER,
            )
        )
    say_step("Auditing the labelled images")
    audit(AuditConfig(folder=tumors, out=out / "audit", against=store, banner=BANNER))
    comparison = CompareConfig(
        tumors=tumors,
        out=report,
        groups=out / "audit" / "groups.csv",
        arm=("random", "imagenet", *(f"{name}={run}" for name, (_, run) in runs.items())),
        size=config.size,
        seed=config.seed,
        title="Demo: which start is better?",
        banner=BANNER,
    )
    say_step("Comparing four starts on the same folds")
    summary = compare(comparison)
    page = (report / "report.html").resolve()
    result = {"report": str(page), "verdict": summary.get("verdict"), "banner": BANNER}
    write_json(out / "summary.json", result)
    progress.say(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes. Open {page} in a browser.")
    return result


def _generate(config: DemoConfig, volumes: Path, tumors: Path) -> None:
    """The data, once: the same seed gives the same heads, so an interrupted generation is simply done again."""
    from mri_transfer.datasets.synthetic.generate import write_tumors, write_volumes

    made, wanted = (
        config.out / "generated.json",
        {"seed": config.seed, "subjects": SUBJECTS, "images": IMAGES_PER_CLASS},
    )
    if made.is_file() and read_json(made) == wanted:
        return
    write_volumes(volumes, subjects=SUBJECTS, seed=config.seed)
    write_tumors(tumors, per_class=IMAGES_PER_CLASS, seed=config.seed + 1)
    write_json(made, wanted)
