"""Is the run healthy? One of a few words and one sentence with the figure that says so, from the history of figures.

The bounds were set by runs of 120 to 150 steps on real slices (7,179 of 153 subjects) from random and ImageNet weights:
SimCLR, BYOL and SimSiam as they are, and runs made to collapse (the cosine of a pair minimised alone, without
negatives, stop-gradient and predictor; a learning rate of 1) or to learn nothing (a rate of 1e-9; unrelated slices as
pairs). The tests hold their figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Figures = Mapping[str, Any]

HEALTHY, COLLAPSED, NOT_LEARNING, DIVERGED = "healthy", "collapsed", "not learning", "diverged"
# Over, and knows less than it began with.
FORGETFUL = "worse than its start"
# What is said while none of these can be said yet.
EARLY = "too early to tell"

# Below this spread the embeddings that the loss compares are nearly the same for all slices...
COLLAPSED_SPREAD = 0.3
# ...if those of a pair lie no closer than this share of the distance of any two: small and meaningful is no collapse.
TELLS_PAIRS = 0.9
# Features of the encoder itself, of which a random network has 0.12 and more, and rank 90 and more.
DEAD_SPREAD, DEAD_RANK = 0.02, 1.5
# Where the last layer is normalised, the spread can't fall; then the embeddings lie on a line or a plane.
COLLAPSED_RANK = 3.0
# Measurements in a row that must show a collapse before it is said, and before a run is ended for it.
TO_SAY, TO_STOP = 2, 3
# Before this many steps nothing but a divergence is said.
FEWEST_STEPS = 100
# Share of the budget, after which "not learning" may be said.
PATIENCE = 0.25
# The loss counts as below chance, or below its beginning, by this share of it and this many standard errors.
LOSS_MARGIN, ERRORS = 0.05, 3.0
# The free labels count as told less than at the start by so many standard errors. Fewer than for what is learnt, since
# a run that is called healthy must be.
FALL_ERRORS = 2.0
# So much must the distance of pairs have fallen, as a share of that of any two embeddings.
RATIO_MARGIN = 0.1
# So many times its beginning and chance, a loss is one that ran away.
RUNAWAY = 2.0

REMEDY = {
    COLLAPSED: "start again with another --out and a lower --learning-rate or another --method",
    NOT_LEARNING: "start again with another --out and a higher --learning-rate, larger --batch or another --method",
    DIVERGED: "start again with another --out and a lower --learning-rate",
    FORGETFUL: "train longer, or choose another --method or a lower --strength",
}


class Verdict(NamedTuple):
    """What is to be said of a run.

    Attributes:
        state: HEALTHY, FORGETFUL, COLLAPSED, NOT_LEARNING, DIVERGED or EARLY.
        sentence: begins with the state.
        stop: whether a run should end for it.
        worse: whether the run is over and its features say less about the free labels than the weights it started from;
            then its state is FORGETFUL, whatever its loss did. Training first forgets, and a short run ends there: from
            random weights, too, whose features tell some of the labels (benchmarks/README.md).
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
        history: figures as :func:`~mri_transfer.pretrain.health.monitor.HealthMonitor.measure` gives them; what is
            missing is not judged by.
        warmup: share of the budget in which the learning rate rises. What happens there is not held against a run.
        final: whether the run is over, so that there will be no later figures to wait for.
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
            f"the views of a pair lie {now['alignment_ratio']:.2f} times as far apart as any two "
            f"({start['alignment_ratio']:.2f} at the start)"
        )
    elapsed = "" if final else f"after {now['share']:.0%} of the time "
    return Verdict(NOT_LEARNING, f"{NOT_LEARNING}: {elapsed}{', and '.join(figures)}; {REMEDY[NOT_LEARNING]}")


def _ran_away(start: Figures, now: Figures) -> bool:
    """Whether the loss is far above its beginning and above what knowing nothing would give."""
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
    """Measurements without a break, up to the last one, that show a collapse."""
    count = 0
    for figures in reversed(history):
        if not figures["finite"] or not _collapsed(figures):
            break
        count += 1
    return count


def _learns(start: Figures, now: Figures) -> bool:
    """Whether anything is better than at the start, by more than chance does: the loss, the pairs, or neighbours."""
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
    """Whether the free labels are told better, by more than chance does."""
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
        f"a pair no closer than any two (their distances are as {now['alignment_ratio']:.2f} to 1)"
    )


def _tells(start: Figures, now: Figures) -> str:
    """What the features are worth: neighbours, rank, loss."""
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
