"""What is compared: each arm is a name and an encoder to start from.

random              weights drawn anew for each seed
imagenet            the backbone's ImageNet weights
NAME=RUN            an encoder run; with {seed} in RUN another one for each seed, as intervals can cover pretraining
                    only where it was repeated; with {seed} and {fold} another one for each split
NAME=scaled:START   random weights of the scale that START has, layer by layer (see checkpoints/rescaling.py)
pixels              no network: the image itself, at 24 pixels a side
figures             no network: global figures of the picture (brightness, margins, extent, entropy)
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mri_transfer.checkpoints import DEFAULT_BACKBONE, initialisation
from mri_transfer.checkpoints.initialisation import IMAGENET, RANDOM, Initialisation
from mri_transfer.errors import UserError
from mri_transfer.finetune.arms.starts import NO_NETWORK, WithoutNetwork
from mri_transfer.machine import device

BUILT_IN = (*initialisation.BUILT_IN, *NO_NETWORK)
SCALED = f"{initialisation.SCALED}:"
FORMS = f"write {', '.join(BUILT_IN)}, NAME=RUN or NAME={SCALED}START, for example --arm mri=runs/mri"
PLACES = ("{seed}", "{fold}")
FEATURE_MODES = ("probe", "nearest", "forest")


@dataclasses.dataclass(frozen=True)
class Arm:
    """One start.

    Attributes:
        name: what the report calls it.
        start: as it was written: "random", "imagenet", "pixels", "figures", a path, a path with places for seed
            and fold, or one of the first two or a path after "scaled:".
        backbone: the network's name; "" without one.
        cards: by path, the encoders' cards (see :mod:`mri_transfer.checkpoints.encoders`); empty for built-in starts.
    """

    name: str
    start: str
    backbone: str
    cards: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict, hash=False)

    @property
    def kind(self) -> str:
        """ "random", "imagenet", "pixels", "figures", "scaled" or "encoder"."""
        if self.start.startswith(SCALED):
            return initialisation.SCALED
        return self.start if self.start in BUILT_IN else "encoder"

    @property
    def origin(self) -> str:
        """The start without "scaled:"."""
        return self.start.removeprefix(SCALED)

    @property
    def card(self) -> dict[str, Any]:
        """The card of the one encoder; empty where there is none or several."""
        return self.cards.get(self.origin, {})

    @property
    def per_seed(self) -> bool:
        """Whether each seed has weights of its own: one random network says little about random networks."""
        return self.kind in (RANDOM, initialisation.SCALED)

    @property
    def repeated(self) -> bool:
        """Whether it has several encoders: one for each seed, or for each split."""
        return self.kind == "encoder" and any(path != self.start for path in self.cards)

    @property
    def per_split(self) -> bool:
        """Whether every fold of every seed has an encoder of its own, pretrained on its training images."""
        return self.repeated and "{fold}" in self.start

    def path(self, seed: int, fold: int) -> str:
        """Where the encoder of a split lies."""
        return filled(self.origin, seed, fold) if self.repeated else self.origin

    def source(self, seed: int, fold: int) -> Initialisation:
        """What a split starts from."""
        return Initialisation(
            self.path(seed, fold),
            self.backbone,
            seed if self.per_seed else 0,
            scaled=self.start.startswith(SCALED),
        )

    @property
    def without_network(self) -> WithoutNetwork | None:
        """What stands in the start's place where there is no network."""
        return WithoutNetwork(self.kind) if self.kind in NO_NETWORK else None

    def can(self, mode: str) -> bool:
        """Whether there is such a trial: without a network there is nothing to fine-tune."""
        return self.kind not in NO_NETWORK or mode in FEATURE_MODES


def filled(text: str, seed: int, fold: int) -> str:
    """A path with seed and fold in their places; other braces stay."""
    return text.replace("{seed}", str(seed)).replace("{fold}", str(fold))


def parse_arm(text: str) -> tuple[str, str]:
    """Name and start of an arm, in any of the forms at the top of this module, or a bare path.

    Raises:
        UserError: a name or a path is empty, or a built-in name is given to something else.
    """
    name, equals, start = text.partition("=")
    if equals and Path(text).exists():  # a folder with "=" in its name
        name, equals, start = text, "", ""
    if not equals:
        start, name = text, text if text in BUILT_IN else Path(text).name
        if text.startswith(SCALED) and name:
            name = f"scaled {Path(text.removeprefix(SCALED)).name}"
    name, start = name.strip(), start.strip()
    if not name or not start.removeprefix(SCALED):
        raise UserError(f"--arm {text}: {FORMS}")
    if re.search(r"[\x00-\x1f\x7f]", name):
        raise UserError(f"--arm {text!r}: a name is plain text")
    if name in BUILT_IN and start != name:
        raise UserError(f"--arm {text}: {name} is the name of a built-in start; choose another name")
    if start in [SCALED + untrained for untrained in (RANDOM, *NO_NETWORK)]:
        raise UserError(f"--arm {text}: scaled: takes the scale of trained weights, of imagenet or a run")
    return name, start


