"""`mri-transfer doctor`: what this machine is and can handle, and what to fix before a night-long run.

It reads what the kernel and NVIDIA's tools expose, trains for a minute on noise, writes one temporary file to measure
disk speed, and changes nothing.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from mri_transfer import progress
from mri_transfer.checkpoints import DEFAULT_BACKBONE
from mri_transfer.errors import UserError
from mri_transfer.machine import checks, device, memory
from mri_transfer.machine.boards import Board, read_board
from mri_transfer.machine.checks import ADVICE, GOOD, PROBLEM, Finding
from mri_transfer.options import non_negative_float, option
from mri_transfer.words import size_in_words

MARKS = {GOOD: "  ok  ", ADVICE: " note ", PROBLEM: " FIX  "}
SIZE, BATCH = 160, 64


@dataclasses.dataclass(frozen=True)
class DoctorConfig:
    """What to look at."""

    EXAMPLE: ClassVar[str] = """\
examples:
  mri-transfer doctor                     look at this machine and train for a minute on noise
  mri-transfer doctor --seconds 0         only look
  mri-transfer doctor --folder /mnt/ssd   the disk that the slices and runs will be on
  mri-transfer doctor --root copy/        look at another machine's /proc, /sys, /etc and /var, copied to copy/

Every problem comes with a remedy. Nothing is changed. The exit code is 0 whatever is found.
"""

    folder: Path = option(Path(), help="where slices and runs will be written", metavar="DIR")
    seconds: float = option(
        60.0,
        help="how long to train for measuring the speed, in seconds; 0 skips it",
        parse=non_negative_float,
        metavar="S",
    )
    root: Path = option(Path("/"), help="read a copy of another machine's files instead", metavar="DIR")


def doctor(config: DoctorConfig) -> dict[str, Any]:
    """Inspect the machine and report findings.

    Returns:
        {"machine", "board": {"model", "l4t", "jetpack"} or None, "findings": [as in :class:`Finding`], "speed",
        "recommended": {"command", ...}}; the last two are None if nothing was measured.

    Raises:
        UserError: `root` or `folder` is not a folder.
    """
    for name, path in (("root", config.root), ("folder", config.folder)):
        if not path.is_dir():
            raise UserError(f"--{name} {path}: no such folder")
    on_this_machine = config.root.resolve() == Path("/")
    board = read_board(config.root)
    findings = list(checks.of_board(board))
    if on_this_machine:
        findings += checks.of_software(checks.probe(), board)
    findings += checks.of_memory(config.root, board)
    findings += checks.of_power(config.root)
    findings += checks.of_heat(config.root)
    if on_this_machine:
        findings += checks.of_disk(config.folder)
        findings += checks.of_clock(time.time())
    for finding in findings:
        progress.show(_line(finding))
    speed = None
    if on_this_machine and config.seconds:
        finding, speed = _speed(config.seconds)
        findings.append(finding)
        progress.show(_line(finding))
    recommended = recommendation(board, speed) if speed else None
    summary = {
        "machine": checks.machine_name(config.root, board),
        "board": board and {"model": board.model, "l4t": board.l4t, "jetpack": board.jetpack},
        "findings": [dataclasses.asdict(finding) for finding in findings],
        "speed": speed,
        "recommended": recommended,
    }
    if recommended:
        progress.show(f"\nrecommended here: {recommended['command']}\n{recommended['sentence']}")
    wrong = [finding for finding in findings if finding.level == PROBLEM]
    progress.say(
        f"{summary['machine']}: {len(wrong)} to fix, {sum(f.level == ADVICE for f in findings)} to consider"
    )
    return summary


def _line(finding: Finding) -> str:
    line = f"[{MARKS[finding.level]}] {finding.topic}: {finding.text}"
    return f"{line}\n         → {finding.remedy}" if finding.remedy else line


def _speed(seconds: float) -> tuple[Finding, dict[str, Any] | None]:
    """The findings of a measurement, and its figures."""
    limit = memory.default_limit()
    device.limit_memory(limit)
    device.prepare()
    from mri_transfer.pretrain.run.speed import measure_speed

    progress.say(f"training on noise for {seconds:g} s, after compiling ...")
    try:
        speed = measure_speed(backbone=DEFAULT_BACKBONE, size=SIZE, batch=BATCH, seconds=seconds, limit=limit)
    except UserError as error:
        return Finding("speed", PROBLEM, "training does not fit in memory", str(error)), None
    at_once = speed.micro_batch or speed.batch
    finding = Finding(
        "speed",
        GOOD,
        f"{speed.views_per_second:.0f} views/s in {speed.precision} ({speed.backbone}, {speed.size} px, {speed.batch} "
        f"pairs, {at_once} at once, about {size_in_words(speed.memory_bytes)}): "
        f"{speed.hours_per_million_views:.1f} hours per million views",
    )
    return finding, {
        **dataclasses.asdict(speed),
        "precision": speed.precision,
        "views_per_second": round(speed.views_per_second, 1),
        "hours_per_million_views": round(speed.hours_per_million_views, 2),
    }


def recommendation(board: Board | None, speed: Mapping[str, Any]) -> dict[str, Any]:
    """Settings for an overnight run here, from the measurements."""
    night = "night-orin" if board else "night-8gb"
    views = 8 * 3600 * speed["views_per_second"]
    return {
        "backbone": speed["backbone"],
        "batch": speed["batch"],
        "micro_batch": speed["micro_batch"],
        "precision": speed["precision"],
        "recipe": night,
        "command": f"mri-transfer pretrain STORE --out RUN --recipe {night}",
        "sentence": (
            f"A night of 8 hours sees about {views / 1e6:.1f} million views at {speed['size']} px, and more while "
            "views are small; precision and pairs at once are chosen by the run itself."
        ),
    }
