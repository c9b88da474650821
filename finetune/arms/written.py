"""Syntax of an arm: a name and a start.

random              weights drawn anew for each seed
imagenet            the backbone's ImageNet weights
NAME=RUN            an encoder run; with {seed} in RUN another one for each seed, as intervals can cover pretraining
                    only where it was repeated; with {seed} and {fold} another one for each split
NAME=FILE           your own network (.keras), or weights for --backbone under a name of their own (.h5)
NAME=features:FILE  no network here: features of every image that were made elsewhere, see feature_table.py
NAME=scaled:START   random weights of the scale that START has, layer by layer (see checkpoints/rescaling.py)
pixels              no network: the image itself, at 24 pixels a side
figures             no network: global figures of the picture (brightness, margins, extent, entropy)
"""

from __future__ import annotations

import re
from pathlib import Path

from mri_transfer.checkpoints import initialisation
from mri_transfer.checkpoints.initialisation import NETWORK, RANDOM
from mri_transfer.errors import UserError
from mri_transfer.finetune.arms import feature_table
from mri_transfer.finetune.arms.starts import NO_NETWORK

BUILT_IN = (*initialisation.BUILT_IN, *NO_NETWORK)
SCALED = f"{initialisation.SCALED}:"
FORMS = (
    f"write {', '.join(BUILT_IN)}, NAME=RUN, NAME=FILE, NAME={SCALED}START or NAME={feature_table.PREFIX}FILE, for "
    "example --arm mri=runs/mri"
)
PREFIXES = (SCALED, feature_table.PREFIX)
PLACES = ("{seed}", "{fold}")


def origin_of(start: str) -> str:
    """A start without its prefix before the colon."""
    prefix = next((prefix for prefix in PREFIXES if start.startswith(prefix)), "")
    return start.removeprefix(prefix)


def has_none(start: str) -> bool:
    """Whether it has no network."""
    return start in NO_NETWORK or start.startswith(feature_table.PREFIX)


def option_of(name: str, start: str) -> str:
    """The prefix before an arm's origin on the command line, for messages."""
    prefix = next((prefix for prefix in PREFIXES if start.startswith(prefix)), "")
    return f"--arm {'' if name == start else f'{name}='}{prefix}"


def parse_arm(text: str) -> tuple[str, str]:
    """Parse an arm's name and start, in any form listed at the top of this module, or a bare path.

    Raises:
        UserError: a name or path is empty, or a built-in name is given to something else.
    """
    name, equals, start = text.partition("=")
    if equals and Path(text).exists():  # a folder with "=" in its name
        name, equals, start = text, "", ""
    if not equals:
        origin = Path(origin_of(text))
        start, name = text, text if text in BUILT_IN else origin.stem if origin.is_file() else origin.name
        if text.startswith(SCALED) and name:
            name = f"scaled {name}"
    name, start = name.strip(), start.strip()
    if not name or not origin_of(start):
        raise UserError(f"--arm {text}: {FORMS}")
    if re.search(r"[\x00-\x1f\x7f]", name):
        raise UserError(f"--arm {text!r}: a name is plain text")
    if name in BUILT_IN and start != name:
        raise UserError(f"--arm {text}: {name} is the name of a built-in start; choose another name")
    of = initialisation.kind_of(origin_of(start)) if origin_of(start) not in NO_NETWORK else origin_of(start)
    if start.startswith(SCALED) and (
        of in (RANDOM, NETWORK, *NO_NETWORK) or origin_of(start).startswith(PREFIXES)
    ):
        raise UserError(f"--arm {text}: scaled: takes the scale of trained weights, of imagenet or a run")
    return name, start
