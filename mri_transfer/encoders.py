"""`mri-transfer encoders`: the encoders shipped with this program, each with its card."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from mri_transfer import progress
from mri_transfer.checkpoints.initialisation import PUBLISHED
from mri_transfer.storage.files import Kind, read_object

_CARD: dict[str, Kind] = {
    **{"backbone": str, "size": int},
    "provenance": {
        "data": {"slices": int, "subjects": int},
        "published": {
            **{"from": str, "method": str, "licence": str, "views": int, "hours": (int, float)},
            **{"data": [{"source": str, "people": int}], "scores": [str], "limits": [str]},
            "audit": {"pictures": int, "shared": int},
        },
    },
}


@dataclasses.dataclass(frozen=True)
class EncodersConfig:
    """Nothing to choose."""

    EXAMPLE: ClassVar[str] = """\
examples:
  mri-transfer encoders
  mri-transfer encoders --json - --quiet
  mri-transfer finetune TUMORS --init mri --out runs/classifier
"""


def encoders(config: EncodersConfig) -> dict[str, Any]:
    """List what `--init NAME` accepts without a download.

    Returns:
        {"encoders": [{"name", "folder", "card"}]}, the card as in :mod:`mri_transfer.checkpoints.encoders`.

    Raises:
        UserError: a card is damaged.
    """
    remedy = "install mri-transfer again"
    entries: list[dict[str, Any]] = [
        {
            "name": name,
            "folder": str(folder),
            "card": read_object(folder / "encoder.json", _CARD, remedy=remedy),
        }
        for name, folder in PUBLISHED.items()
    ]
    for encoder in entries:
        progress.show("\n".join(described(encoder["name"], encoder["card"])))
    progress.show(
        "imagenet: the ImageNet weights of the backbone, from a package that is installed with this program"
    )
    return {"encoders": entries}


def described(name: str, card: dict[str, Any]) -> list[str]:
    """A published encoder's card in a few lines.

    Args:
        name: as `--init` takes it.
        card: with what `benchmarks/publish.py` adds under "provenance" and "published".
    """
    provenance = card["provenance"]
    facts = provenance["published"]
    people = ", ".join(f"{entry['people']} of {entry['source']}" for entry in facts["data"])
    audit = facts["audit"]
    lines = [
        f"{name}: {card['backbone']}, trained at {card['size']} px from {facts['from']}",
        f"  {facts['method']}: {facts['views']:,} views, "
        f"{facts['hours']:g} hours of wall time on a busy core",
        f"  {provenance['data']['slices']:,} slices of {provenance['data']['subjects']} people: {people}",
        f"  {facts['licence']}; name its sources (docs/encoders.md has the wording)",
        *(f"  {line}" for line in facts["scores"]),
        f"  {audit['shared'] or 'none'} of the {audit['pictures']:,} distinct pictures of the public tumour set "
        + ("is among its slices" if audit["shared"] < 2 else "are among its slices"),
        "  " + " ".join([*facts["limits"][:1], "Not a medical device."]),
    ]
    if audit["shared"]:
        lines.append(
            "  warning: it has seen pictures that it may be tested on, so its scores may be too high"
        )
    return lines
