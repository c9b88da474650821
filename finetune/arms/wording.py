"""Describes arms in sentences by their provenance; a name is only a name.

An encoder named "mri" may have been pretrained on anything, and one named "no-mri-control" on MRI. So a claim's subject
comes from the card beside the weights: an encoder pretrained once is "this encoder", as repeating its pretraining might
give another result; one per seed or split is "this pretraining".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mri_transfer.checkpoints.initialisation import BUILT_IN, IMAGENET, RANDOM, SCALED
from mri_transfer.finetune.arms.origins import chain, pretraining_hours
from mri_transfer.finetune.arms.starts import NO_NETWORK
from mri_transfer.storage.files import object_or_none, wrong_fields

CONTROLS = {RANDOM, SCALED, *NO_NETWORK}
SUBJECTS = {
    "random": "The random start",
    "scaled": "The scaled control",
    "pixels": "The pixel baseline",
    "figures": "The baseline of global figures",
    "network": "This network",
    "weights": "This weights file",
    "features": "This table of features",
}
MR = re.compile(
    r"(t1|t2|pd|flair|mpr|mp2rage|mprage|swi|dwi|dti|adc|mra|inplane|unit1|megre|angio|bold|asl|fgatir|mr\b)",
    re.I,
)


def kind_of(report: Mapping[str, Any], arm: str) -> str:
    """An arm's kind of start: from the report, or from its name for built-in starts."""
    return report.get("kinds", {}).get(arm) or (arm if arm in {IMAGENET, *CONTROLS} else "encoder")


def network_in_words(backbone: str) -> str:
    """ "efficientnet_lite0 up to output stride 16", for "efficientnet_lite0/16"; whole networks by their name."""
    network, part, stride = backbone.partition("/")
    return f"{network} up to output stride {stride}" if part else network


def subject(report: Mapping[str, Any], arm: str) -> str:
    """An arm as the subject of a claim: "ImageNet", "This encoder", "This pretraining (b)", "The scaled control".

    Args:
        report: with "kinds" and "pretraining" (see :func:`pretraining_of`) by arm, and "arm_names", if known.
        arm: its name, added if the report has several such arms.
    """
    kind = kind_of(report, arm)
    if kind == IMAGENET:
        return (
            "ImageNet" + arm[len(IMAGENET) :] if re.match(rf"{IMAGENET}( \(|$)", arm) else f"ImageNet ({arm})"
        )
    others = [
        other for other in report.get("arm_names", ()) if other != arm and kind_of(report, other) == kind
    ]
    words = SUBJECTS.get(kind) or ("This pretraining" if _repeated(report, arm) else "This encoder")
    return f"{words} ({arm})" if others else words


def _repeated(report: Mapping[str, Any], arm: str) -> bool:
    return int(report.get("pretraining", {}).get(arm, {}).get("runs", 1)) > 1


