"""Measures a run's health now and then, within a small share of its time, and says what it means.

Nothing that training uses is touched: slices and views are chosen once with seeds of their own, features are taken
without changing a variable, so a run with this monitor equals one without it, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mri_transfer.pretrain.health.measures import (
    alignment,
    alignment_ratio,
    effective_rank,
    feature_spread,
    uniformity,
)
from mri_transfer.pretrain.health.neighbours import label_agreement
from mri_transfer.pretrain.health.panel import Panel
from mri_transfer.pretrain.health.verdict import Verdict, verdict

if TYPE_CHECKING:
    from mri_transfer.pretrain.monitors import At, RunView

# Share of a run's time for all of health; 2% are allowed.
SHARE = 0.018
FEWEST_SLICES, MOST_SLICES = 64, 1024
# A run begins and ends with a measurement, and one between them is the least that shows a course.
MEASUREMENTS = 3
# Training an image takes about as long as three passes through the encoder.
PASSES = 3
# A figure that every measurement has, by which its line is known among those of metrics.jsonl.
MARK = "health_slices"


def panel_size(run: RunView, seconds: float, slice_seconds: float) -> int:
    """How many slices can be measured at least three times within the share of time, between 64 and 1,024.

    Args:
        run: at its start.
        seconds: of the budget used so far.
        slice_seconds: what a pass of one slice through the encoder takes.
    """
    config = run.config
    if config.steps is not None:
        affordable = SHARE * PASSES * 2 * config.batch * config.steps / MEASUREMENTS
    else:
        total = config.seconds or seconds / max(run.share, 1e-6)
        affordable = SHARE * total / max(slice_seconds, 1e-9) / MEASUREMENTS
    return int(min(max(affordable, FEWEST_SLICES), MOST_SLICES))


class HealthMonitor:
    """Figures of the encoder's features without labels, a verdict, and a page; a monitor of the loop.

    The first measurement is that of the start. Then the time between two follows from what they cost, so that all
    together, with one kept for the end, stay within `share` of the time.

    Args:
        keep_going: don't ask for the end of a run that has collapsed.
        share: of the run's time.
    """

    name = "health"

    def __init__(self, *, keep_going: bool = False, share: float = SHARE):
        self.keep_going, self.share = keep_going, share
        self.used, self.finish_seconds = 0.0, 0.0
        self.stop: str | None = None
        self.verdict: Verdict | None = None
        self._slices: int | None = None
        self._cost: float | None = None
        self._panel: Panel | None = None

    def restore(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """A resumed run is measured on the slices that it began with."""
        measured = _measurements(lines)
        if measured:
            self._slices = measured[0][MARK]

    def due(self, elapsed_seconds: float, step: int) -> bool:
        """At the start, and then whenever this measurement and a last one fit into the share of time."""
        if self._slices is None:
            return True
        spent = self.used * elapsed_seconds
        expected = self._cost if self._cost is not None else self.share * elapsed_seconds / 4
        return spent + 2 * expected + self.finish_seconds <= self.share * elapsed_seconds

    def measure(self, run: RunView, at: At) -> dict[str, Any]:
        """The figures of this moment, as JSON values with flat keys.

        Returns:
            "knn_plane", "knn_sequence", "knn_position" and of each "_chance" and "_error" (see `label_agreement`; a
            label that the store doesn't tell is left out), "score": the mean over these of (accuracy - chance) /
            (1 - chance), and "score_error"; of the encoder's features "spread", "uniformity", "rankme" and
            "rankme_limit"; of the embeddings that the loss compares "embedding_spread", "alignment" and
            "alignment_ratio"; "loss_mean" and "loss_sd" of the reports since the last measurement, "loss_chance";
            "share" of the budget used; "finite": whether the features are finite numbers, without which most others
            are missing; "health", the verdict's state, and "health_sentence"; MARK, the slices measured on.
        """
        began = time.monotonic()
        panel = self._open_panel(run, at)
        features, (a, b) = panel.features(run.method.encoder), panel.embeddings(run.method)
        history = _measurements(run.metrics)
        figures: dict[str, Any] = {
            MARK: len(panel.rows),
            "share": round(run.share, 5),
            **_losses(run, history),
            "finite": bool(all(np.isfinite(x).all() for x in (features, a, b))),
        }
        if figures["finite"]:
            figures |= feature_figures(features, panel) | embedding_figures(a, b)
        self.verdict = verdict([*history, {**at, **figures}], warmup=run.config.warmup)
        figures |= {"health": self.verdict.state, "health_sentence": self.verdict.sentence}
        if self.verdict.stop and not self.keep_going:
            self.stop = self.verdict.sentence
        self._cost = time.monotonic() - began
        return {key: round(value, 5) if isinstance(value, float) else value for key, value in figures.items()}

    def finish(self, run: RunView, at: At) -> dict[str, Any]:
        """The verdict on the whole run."""
        history = _measurements(run.metrics)
        self.verdict = verdict(
            history, warmup=run.config.warmup, final=True, stopped=getattr(run, "stopped", None)
        )
        entry: dict[str, Any] = {"state": self.verdict.state, "sentence": self.verdict.sentence}
        if history:
            entry |= {
                "measurements": len(history),
                "start": _figures_only(history[0]),
                "end": _figures_only(history[-1]),
            }
        return {"health": entry, "sentence": self.verdict.sentence}

    def _open_panel(self, run: RunView, at: At) -> Panel:
        """The slices and views, made again where the size of the views has changed."""
        if self._panel is None or self._panel.size != run.size:
            if self._slices is None:
                probe = Panel(run.store, run.config, run.size, FEWEST_SLICES)
                probe.features(run.method.encoder)  # compiles
                began = time.monotonic()
                probe.features(run.method.encoder)
                took = (time.monotonic() - began) / len(probe.rows)
                self._slices = panel_size(run, at["seconds"], took)
            self._panel = Panel(run.store, run.config, run.size, self._slices)
        return self._panel


def feature_figures(features: np.ndarray, panel: Panel) -> dict[str, Any]:
    """What the encoder's features (n, d) of the panel's slices tell; keys as of :meth:`HealthMonitor.measure`."""
    figures: dict[str, Any] = {}
    scores, errors = [], []
    for name, asked in panel.labels.items():
        found = label_agreement(features, subject=panel.subject, **asked)
        if found is not None:
            figures |= {
                f"knn_{name}": found.accuracy,
                f"knn_{name}_chance": found.chance,
                f"knn_{name}_error": found.error,
            }
            if found.chance < 1:
                scores.append((found.accuracy - found.chance) / (1 - found.chance))
                errors.append(found.error / (1 - found.chance))
    if scores:
        # The labels are told of the same slices, so their errors need not cancel: they are added, not averaged out.
        figures |= {"score": float(np.mean(scores)), "score_error": float(np.mean(errors))}
    return figures | {
        "spread": feature_spread(features),
        "uniformity": uniformity(features),
        "rankme": effective_rank(features),
        "rankme_limit": min(features.shape),
    }


def embedding_figures(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """What the embeddings (pairs, d) of the two views of each pair tell."""
    return {
        "embedding_spread": feature_spread(a),
        "alignment": alignment(a, b),
        "alignment_ratio": alignment_ratio(a, b),
    }


def _measurements(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The lines of metrics.jsonl that hold one."""
    return [line for line in lines if MARK in line]


def _losses(run: RunView, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and deviation of the losses that were reported since the last measurement, and of the one just met."""
    since = history[-1]["step"] if history else 0
    losses = [line["loss"] for line in run.metrics if line["step"] > since and line.get("loss") is not None]
    if run.loss is not None:  # after a divergence there is none
        losses.append(run.loss)
    chance = run.method.chance(run.config.batch)
    return {
        "loss_mean": float(np.mean(losses)) if losses else None,
        "loss_sd": float(np.std(losses, ddof=1)) if len(losses) > 1 else 0.0,
        "loss_chance": None if chance is None else float(chance),
    }


def _figures_only(line: Mapping[str, Any]) -> dict[str, Any]:
    keep = ("knn_", "score", "spread", "uniformity", "rankme", "embedding_spread", "alignment", "loss_")
    return {key: value for key, value in line.items() if key.startswith(keep) or key == "step"}