def resolve_arms(
    texts: Sequence[str],
    *,
    backbones: Sequence[str] = (),
    mixed_backbones: bool = False,
    splits: Sequence[tuple[int, int]] = (),
) -> tuple[Arm, ...]:
    """Read every arm's card and check that the arms can be compared, before any work is done.

    Args:
        texts: as given on the command line; empty means random and imagenet.
        backbones: of the built-in starts; by default that of the given encoders. Of several, each makes an arm of every
            built-in start.
        mixed_backbones: allow arms of different networks; several `backbones` do so too.
        splits: (seed, fold) of every split, for paths with places for them.

    Raises:
        UserError: an arm is written wrongly, named twice, missing, damaged, or of another backbone than the rest.
    """
    named = [parse_arm(text) for text in (texts or (RANDOM, IMAGENET))]
    _named_once([name for name, _ in named])
    paths = {name: _paths(name, start, splits) for name, start in named}
    if all(start in NO_NETWORK for _, start in named):  # no network at all
        return tuple(Arm(name, start, "") for name, start in named)

    # Keras takes seconds to import, and a mistyped path need not wait for it.
    device.prepare()
    from mri_transfer.checkpoints.backbones import check_backbone

    for backbone in backbones:
        check_backbone(backbone)
    cards = {
        name: {path: initialisation.card_of(path, _option(name, start)) for path in paths[name]}
        for name, start in named
    }
    of_runs = {name: _one_backbone(name, cards[name]) for name, _ in named if cards[name]}
    for name, start in named:
        if "{fold}" not in start:
            _different(name, cards[name])
    found = sorted(set(of_runs.values()))
    if not mixed_backbones and len(backbones) < 2:
        _alike(of_runs, found, backbones)
    of_built_in = list(dict.fromkeys(backbones)) or [found[0] if found else DEFAULT_BACKBONE]
    arms = []
    for name, start in named:
        if start in NO_NETWORK:
            arms.append(Arm(name, start, ""))
        elif name in of_runs:
            arms.append(Arm(name, start, of_runs[name], cards[name]))
        else:
            for backbone in of_built_in:
                label = f"{name} ({backbone})" if len(of_built_in) > 1 else name
                arms.append(Arm(label, start, backbone))
    _named_once([arm.name for arm in arms])
    return tuple(arms)


def _named_once(names: Sequence[str]) -> None:
    for position, name in enumerate(names):
        if name in names[:position]:
            raise UserError(
                f"--arm {name}: named twice; give each arm a name of its own, as in --arm second=START"
            )


def _paths(name: str, start: str, splits: Sequence[tuple[int, int]]) -> list[str]:
    """The encoders that an arm needs, which are all there; none for built-in starts.

    Raises:
        UserError: one is missing or there twice, or a path has a place for the fold and none for the seed though folds
            differ between seeds.
    """
    origin = start.removeprefix(SCALED)
    if origin in NO_NETWORK:
        return []
    if splits and any(place in origin for place in PLACES) and not Path(origin).exists():
        if start != origin:
            raise UserError(f"--arm {name}: scaled: takes one encoder, and {origin} names several")
        if "{seed}" not in origin and len({seed for seed, _ in splits}) > 1:
            raise UserError(
                f"--arm {name}={origin}: folds differ between seeds; write {{seed}} into the path too, or use --seeds 1"
            )
        paths = list(dict.fromkeys(itertools.starmap(lambda s, f: filled(origin, s, f), splits)))
        if absent := [path for path in paths if not Path(path).exists()]:
            remedy = (
                "pretrain on the store of that split, which --target-stores DIR writes"
                if "{fold}" in origin
                else "pretrain once for each seed, with pretrain --seed, or ask for fewer with --seeds"
            )
            raise UserError(
                f"--arm {name}={absent[0]}: no such folder ({len(absent)} of {len(paths)} are missing); {remedy}"
            )
        return paths
    initialisation.check(origin, _option(name, start))
    return [] if initialisation.folder_of(origin) is None else [origin]


def _option(name: str, start: str) -> str:
    """What stands before the origin of an arm on the command line, for messages."""
    return f"--arm {'' if name == start else f'{name}='}{SCALED if start.startswith(SCALED) else ''}"


def _one_backbone(name: str, cards: dict[str, dict[str, Any]]) -> str:
    found = {card["backbone"]: path for path, card in cards.items()}
    if len(found) > 1:
        have = ", ".join(f"{path} {backbone}" for backbone, path in found.items())
        raise UserError(f"--arm {name}: its encoders have different backbones ({have}); pretrain them alike")
    return next(iter(found))


def _different(name: str, cards: dict[str, dict[str, Any]]) -> None:
    """Copies of one encoder would pass for pretraining that always comes out the same."""
    first: dict[str, str] = {}
    for path, card in cards.items():
        digest = card.get("weights_sha256", path)
        if digest in first:
            raise UserError(
                f"--arm {name}: {first[digest]} and {path} are the same encoder; pretrain once for each seed, with "
                "pretrain --seed"
            )
        first[digest] = path


def _alike(of_runs: dict[str, str], found: Sequence[str], backbones: Sequence[str]) -> None:
    if len(found) > 1 or (found and backbones and backbones[0] != found[0]):
        have = ", ".join(f"{name} {backbone}" for name, backbone in of_runs.items())
        asked = f", --backbone {backbones[0]}" if backbones else ""
        raise UserError(
            f"the arms have different backbones ({have}{asked}), so their difference would not be the start's; "
            "--mixed-backbones compares them all the same"
        )


def refuse_the_same(arms: Sequence[Arm]) -> None:
    """See that no two arms have the same weights: they would give the same predictions, at the price of both.

    Raises:
        UserError: two do.
    """
    first: dict[tuple, str] = {}
    for arm in arms:
        digests = tuple(card.get("weights_sha256", path) for path, card in sorted(arm.cards.items()))
        identity = (arm.kind, arm.backbone, digests or arm.origin)
        if identity in first:
            raise UserError(
                f"--arm {arm.name}: has the same weights as {first[identity]}, so the two can't be told apart; leave "
                "one of them out"
            )
        first[identity] = arm.name
