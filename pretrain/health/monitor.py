"""Measures a run's health now and then, within a small share of its time, and gives a verdict.

It touches nothing that training uses: slices and views are chosen once with separate seeds, and computing features
changes no variable, so a run with this monitor equals one without, bit for bit.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from mri_transfer import progress
from mri_transfer.pretrain.health.panel import CHUNK, Panel
from mri_transfer.pretrain.health.run_verdict import Verdict, verdict
from mri_transfer.pretrain.health.score import embedding_figures, feature_figures
from mri_transfer.storage.arrays import load_npz, write_arrays
from mri_transfer.storage.files import object_or_none

if TYPE_CHECKING:
    from mri_transfer.pretrain.run.monitors import At, RunView

# Share of a run's time for all health checks; the limit is 2%.
SHARE = 0.018
FEWEST_SLICES, MOST_SLICES = 64, 1024
# One at the start, one at the end, and at least one between to show a trend.
MEASUREMENTS = 3
# Training an image takes about as long as three passes through the encoder.
PASSES = 3
# A measurement encodes slices and pairs, and takes half as long again for the figures.
OVERHEAD = 1.5
# Seconds for the pages of a run with three measurements, for any number of slices.
PAGES_SECONDS = 3.0
# A figure in every measurement, which marks its line in metrics.jsonl.
MARK = "health_slices"
PAGE = "run.html"
START = "health-start.npz"  # features at the start, which the page compares to current ones
# With at least this budget in seconds, the page is also written at the start.
LONG = 1200.0
FIRST_PAGE_SECONDS = 2.0
MAP_SECONDS = 5.0  # extra for a long run's last page, with its better map


def panel_size(run: RunView, seconds: float, slice_seconds: float, compiling: float) -> int:
    """Number of slices, 64 to 1,024, that can be measured at least three times within the time share.

    Args:
        run: at its start.
        seconds: of the budget used so far.
        slice_seconds: time to encode one slice.
        compiling: seconds to compile that graph; the pairs' graph takes as long.
    """
    config = run.config
    if config.steps is not None:
        affordable = SHARE * PASSES * 2 * config.batch * config.steps / MEASUREMENTS
    else:
        total = config.seconds or seconds / max(run.share, 1e-6)
        fixed = 2 * compiling + PAGES_SECONDS
        affordable = (SHARE * total - fixed) / MEASUREMENTS / OVERHEAD / max(slice_seconds, 1e-9)
    # Part of a chunk takes as long as a whole one.
    return int(min(max(affordable, FEWEST_SLICES), MOST_SLICES)) // CHUNK * CHUNK


class HealthMonitor:
    """A monitor of label-free figures of the encoder's features, with a verdict and a page.

    One measurement is taken at the start and one at the end. As many as fit within `share` of the time are spread
    evenly between them, so that an early collapse in a short run is seen early.

    Args:
        keep_going: don't end a collapsed run.
        share: of the run's time; None for SHARE.
    """

    name = "health"

    def __init__(self, *, keep_going: bool = False, share: float | None = None):
        self.keep_going, self.share = keep_going, SHARE if share is None else share
        # The first page takes seconds to import matplotlib; later estimates come from the previous page.
        self.used, self.finish_seconds = 0.0, FIRST_PAGE_SECONDS
        self.stop: str | None = None
        self.verdict: Verdict | None = None
        self._slices: int | None = None
        self.again_seconds: float | None = None
        self._panel: Panel | None = None
        self._features: np.ndarray | None = None
        self._resumed_from: int | None = None
        self._page_written = False  # by this process
        # Measurements so far, and time of the last one, in seconds of the budget.
        self._count, self._measured_at = 0, 0.0

    def restore(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Measure a resumed run on the slices it began with."""
        measurements = _measurements(lines)
        if measurements:
            self._slices = measurements[0][MARK]
            self._count, self._measured_at = len(measurements), measurements[-1]["seconds"]
        if lines:
            self._resumed_from = lines[-1]["step"]

    def due(self, run: RunView, at: At) -> bool:
        """At the start, then spread evenly, as affordable, between the last one and the end."""
        if self._slices is None:
            return True
        elapsed = at["seconds"]
        total = run.config.seconds or elapsed / max(run.share, 1e-9)
        spent = self.used * elapsed
        # A new process doesn't know the cost yet.
        cost = max(
            self.again_seconds if self.again_seconds is not None else spent / max(self._count, 1), 1e-9
        )
        before_the_last = (self.share * total - spent - self.finish_seconds) // cost - 1
        if before_the_last < 1:
            return False
        return elapsed - self._measured_at >= (total - self._measured_at) / (before_the_last + 1)

    def measure(self, run: RunView, at: At) -> dict[str, Any]:
        """The current figures, as JSON values with flat keys.

        Returns:
            "knn_plane", "knn_sequence", "knn_position", each with "_chance" and "_error" (see `label_agreement`; labels
            unknown to the store are omitted), "score": their mean (accuracy - chance) / (1 - chance), and
            "score_error"; for the encoder's features "spread", "uniformity", "rankme" and "rankme_limit"; for the
            embeddings that the loss compares "embedding_spread", "embedding_rank", "alignment" and "alignment_ratio";
            "loss_mean" and "loss_sd" of the reports since the last measurement, and "loss_chance"; "share" of the
            budget used; "finite": whether the features are finite (if not, most others are missing); "health", the
            verdict's state, and "health_sentence"; MARK, the number of slices; once after an interruption
            "resumed_from", the last step before it.
        """
        began = time.monotonic()
        before, panel = self._panel, self._open_panel(run, at)
        opened = time.monotonic()
        features = panel.features(run.method.encoder)
        passed = time.monotonic()
        a, b = panel.embeddings(run.method)
        once = 0.0  # one-off seconds
        if panel is not before:
            # Its first call compiles the pairs' graph; encoding a view takes as long as a slice.
            passes = (passed - opened) * 2 * len(panel.views_a) / len(panel.rows)
            once = opened - began + max(0.0, time.monotonic() - passed - passes)
        history = _measurements(run.metrics)
        figures: dict[str, Any] = {
            MARK: len(panel.rows),
            "share": round(run.share, 5),
            **_losses(run, history),
            "finite": bool(all(np.isfinite(x).all() for x in (features, a, b))),
        }
        if figures["finite"]:
            # While training runs, more than one thread slows small products.
            with threadpool_limits(1):
                figures |= feature_figures(features, panel) | embedding_figures(a, b)
        self.verdict = verdict([*history, {**at, **figures}], warmup=run.config.warmup)
        figures |= {"health": self.verdict.state, "health_sentence": self.verdict.sentence}
        if self.verdict.stop and not self.keep_going:
            self.stop = self.verdict.sentence
        if self._resumed_from is not None:
            figures["resumed_from"], self._resumed_from = self._resumed_from, None
        figures = {
            key: round(value, 5) if isinstance(value, float) else value for key, value in figures.items()
        }
        self._features = features if figures["finite"] else None
        if not history and figures["finite"]:
            with _survives_full_disks(run.out / START):
                write_arrays(run.out / START, {"rows": panel.rows, "features": features})
        # Just before the end `finish` writes the page, unless its duration is still unknown.
        left, drawing = run.ending and self._page_written, time.monotonic()
        if not left and (history or (run.config.seconds or 0) >= LONG):
            self._write_page(run, [*run.metrics, {**at, "loss": run.loss, **figures}], final=False)
        if run.ending:  # another measurement draws no page
            once += time.monotonic() - drawing
        if history and not run.ending:
            progress.say(f"step {at['step']}: {self.verdict.sentence}")
        self.again_seconds = time.monotonic() - began - once
        self._count, self._measured_at = self._count + 1, at["seconds"]
        return figures

    def finish(self, run: RunView, at: At) -> dict[str, Any]:
        """The verdict on the whole run, and its page."""
        history = _measurements(run.metrics)
        self.verdict = verdict(
            history,
            warmup=run.config.warmup,
            final=True,
            stopped=run.stopped,
        )
        entry: dict[str, Any] = {
            "state": self.verdict.state,
            "sentence": self.verdict.sentence,
            "worse_than_start": self.verdict.worse,
        }
        if history:
            entry |= {
                "measurements": len(history),
                "start": _figures_only(history[0]),
                "end": _figures_only(history[-1]),
            }
        if self._panel is not None:
            self._write_page(run, run.metrics, final=True)
        return {"health": entry, "sentence": self.verdict.sentence, "page": str(run.out / PAGE)}

    def _write_page(self, run: RunView, lines: Sequence[Mapping[str, Any]], *, final: bool) -> None:
        # matplotlib and jinja2 import slowly; a run begins without them.
        from mri_transfer.checkpoints.initialisation import describe_start
        from mri_transfer.pretrain.health.run_page import LONG_RUN, RunSnapshot, write_page

        assert self._panel is not None
        assert self.verdict is not None
        began = time.monotonic()
        facts = object_or_none(run.out / "start.json") or {}
        start = describe_start(facts) if facts else "unknown weights"
        snapshot = RunSnapshot(
            config=run.config,
            store=run.store,
            panel=self._panel,
            lines=lines,
            verdict=self.verdict,
            before=_features_at_start(run.out / START, self._panel),
            after=self._features,
            final=final,
            start=start,
            derived={
                "learning_rate": run.config.default_rate,
                "size": run.store.size,
                "temperature": getattr(run.method, "temperature", None),
                "backbone": facts.get("backbone"),
            },
            shares=self._shares(run, lines),
            events=_events(run, lines),
        )
        with threadpool_limits(1), _survives_full_disks(run.out / PAGE):
            write_page(run.out / PAGE, snapshot)
        slow_map = MAP_SECONDS if lines and lines[-1]["seconds"] >= LONG_RUN else 0.0
        self.finish_seconds, self._page_written = time.monotonic() - began + slow_map, True

    def _shares(self, run: RunView, lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """How the time was spent, as shares."""
        waits = [line["data_wait"] for line in lines if "data_wait" in line]
        shares = {
            "waiting for slices": float(np.mean(waits)) if waits else 0.0,
            "saving": run.saving,
            "measuring health": self.used,
        }
        return {"training": max(0.0, 1.0 - sum(shares.values())), **shares}

    def _open_panel(self, run: RunView, at: At) -> Panel:
        """The slices and views, made again if the view size has changed."""
        if self._panel is None or self._panel.size != run.size:
            if self._slices is None:
                began = time.monotonic()
                probe = Panel(run.store, run.config, run.size, FEWEST_SLICES)
                probe.features(run.method.encoder)  # compiles
                compiled = time.monotonic()
                probe.features(run.method.encoder)
                seconds = (time.monotonic() - compiled) / len(probe.rows)
                self._slices = panel_size(run, at["seconds"], seconds, compiled - began)
            self._panel = Panel(run.store, run.config, run.size, self._slices)
        return self._panel


@contextlib.contextmanager
def _survives_full_disks(path: Path) -> Iterator[None]:
    """A failed write is no reason to stop measuring."""
    try:
        yield
    except OSError as error:
        progress.say(f"{path}: can't be written ({error.strerror or error}); the run continues")


def _measurements(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Lines of metrics.jsonl with a measurement."""
    return [line for line in lines if MARK in line]


def _losses(run: RunView, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and deviation of the losses reported since the last measurement, and of the current one."""
    last_step = history[-1]["step"] if history else 0
    losses = [
        line["loss"] for line in run.metrics if line["step"] > last_step and line.get("loss") is not None
    ]
    if run.loss is not None:  # after a divergence there is none
        losses.append(run.loss)
    chance = run.method.chance(run.config.batch)
    return {
        "loss_mean": float(np.mean(losses)) if losses else None,
        "loss_sd": float(np.std(losses, ddof=1)) if len(losses) > 1 else 0.0,
        "loss_chance": None if chance is None else float(chance),
    }


def _features_at_start(path: Path, panel: Panel) -> np.ndarray | None:
    """Features of the same slices at the first measurement; None if lost."""
    try:
        arrays = load_npz(path)
        rows, features = arrays["rows"], arrays["features"]
    except (ValueError, KeyError):
        return None
    return features if np.array_equal(rows, panel.rows) else None


def _events(run: RunView, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """The run's interruptions, in words."""
    diverged = [
        f"At step {step:,} the loss was not finite; the run went back to what it had saved before."
        for step in run.diverged_at
    ]
    return diverged + [
        f"Interrupted after step {line['resumed_from']:,} and continued; what was not saved was done again."
        for line in lines
        if "resumed_from" in line
    ]


def _figures_only(line: Mapping[str, Any]) -> dict[str, Any]:
    keep = ("knn_", "score", "spread", "uniformity", "rankme", "embedding_", "alignment", "loss_")
    return {key: value for key, value in line.items() if key.startswith(keep) or key == "step"}
