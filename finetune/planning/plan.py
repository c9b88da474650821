"""A plan written before anything is scored, and a check that it was followed.

Choosing arms, seeds, modes or the headline after seeing figures can find a difference in anything. A plan states them
beforehand, with a hypothesis, the time and a SHA-256 over all of it: committed or sent to somebody, it proves that it
was not written afterwards. A later comparison given this plan is checked against it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mri_transfer.errors import UserError
from mri_transfer.finetune.comparison.verdict import EARLIER_RULES
from mri_transfer.storage.files import read_json, to_json, write_json, wrong_fields
from mri_transfer.words import counted

FORMAT = 1
FIELDS = {"format": int, "written": str, "hypothesis": str, "planned": dict, "before": dict, "sha256": str}
BEFORE = {"trials": int, "looks": int}
WORDS = {
    "arms": "starts",
    "modes": "modes",
    "cells": "cells",
    "fractions": "label fractions",
    "folds": "folds",
    "seeds": "seeds",
    "scored": "scored images",
    "data": "images, labels or groups",
    "size": "size of the images",
    "draws": "bootstrap draws",
    "headline": "headline cell",
    "rule": "rule of the headline",
    "external": "external test sets",
    "settings": "settings of classifiers",
}
"""Planned settings and their descriptions."""
USUAL = (
    "Two-sided: the best start that is no control differs from ImageNet's weights of the same network in macro-F1, in "
    "the headline cell."
)


def digest_of(plan: Mapping[str, Any]) -> str:
    """Hexadecimal SHA-256 of everything in a plan but its own digest."""
    text = to_json({key: plan[key] for key in sorted(plan) if key != "sha256"}, indent=None)
    return hashlib.sha256(text.encode()).hexdigest()


def write_plan(
    path: Path, planned: dict[str, Any], hypothesis: str, before: dict[str, int]
) -> dict[str, Any]:
    """Write a plan.

    Args:
        path: the file's.
        planned: JSON values for the keys of `WORDS`.
        hypothesis: in words; "" takes the usual one.
        before: {"trials", "looks"}: how many planned trials were done, and how often the images were scored, before in
            this output folder.

    Returns:
        The written plan.

    Raises:
        UserError: the file can't be written.
    """
    plan: dict[str, Any] = {
        "format": FORMAT,
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "hypothesis": hypothesis or USUAL,
        "planned": planned,
        "before": before,
    }
    plan["sha256"] = digest_of(plan)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, plan)
    except OSError as error:
        raise UserError(f"--plan {path}: can't be written ({error.strerror})") from None
    return plan


def read_plan(path: Path) -> dict[str, Any]:
    """Read a plan, checked to be unchanged.

    Raises:
        UserError: it can't be read, isn't a plan, or was changed.
    """
    plan = read_json(path)
    if wrong := wrong_fields(plan, FIELDS) or wrong_fields(plan["before"], BEFORE):
        raise UserError(
            f"--plan {path}: is not a comparison plan ({', '.join(wrong)}); name a file of its own"
        )
    if plan["format"] > FORMAT:
        raise UserError(f"--plan {path}: was written by a newer mri-transfer; update this one")
    if plan["sha256"] != digest_of(plan):
        raise UserError(
            f"--plan {path}: was changed since it was written (its hash doesn't fit); restore it, or write a new plan "
            "into another file"
        )
    return plan


def deviations(planned: Mapping[str, Any], done: Mapping[str, Any]) -> list[str]:
    """Deviations from the plan, a sentence each; none if it was followed.

    Args:
        planned: a plan's.
        done: the same for the actual run.
    """
    sentences: list[str] = []
    for key, name in WORDS.items():
        was, now = planned.get(key), done.get(key)
        if was == now:
            continue
        if key == "arms":
            sentences += _arms(was or {}, now or {})
        elif key == "rule":
            if hashlib.sha256(str(was).encode()).hexdigest() not in EARLIER_RULES:
                sentences.append("The headline’s rule differs from the plan’s.")
        elif key == "data":
            if planned.get("size") == done.get("size"):  # the fingerprint is of images of that size
                sentences.append(f"The {name} are not those of the plan.")
        elif key == "settings":
            # Of modes that only one of the two has, the modes are the deviation.
            if changed := [
                part
                for part, value in (was or {}).items()
                if value and (now or {}).get(part) not in (None, value)
            ]:
                of = " and ".join(part.replace("_", " ") for part in changed)
                sentences.append(f"The settings of {of} are not those of the plan.")
        else:
            sentences.append(f"{name.capitalize()}: planned {_text(was)}, done {_text(now)}.")
    return sentences


def _arms(planned: Mapping[str, Any], done: Mapping[str, Any]) -> list[str]:
    sentences = [f"Start {name} was planned but not compared." for name in planned if name not in done]
    sentences += [f"Start {name} was compared but not planned." for name in done if name not in planned]
    for name in (name for name in planned if name in done):
        was, now = planned[name].get("backbone"), done[name].get("backbone")
        if was != now:
            sentences.append(f"Start {name} is read from {now} instead of {was}.")
        elif not _is_same_start(planned[name], done[name]):
            sentences.append(f"Start {name} has other weights than planned.")
    return sentences


def _is_same_start(planned: Mapping[str, Any], done: Mapping[str, Any]) -> bool:
    """Whether two starts are the same; with different numbers of seeds, one has more weights."""
    was, now = set(planned["weights"]), set(done["weights"])
    rest = [{key: value for key, value in start.items() if key != "weights"} for start in (planned, done)]
    return rest[0] == rest[1] and (was <= now or now <= was)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_text(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def adherence(path: Path, planned: dict[str, Any], hypothesis: str, before: dict[str, int]) -> dict[str, Any]:
    """Check a plan against the planned run: read it or, if missing, write it.

    Args:
        path: the plan's.
        planned, hypothesis, before: for the run; see :func:`write_plan`.

    Returns:
        {"file", "sha256", "written", "hypothesis", "before", "written_now", "followed", "deviations", "words"}.

    Raises:
        UserError: as in :func:`read_plan` and :func:`write_plan`.
    """
    planned = json.loads(to_json(planned))
    new = not path.exists()
    plan = write_plan(path, planned, hypothesis, before) if new else read_plan(path)
    try:
        sentences = deviations(plan["planned"], planned)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise UserError(
            f"--plan {path}: is not a comparison plan ({type(error).__name__}: {error})"
        ) from None
    if hypothesis and hypothesis != plan["hypothesis"]:
        sentences.append(f"Hypothesis: planned “{plan['hypothesis']}”, given “{hypothesis}”.")
    before, caution = plan["before"], ""
    if before["trials"]:
        caution = f" But {before['trials']} of its trials had been done before it was written."
    if before["looks"]:
        caution += (
            f" These images had been scored {times(before['looks'])} in this folder before it was written."
        )
    when = plan["written"].replace("T", " ").replace("+00:00", " UTC")
    outcome = (
        "It was followed." if not sentences else f"It was not followed in {counted(len(sentences), 'point')}."
    )
    return {
        "file": str(path),
        **{key: plan[key] for key in ("sha256", "written", "hypothesis", "before")},
        "written_now": new,
        "followed": not sentences,
        "deviations": sentences,
        "words": f"Planned at {when} (SHA-256 {plan['sha256'][:16]}…). {outcome}{caution}",
    }


def times(count: int) -> str:
    """ "never", "once", "twice", "3 times"."""
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")
