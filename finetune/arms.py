"""What is compared: each arm is a name and an encoder to start from."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer import device
from mri_transfer.errors import UserError

DEFAULT_BACKBONE = "efficientnet_lite0"
BUILT_IN = ("random", "imagenet")


@dataclasses.dataclass(frozen=True)
class Arm:
    """One start.

    Attributes:
        name: what the report calls it.
        start: "random", "imagenet" or the path of a run or encoder folder.
        backbone: the network's name.
        card: the encoder's card (see :mod:`mri_transfer.checkpoints.encoders`); empty for built-in starts.
    """

    name: str
    start: str
    backbone: str
    card: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    @property
    def per_seed(self) -> bool:
        """Whether each seed has an encoder of its own: one random network says little about random networks."""
        return self.start == "random"


def parse_arm(text: str) -> tuple[str, str]:
    """Name and start of `random`, `imagenet`, `NAME=RUN` or a bare path.

    Raises:
        UserError: a name or a path is empty, or a built-in name is given to something else.
    """
    name, equals, start = text.partition("=")
    if equals and Path(text).exists():  # a folder with "=" in its name
        name, equals, start = text, "", ""
    if not equals:
        start, name = text, text if text in BUILT_IN else Path(text).name
    name, start = name.strip(), start.strip()
    if not name or not start:
        raise UserError(f"--arm {text!r}: write random, imagenet or NAME=RUN, for example --arm mri=runs/mri")
    if re.search(r"[\x00-\x1f\x7f]", name):
        raise UserError(f"--arm {text!r}: a name is plain text")
    if name in BUILT_IN and start != name:
        raise UserError(f"--arm {text!r}: {name} is the name of a built-in start; choose another name")
    return name, start


def resolve_arms(
    texts: Sequence[str], *, backbone: str | None = None, mixed_backbones: bool = False
) -> tuple[Arm, ...]:
    """Read every arm's card and check that the arms can be compared, before any work is done.

    Args:
        texts: as given on the command line; empty means random and imagenet.
        backbone: of the built-in starts; by default that of the given encoders.
        mixed_backbones: allow arms of different networks.

    Raises:
        UserError: an arm is written wrongly, named twice, missing, damaged, or of another backbone than the rest.
    """
    named = [parse_arm(text) for text in (texts or BUILT_IN)]
    for position, (name, start) in enumerate(named):
        if name in [earlier for earlier, _ in named[:position]]:
            raise UserError(
                f"--arm {name}: named twice; give each arm a name of its own, as in --arm second={start}"
            )
    for name, start in named:
        if start not in BUILT_IN and not Path(start).exists():
            close = f" (or did you mean --arm {start.lower()}?)" if start.lower() in BUILT_IN else ""
            raise UserError(
                f"--arm {name}: {start}: no such folder; name a pretraining run or an encoder{close}"
            )

    # Keras takes seconds to import, and a mistyped path need not wait for it.
    device.prepare()
    from mri_transfer.checkpoints.backbones import check_backbone
    from mri_transfer.checkpoints.encoders import read_card

    if backbone is not None:
        check_backbone(backbone)
    cards = {name: read_card(Path(start)) for name, start in named if start not in BUILT_IN}
    found = sorted({card["backbone"] for card in cards.values()})
    if not mixed_backbones and (len(found) > 1 or (found and backbone not in (None, found[0]))):
        have = ", ".join(f"{name} {card['backbone']}" for name, card in cards.items())
        raise UserError(
            f"the arms have different backbones ({have}{f', --backbone {backbone}' if backbone else ''}), so their "
            "difference would not be the start's; --mixed-backbones compares them all the same"
        )
    built_in = backbone or (found[0] if found else DEFAULT_BACKBONE)
    return tuple(
        Arm(name, start, cards[name]["backbone"] if name in cards else built_in, cards.get(name, {}))
        for name, start in named
    )


def weights_digest(model: Any) -> str:
    """SHA-256 over every weight of a Keras model: the identity of an encoder, wherever it was loaded from."""
    import keras

    digest = hashlib.sha256()
    for variable in model.weights:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        digest.update(f"{value.dtype.str}{value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
