"""A volume's answer from its slices: not simply their mean, as many slices show no lesion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mri_transfer.datasets.tumors.class_names import kind

SHOWN = 5  # deciding slices to name


def volume_answer(name: str, rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """The answer of a volume.

    Slices unlike the training images don't count; if they are more than half, there is no answer. Most slices of a head
    with a tumour show none: such a slice's probability of a tumour is no vote for it, and that of "no tumour" none
    against one elsewhere. So the slices whose most probable class is a lesion decide which one, by their mean; only if
    there are none is the answer that there is no lesion.

    Args:
        name: of the volume.
        rows: its slices', from :func:`mri_transfer.finetune.prediction.predict.predict`.
        classes: names; one may mean no lesion.

    Returns:
        {"file", "slices", "out_of_distribution" (count), "class" (None without an answer), "probabilities" (means over
        deciding slices, or None), "by_class" (counts over slices that count), "deciding" ({"plane", "position_mm",
        "class", "probability"} of deciding slices, the surest first), "words"}.
    """
    counting = [row for row in rows if not row["out_of_distribution"]]
    healthy = next((label for label in classes if kind(label) == "no tumor"), None)
    lesions = [row for row in counting if row["class"] != healthy]
    deciding = (lesions or counting) if 2 * len(counting) >= len(rows) else []
    means: dict[str, float | None] = {
        label: float(np.mean([row["probabilities"][label] for row in deciding])) if deciding else None
        for label in classes
    }
    candidates = [label for label in classes if label != healthy] if lesions else list(classes)
    answer = max(candidates, key=lambda label: means[label] or 0.0) if deciding else None
    surest = sorted(deciding, key=lambda row: -row["probabilities"][answer])
    return {
        "file": name,
        "slices": len(rows),
        "out_of_distribution": len(rows) - len(counting),
        "class": answer,
        "probabilities": means,
        "by_class": {label: sum(row["class"] == label for row in counting) for label in classes},
        "deciding": [
            {
                **{key: row[key] for key in ("plane", "position_mm", "class") if key in row},
                "probability": row["probabilities"][answer],
            }
            for row in surest
        ],
        "words": _words(answer, healthy, rows, counting, surest),
    }


def _words(
    answer: str | None,
    healthy: str | None,
    rows: Sequence[dict[str, Any]],
    counting: Sequence[dict[str, Any]],
    deciding: Sequence[dict[str, Any]],
) -> str:
    if answer is None:
        return f"no class: {len(rows) - len(counting)} of {len(rows)} slices are unlike the training images"
    called = answer.replace("_", " ")
    if answer == healthy:
        return f"{called}: on each of the {len(counting)} slices that count"
    if healthy is None:
        return f"{called}: mean of {len(counting)} of {len(rows)} slices"
    places = [f"{row['plane']} {row['position_mm']:+.1f} mm" for row in deciding if "plane" in row]
    examples = ", ".join(places[:SHOWN])
    if len(places) > SHOWN:
        examples += f" and {len(places) - SHOWN} more"
    others = len(counting) - len(deciding)
    rest = f"; the other {others} show no lesion and are no votes for one" if others else ""
    agree = sum(row["class"] == answer for row in deciding)
    by = "" if agree == len(deciding) else "the mean of "
    most = f", on {agree} of which it is the likeliest" if by else ""
    return f"{called}: by {by}{len(deciding)} of {len(counting)} slices ({examples}){most}{rest}"