def pretraining_of(cards: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Data, start, duration and number of an arm's pretraining runs, from its first encoder's card.

    Args:
        cards: its encoders', by path; see :mod:`mri_transfer.checkpoints.encoders`.

    Returns:
        {"runs", "method", "hours", "from", "slices", "subjects", "modality", "sequences"}: hours sum all trainings
        behind one encoder, "from" is "random", "imagenet" or "unknown", "modality" is "MRI", "CT", "MRI and CT",
        "tumour images", "generated" or "" (the slice store is gone, or doesn't say). Empty without an encoder, and
        {"runs", "file"} for files without this information.
    """
    if not cards:
        return {}
    if file := next(iter(cards.values())).get("file"):
        return {"runs": len(cards), "file": file}
    provenance = next(iter(cards.values())).get("provenance") or {}
    links = list(chain(provenance))
    trained = [link for link in links if link.get("method")]
    first = links[-1].get("init") if links else None
    data = (trained[0].get("data") if trained else None) or {}
    sequences, modality = _contents(trained[0]) if trained else ((), "")
    return {
        "runs": len(cards),
        "method": ", then ".join(str(link["method"]) for link in reversed(trained)),
        "hours": pretraining_hours(provenance),
        "from": first if first in BUILT_IN else "unknown",
        "slices": data.get("slices"),
        "subjects": data.get("subjects"),
        "modality": modality,
        "sequences": list(sequences),
    }


def _contents(link: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """Sequences of an encoder's pretraining store, most slices first, and their modality."""
    data = link.get("data") or {}
    store = data.get("store") or (link.get("config") or {}).get("store")
    summary, manifest = (_read(store, name) for name in ("summary.json", "manifest.json"))
    if not summary and isinstance(data.get("summary"), dict):  # a published encoder's card holds it
        summary = data["summary"]
    says = not wrong_fields(manifest, {"settings": {"made_from": str}})
    if says and manifest["settings"]["made_from"] == "training images of one split":
        return (), "tumour images"
    counts = summary["by_sequence"] if not wrong_fields(summary, {"by_sequence": dict[str, int]}) else {}
    if summary.get("banner"):
        return (), "generated"
    sequences = tuple(sorted(counts, key=lambda key: -counts[key]))
    kinds = {"CT" if key.upper() == "CT" else "MRI" if MR.match(key) else "" for key in sequences}
    return sequences, "" if not kinds or "" in kinds else " and ".join(sorted(kinds, reverse=True))


def _read(store: Any, name: str) -> Mapping[str, Any]:
    return object_or_none(Path(store) / name) or {} if isinstance(store, str) else {}


def described(report: Mapping[str, Any], arm: str) -> str:
    """One sentence describing an arm; "" if obvious."""
    kind, facts = kind_of(report, arm), report.get("pretraining", {}).get(arm) or {}
    if kind == "random":
        return f"{arm}: weights drawn at random for each seed, not trained on anything."
    if kind == "scaled":
        return f"{arm}: a control, random weights with the scale of trained ones; it has learned nothing."
    if kind == "pixels":
        return f"{arm}: the image itself at 24 pixels a side, no network."
    if kind == "figures":
        return f"{arm}: global figures of the picture (brightness, margins, extent, entropy), no network."
    file, backbone = facts.get("file"), report.get("backbones", {}).get(arm)
    if kind == "weights":
        return f"{arm}: weights of {backbone} from {file}, which doesn’t say what they were trained on."
    if kind == "network":
        return (
            f"{arm}: a network of one’s own ({file}), which doesn’t say what it was trained on. Where the other starts "
            "are of another network, a difference may be the network’s."
        )
    if kind == "features":
        return (
            f"{arm}: a table of features that were made elsewhere ({file}), by a network and from images that are not "
            "known here. A difference may be the network’s, or come from how it was given the images."
        )
    if kind == IMAGENET or not facts:
        return ""
    parts = [str(facts["method"])] if facts.get("method") else []
    hours = facts.get("hours") or 0.0
    if hours:
        parts.append(f"{60 * hours:.0f} min" if hours < 2 else f"{hours:.1f} h")
    if facts.get("slices"):
        of = f" of {facts['subjects']:,} subjects" if facts.get("subjects") else ""
        slices = f"{facts['modality']} slices" if facts.get("modality") else "slices"
        if facts.get("modality") == "tumour images":
            slices = "tumour images, test images left out"
        sequences = f" ({', '.join(facts['sequences'][:4])})" if any(facts.get("sequences") or ()) else ""
        parts.append(f"on {facts['slices']:,} {slices}{of}{sequences}")
    start = {"random": "from random weights", IMAGENET: "from ImageNet’s weights"}.get(str(facts.get("from")))
    parts += [start] if start else []
    if not parts:
        return f"{arm}: an encoder whose card doesn’t say how it was made."
    runs = facts.get("runs", 1)
    often = f"pretrained {runs} times" if runs > 1 else "pretrained once"
    caution = "" if runs > 1 else "; another run of the same pretraining may come out differently"
    return f"{arm}: {often} ({', '.join(parts)}){caution}."
