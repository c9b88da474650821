"""Is the run healthy? Answers with a state and a sentence citing the deciding figure, from the history of figures.

The bounds were set by runs of 120 to 150 steps on real slices (7,179 of 153 subjects) from random and ImageNet weights:
SimCLR, BYOL and SimSiam unchanged, and runs made to collapse (only a pair's cosine minimised, without negatives,
stop-gradient and predictor; a learning rate of 1) or to learn nothing (a rate of 1e-9; unrelated slices as pairs). The
tests contain their figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Figures = Mapping[str, Any]

HEALTHY, COLLAPSED, NOT_LEARNING, DIVERGED = "healthy", "collapsed", "not learning", "diverged"
# Finished, with worse features than at the start.
FORGETFUL = "worse than its start"
# Too early for any of these.
EARLY = "too early to tell"

# Below this spread, the compared embeddings are nearly the same for all slices...
COLLAPSED_SPREAD = 0.3
# ...if a pair's are no closer than this fraction of any two's distance: small but meaningful is no collapse.
TELLS_PAIRS = 0.9
# Limits for the encoder's features; a random network has at least 0.12, and rank 90.
DEAD_SPREAD, DEAD_RANK = 0.02, 1.5
# If the last layer is normalised, the spread can't fall; collapsed embeddings lie on a line or a plane.
COLLAPSED_RANK = 3.0
# Consecutive measurements that must show a collapse to report it, and to end the run.
TO_SAY, TO_STOP = 2, 3
# Before this many steps, only a divergence is reported.
FEWEST_STEPS = 100
# Share of the budget after which "not learning" may be reported.
PATIENCE = 0.25
# The loss counts as below chance, or below its beginning, by this share of it and this many standard errors.
LOSS_MARGIN, ERRORS = 0.05, 3.0
# Standard errors by which free labels must be predicted worse than at the start. Fewer than for an improvement, since a
# run called healthy must be.
FALL_ERRORS = 2.0
# Required fall of the pair distance, as a fraction of the distance of any two embeddings.
RATIO_MARGIN = 0.1
# A loss this many times its beginning and chance has run away.
RUNAWAY = 2.0

REMEDY = {
    COLLAPSED: "start again with another --out and a lower --learning-rate or another --method",
    NOT_LEARNING: "start again with another --out and a higher --learning-rate, larger --batch or another --method",
    DIVERGED: "start again with another --out and a lower --learning-rate",
    FORGETFUL: "train longer, or choose another --method or a lower --strength",
}


class Verdict(NamedTuple):
    """The verdict on a run.

    Attributes:
        state: HEALTHY, FORGETFUL, COLLAPSED, NOT_LEARNING, DIVERGED or EARLY.
        sentence: begins with the state.
        stop: whether the run should end.
        worse: whether the run is over and its features predict the free labels worse than its starting weights; then
            its state is FORGETFUL, whatever its loss did. Training forgets first, and a short run ends there: even from
            random weights, whose features predict some labels (benchmarks/README.md).
    """

    state: str
    sentence: str
    stop: bool = False
    worse: bool = False


def verdict(
    history: Sequence[Figures],
    *,
    warmup: float = 0.05,
    final: bool = False,
    stopped: str | None = None,
) -> Verdict:
    """Judge a run by its measurements, oldest first; the first is that of the start.

    Args:
        history: figures as :func:`~mri_transfer.pretrain.health.monitor.HealthMonitor.measure` gives them; missing ones
            are ignored.
        warmup: share of the budget in which the learning rate rises. That period is not held against a run.
        final: whether the run is over, with no later figures to wait for.
        stopped: why the loop itself ended the run, if it did.
    """
    if stopped and stopped.startswith(DIVERGED):
        return Verdict(DIVERGED, stopped)
    if not history:
        return Verdict(EARLY, f"{EARLY}: nothing was measured")
    now = history[-1]
    if not now["finite"]:
        return Verdict(DIVERGED, f"{DIVERGED}: the features are not finite numbers; {REMEDY[DIVERGED]}")
    start = next(figures for figures in history if figures["finite"])
    if _ran_away(start, now):
        return Verdict(DIVERGED, f"{DIVERGED}: {_loss(start, now)}; {REMEDY[DIVERGED]}")
    past = [line for line in history if line["share"] > warmup and line["step"] >= FEWEST_STEPS]
    collapses = _how_many_last(past)
    if collapses >= TO_SAY or (collapses and final):
        return Verdict(COLLAPSED, f"{COLLAPSED}: {_collapse(now)}; {REMEDY[COLLAPSED]}", collapses >= TO_STOP)
    learns = _learns(start, now)
    if not past or not (learns or final or (now["share"] >= PATIENCE and len(past) >= TO_SAY)):
        return Verdict(EARLY, f"{EARLY}: {_tells(start, now)}")
    if final and learns and _risen(now, start, FALL_ERRORS):
        weaker = f"its features say less about the free labels ({now['score']:.2f}, {start['score']:.2f} at the start)"
        return Verdict(
            FORGETFUL, f"{FORGETFUL}: {weaker}; {_tells(start, now)}; {REMEDY[FORGETFUL]}", worse=True
        )
    if learns:
        return Verdict(HEALTHY, f"{HEALTHY}: {_tells(start, now)}")
    figures = [_loss(start, now)]
    if "alignment_ratio" in now:
        figures.append(
            f"a pair's views are {now['alignment_ratio']:.2f} times as far apart as random ones "
            f"({start['alignment_ratio']:.2f} at the start)"
        )
    elapsed = "" if final else f"after {now['share']:.0%} of the time "
    return Verdict(NOT_LEARNING, f"{NOT_LEARNING}: {elapsed}{', and '.join(figures)}; {REMEDY[NOT_LEARNING]}")


def _ran_away(start: Figures, now: Figures) -> bool:
    """Whether the loss is far above its beginning and above chance."""
    first, loss = start["loss_mean"], now["loss_mean"]
    if first is None or loss is None:
        return False
    ceiling = max(first, now["loss_chance"] if now["loss_chance"] is not None else first)
    return loss > ceiling + (RUNAWAY - 1) * max(abs(first), 1.0)


def _collapsed(figures: Figures) -> bool:
    if figures["spread"] < DEAD_SPREAD or figures["rankme"] < DEAD_RANK:
        return True
    if figures["embedding_rank"] < COLLAPSED_RANK:
        return True
    return figures["embedding_spread"] < COLLAPSED_SPREAD and figures["alignment_ratio"] > TELLS_PAIRS


def _how_many_last(history: Sequence[Figures]) -> int:
    """Number of latest consecutive measurements that show a collapse."""
    count = 0
    for figures in reversed(history):
        if not figures["finite"] or not _collapsed(figures):
            break
        count += 1
    return count


def _learns(start: Figures, now: Figures) -> bool:
    """Whether anything beats the start by more than chance: loss, pairs or neighbours."""
    first, loss, chance = start["loss_mean"], now["loss_mean"], now["loss_chance"]
    if first is not None and loss is not None:
        fall = max(LOSS_MARGIN * abs(first), ERRORS * now["loss_sd"])
        below = chance is None or loss < chance - LOSS_MARGIN * abs(chance)
        if first - loss > fall and below:
            return True
    if start["alignment_ratio"] - now["alignment_ratio"] > RATIO_MARGIN:
        return True
    return _risen(start, now)


def _risen(before: Figures, after: Figures, margin: float = ERRORS) -> bool:
    """Whether free labels are predicted better, by more than chance."""
    if "score" not in before or "score" not in after:
        return False
    errors = math.hypot(before["score_error"], after["score_error"])
    return after["score"] - before["score"] > margin * errors


def _collapse(now: Figures) -> str:
    if now["spread"] < DEAD_SPREAD or now["rankme"] < DEAD_RANK:
        return (
            f"the features of all slices are nearly the same (spread {now['spread']:.2g}, ideal 1; effective rank "
            f"{now['rankme']:.0f} of {now['rankme_limit']})"
        )
    if now["embedding_rank"] < COLLAPSED_RANK:
        return f"the embeddings that the loss compares have an effective rank of {now['embedding_rank']:.1f} only"
    return (
        f"the embeddings of all slices are nearly the same (spread {now['embedding_spread']:.2f}, ideal 1), those of "
        f"a pair no closer than random ones (distance ratio {now['alignment_ratio']:.2f})"
    )


def _tells(start: Figures, now: Figures) -> str:
    """Quality of the features: neighbours, rank, loss."""
    parts = []
    label = next((name for name in ("plane", "sequence", "position") if f"knn_{name}" in now), None)
    if label:
        comparisons = [f"{now[f'knn_{label}_chance']:.0%} by chance"]
        if now is not start and f"knn_{label}" in start:
            comparisons.append(f"{start[f'knn_{label}']:.0%} at the start")
        parts.append(
            f"neighbours of other subjects share the {label} in {now[f'knn_{label}']:.0%} ({', '.join(comparisons)})"
        )
    parts.append(f"effective rank {now['rankme']:.0f} of {now['rankme_limit']}")
    return ", ".join([*parts, _loss(start, now)])


def _loss(start: Figures, now: Figures) -> str:
    if now["loss_mean"] is None:
        return "no loss is known"
    comparisons = []
    if now["loss_chance"] is not None:
        comparisons.append(f"{now['loss_chance']:.3g} by chance")
    if now is not start and start["loss_mean"] is not None:
        comparisons.append(f"{start['loss_mean']:.3g} at the start")
    return f"the loss is {now['loss_mean']:.3g}" + (f" ({', '.join(comparisons)})" if comparisons else "")
