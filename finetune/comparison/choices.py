"""Choices of an arm's fine-tunings on inner splits, and effects of calibration."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

SCORES = ("log_loss", "brier", "ece")


def choices(details: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise the details of an arm's finished fine-tuning trials.

    Returns:
        JSON-able {"rates": {rate: trials that chose it}, "epochs": {epochs: trials}, "temperature": {"median", "low",
        "high"}, "uncalibrated" and "calibrated": {"log_loss" (nats), "brier" (0..2), "ece" (0..1)}, means over the
        trials' test images}; empty if no fine-tuning finished.
    """
    ended = [trial for trial in details if "calibrated" in trial]
    if not ended:
        return {}
    temperatures = [trial["temperature"] for trial in ended]
    return {
        "rates": _counts(f"{trial['rate']:g}" for trial in ended),
        "epochs": _counts(str(trial["epochs"]) for trial in ended),
        "temperature": {
            "median": statistics.median(temperatures),
            "low": min(temperatures),
            "high": max(temperatures),
        },
        **{
            state: {score: statistics.fmean(trial[state][score] for trial in ended) for score in SCORES}
            for state in ("uncalibrated", "calibrated")
        },
    }


def _counts(values: Any) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda pair: float(pair[0])))


def _shares(counts: Mapping[str, int]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    total = sum(counts.values())
    return ", ".join(f"{value} in {count} of {total} trials" for value, count in counts.items())


def in_words(choice: Mapping[str, Any]) -> dict[str, str]:
    """The same for people: a few named facts, or none."""
    if not choice:
        return {}
    temperature, before, after = choice["temperature"], choice["uncalibrated"], choice["calibrated"]
    facts = {"learning rate": _shares(choice["rates"]), "epochs": _shares(choice["epochs"])}
    if temperature["low"] != temperature["high"] or temperature["median"] != 1:
        facts["temperature"] = (
            f"{temperature['median']:.2f} ({temperature['low']:.2f} to {temperature['high']:.2f})"
        )
        facts["log loss before and after calibration"] = (
            f"{before['log_loss']:.3f} and {after['log_loss']:.3f}"
        )
        facts["calibration error before and after"] = f"{before['ece']:.3f} and {after['ece']:.3f}"
    return facts
