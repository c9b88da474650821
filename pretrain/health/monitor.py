"""Measures a run's health now and then, within a small share of its time, and says what it means.

Nothing that training uses is touched: slices and views are chosen once with seeds of their own, features are taken
without changing a variable, so a run with this monitor equals one without it, bit for bit.
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

# Share of a run's time for all of health; 2% are allowed.
SHARE = 0.018
FEWEST_SLICES, MOST_SLICES = 64, 1024
# A run begins and ends with a measurement, and one between them is the least that shows a course.
MEASUREMENTS = 3
# Training an image takes about as long as three passes through the encoder.
PASSES = 3
# Besides the passes of the slices, a measurement takes those of the pairs, and half as long as both for the figures.
OVERHEAD = 1.5
# Seconds for the pages of a run with three measurements, whatever the number of slices.
PAGES_SECONDS = 3.0
# A figure that every measurement has, by which its line is known among those of metrics.jsonl.
MARK = "health_slices"
PAGE = "run.html"
START = "health-start.npz"  # features of the start, which the page shows beside those of now
# From this budget in seconds on, the page is also written at the start.
LONG = 1200.0
FIRST_PAGE_SECONDS = 2.0
MAP_SECONDS = 5.0  # that the last page of a long run takes more, for its better map


def panel_size(run: RunView, seconds: float, slice_seconds: float, compiling: float) -> int:
    """How many slices can be measured at least three times within the share of time, between 64 and 1,024.

    Args:
        run: at its start.
        seconds: of the budget used so far.
        slice_seconds: what a pass of one slice through the encoder takes.
        compiling: seconds that the graph of such a pass took; that of the pairs will take as long.
    """
    config = run.config
    if config.steps is not None:
        affordable = SHARE * PASSES * 2 * config.batch * config.steps / MEASUREMENTS
    else:
        total = config.seconds or seconds / max(run.share, 1e-6)
        fixed = 2 * compiling + PAGES_SECONDS
        affordable = (SHARE * total - fixed) / MEASUREMENTS / OVERHEAD / max(slice_seconds, 1e-9)
    # Part of a chunk would take as long as all of it.
    return int(min(max(affordable, FEWEST_SLICES), MOST_SLICES)) // CHUNK * CHUNK


class HealthMonitor:
    """Figures of the encoder's features without labels, a verdict, and a page; a monitor of the loop.

    The first measurement is that of the start and one is kept for the end. As many as fit between them are spread
    evenly over the time that is left, so that all together stay within `share` of the time and a collapse early in a
    short run is seen early.

    Args:
        keep_going: don't ask for the end of a run that has collapsed.
        share: of the run's time; None for SHARE.
    """

    name = "health"

    def __init__(self, *, keep_going: bool = False, share: float | None = None):
        self.keep_going, self.share = keep_going, SHARE if share is None else share
        # The first page takes seconds, for matplotlib has to be imported; later ones are known from the one before.
        self.used, self.finish_seconds = 0.0, FIRST_PAGE_SECONDS
        self.stop: str | None = None
        self.verdict: Verdict | None = None
        self._slices: int | None = None
        self._cost: float | None = None
        self._panel: Panel | None = None
        self._features: np.ndarray | None = None
        self._resumed_from: int | None = None
        self._page_written = False  # by this process
        # Measurements so far, and when the last one was, in seconds of the budget.
        self._count, self._measured_at = 0, 0.0

    def restore(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """A resumed run is measured on the slices that it began with."""
        measurements = _measurements(lines)
        if measurements:
            self._slices = measurements[0][MARK]
            self._count, self._measured_at = len(measurements), measurements[-1]["seconds"]
        if lines:
            self._resumed_from = lines[-1]["step"]

    def due(self, run: RunView, at: At) -> bool:
        """At the start, and then so that those that can be afforded lie evenly between the last one and the end."""
        if self._slices is None:
            return True
        elapsed = at["seconds"]
        total = run.config.seconds or elapsed / max(run.share, 1e-9)
        spent = self.used * elapsed
        # A new process doesn't know yet what the next one costs.
        cost = max(self._cost if self._cost is not None else spent / max(self._count, 1), 1e-9)
        before_the_last = (self.share * total - spent - self.finish_seconds) // cost - 1
        if before_the_last < 1:
            return False
        return elapsed - self._measured_at >= (total - self._measured_at) / (before_the_last + 1)

    def measure(self, run: RunView, at: At) -> dict[str, Any]:
        """The figures of this moment, as JSON values with flat keys.

        Returns:
            "knn_plane", "knn_sequence", "knn_position" and of each "_chance" and "_error" (see `label_agreement`; a
            label that the store doesn't tell is left out), "score": the mean over these of (accuracy - chance) /
            (1 - chance), and "score_error"; of the encoder's features "spread", "uniformity", "rankme" and
            "rankme_limit"; of the embeddings that the loss compares "embedding_spread", "embedding_rank",
            "alignment" and "alignment_ratio"; "loss_mean" and "loss_sd" of the reports since the last measurement, and
            "loss_chance"; "share" of the budget used; "finite": whether the features are finite numbers, without
            which most others are missing; "health", the verdict's state, and "health_sentence"; MARK, the slices
            measured on; once after an interruption "resumed_from", the last step before it.
        """
        began = time.monotonic()
        before, panel = self._panel, self._open_panel(run, at)
        opened = time.monotonic()
        features = panel.features(run.method.encoder)
        passed = time.monotonic()
        a, b = panel.embeddings(run.method)
        once = 0.0  # seconds that the next measurement won't take
        if panel is not before:
            # The pairs' graph is compiled by its first call; a pass of an image takes as long as one of a slice.
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
            # Beside the threads of training, more than one makes small products slower.
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
        # Just before the end the page is left to `finish`, unless it still has to be learned how long that will take.
        left = run.ending and self._page_written
        if not left and (history or (run.config.seconds or 0) >= LONG):
            self._write_page(run, [*run.metrics, {**at, "loss": run.loss, **figures}], final=False)
        if history and not run.ending:
            progress.say(f"step {at['step']}: {self.verdict.sentence}")
        self._cost = time.monotonic() - began - once
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
        # matplotlib and jinja2 take their time to be imported; a run begins without them.
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
        """Of the time, by what it went into."""
        waits = [line["data_wait"] for line in lines if "data_wait" in line]
        shares = {
            "waiting for slices": float(np.mean(waits)) if waits else 0.0,
            "saving": run.saving,
            "measuring health": self.used,
        }
        return {"training": max(0.0, 1.0 - sum(shares.values())), **shares}

    def _open_panel(self, run: RunView, at: At) -> Panel:
        """The slices and views, made again where the size of the views has changed."""
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
    """What can't be written now is no reason to measure no more."""
    try:
        yield
    except OSError as error:
        progress.say(f"{path}: can't be written ({error.strerror or error}); the run goes on")


def _measurements(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The lines of metrics.jsonl that hold one."""
    return [line for line in lines if MARK in line]


def _losses(run: RunView, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and deviation of the losses that were reported since the last measurement, and of the one just met."""
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
    """Those of the same slices, as the first measurement left them; None if they are lost."""
    try:
        arrays = load_npz(path)
        rows, features = arrays["rows"], arrays["features"]
    except (ValueError, KeyError):
        return None
    return features if np.array_equal(rows, panel.rows) else None


def _events(run: RunView, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """What interrupted the run, in words."""
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
