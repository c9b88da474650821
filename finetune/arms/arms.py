"""Arms of a comparison: each is a name and a start; see written.py for the syntax."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mri_transfer.checkpoints import DEFAULT_BACKBONE, initialisation, network_of
from mri_transfer.checkpoints.initialisation import (
    ENCODER,
    IMAGENET,
    NETWORK,
    OWN_WEIGHTS,
    RANDOM,
    Initialisation,
)
from mri_transfer.errors import UserError
from mri_transfer.finetune.arms import feature_table
from mri_transfer.finetune.arms.feature_table import FeatureTable
from mri_transfer.finetune.arms.starts import NO_NETWORK, WithoutNetwork
from mri_transfer.finetune.arms.written import (
    PLACES,
    PREFIXES,
    SCALED,
    has_none,
    option_of,
    origin_of,
    parse_arm,
)
from mri_transfer.machine import device
from mri_transfer.storage.files import sha256

FEATURE_MODES = ("probe", "nearest", "forest")


@dataclasses.dataclass(frozen=True)
class Arm:
    """One start.

    Attributes:
        name: used in the report.
        start: as written: "random", "imagenet", "pixels", "figures", a path, a path with placeholders for seed and
            fold, one of the first two or a path after "scaled:", or a path after "features:".
        backbone: the network's name, or "".
        cards: by path, the encoders' cards (see :mod:`mri_transfer.checkpoints.encoders`), or for files the result of
            :func:`~.initialisation.card_of`; empty for built-in starts.
    """

    name: str
    start: str
    backbone: str
    cards: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict, hash=False)

    @property
    def kind(self) -> str:
        """ "pixels", "figures", "features", "scaled", or as :func:`~.initialisation.kind_of`."""
        for prefix in PREFIXES:
            if self.start.startswith(prefix):
                return prefix.rstrip(":")
        return self.start if self.start in NO_NETWORK else initialisation.kind_of(self.start)

    @property
    def origin(self) -> str:
        """The start without "scaled:" or "features:"."""
        return origin_of(self.start)

    @property
    def card(self) -> dict[str, Any]:
        """The card of the only encoder; empty if there are none or several."""
        return self.cards.get(self.origin, {})

    @property
    def per_seed(self) -> bool:
        """Whether each seed has its own weights: one random network says little about random networks."""
        return self.kind in (RANDOM, initialisation.SCALED)

    @property
    def repeated(self) -> bool:
        """Whether it has several encoders: one per seed or per split."""
        return self.kind in (ENCODER, NETWORK, OWN_WEIGHTS) and any(path != self.start for path in self.cards)

    @property
    def per_split(self) -> bool:
        """Whether every fold of every seed has its own encoder, pretrained on its training images."""
        return self.repeated and "{fold}" in self.start

    def path(self, seed: int, fold: int) -> str:
        """Path of a split's encoder."""
        return filled(self.origin, seed, fold) if self.repeated else self.origin

    def source(self, seed: int, fold: int) -> Initialisation:
        """A split's start."""
        return Initialisation(
            self.path(seed, fold),
            self.backbone,
            seed if self.per_seed else 0,
            scaled=self.start.startswith(SCALED),
        )

    @cached_property
    def without_network(self) -> WithoutNetwork | FeatureTable | None:
        """The start's substitute if there is no network."""
        if self.kind == feature_table.KIND:
            return FeatureTable(Path(self.origin), option_of(self.name, self.start))
        return WithoutNetwork(self.kind) if self.kind in NO_NETWORK else None

    def can(self, mode: str) -> bool:
        """Whether such a trial exists: without a network there is nothing to fine-tune."""
        return self.without_network is None or mode in FEATURE_MODES


def filled(text: str, seed: int, fold: int) -> str:
    """A path with seed and fold filled in; other braces stay."""
    return text.replace("{seed}", str(seed)).replace("{fold}", str(fold))


def resolve_arms(
    texts: Sequence[str],
    *,
    backbones: Sequence[str] = (),
    mixed_backbones: bool = False,
    splits: Sequence[tuple[int, int]] = (),
) -> tuple[Arm, ...]:
    """Read every arm's card and check that the arms can be compared, before any work.

    Args:
        texts: as given on the command line; empty means random and imagenet.
        backbones: for the built-in starts; by default the given encoders'. Each makes an arm of every built-in start,
            and of every encoder whose network it is, or is the lower part of.
        mixed_backbones: allow arms with different networks; several `backbones` imply it.
        splits: (seed, fold) of every split, for paths with placeholders.

    Raises:
        UserError: an arm is malformed, named twice, missing, damaged, or has another backbone than the rest.
    """
    starts = [parse_arm(text) for text in (texts or (RANDOM, IMAGENET))]
    _named_once([name for name, _ in starts])
    paths = {name: _paths(name, start, splits) for name, start in starts}
    bare = {name: Arm(name, start, "", _table(start)) for name, start in starts if has_none(start)}
    if len(bare) == len(starts):
        return tuple(bare.values())

    # Keras takes seconds to import; mistyped paths should fail before.
    device.prepare()
    from mri_transfer.checkpoints.backbones import check_backbone

    for backbone in backbones:
        check_backbone(backbone)
    cards = {
        name: {path: initialisation.card_of(path, option_of(name, start)) for path in paths[name]}
        for name, start in starts
    }
    of_networks = {
        name: _one_backbone(name, cards[name])
        for name, start in starts
        if cards[name] and initialisation.kind_of(origin_of(start)) == NETWORK
    }
    of_runs = {}
    for name, start in starts:
        if cards[name] and initialisation.kind_of(origin_of(start)) == ENCODER:
            own = _one_backbone(name, cards[name])
            of_runs[name] = [
                wanted for wanted in dict.fromkeys(backbones) if own in (wanted, network_of(wanted))
            ] or [own]
    for name, start in starts:
        if "{fold}" not in start:
            _different(name, cards[name])
    run_backbones = sorted({backbone for of_run in of_runs.values() for backbone in of_run})
    if not mixed_backbones and len(backbones) < 2:
        _refuse_mixed(of_runs, run_backbones, backbones)
    of_built_in = list(dict.fromkeys(backbones)) or [run_backbones[0] if run_backbones else DEFAULT_BACKBONE]
    arms = []
    for name, start in starts:
        if has_none(start):
            arms.append(bare[name])
        elif name in of_networks:
            arms.append(Arm(name, start, of_networks[name], cards[name]))
        elif name in of_runs:
            for backbone in of_runs[name]:
                label = f"{name} ({backbone})" if len(of_runs[name]) > 1 else name
                arms.append(Arm(label, start, backbone, cards[name]))
        else:
            if cards[name] and len({network_of(backbone) for backbone in of_built_in}) > 1:
                raise UserError(f"--arm {name}={start}: is one network's; name one --backbone, its own")
            for backbone in of_built_in:
                initialisation.check_backbone_of(origin_of(start), backbone, option_of(name, start))
                label = f"{name} ({backbone})" if len(of_built_in) > 1 else name
                arms.append(Arm(label, start, backbone, cards[name]))
    _named_once([arm.name for arm in arms])
    return tuple(arms)


def _table(start: str) -> dict[str, dict[str, Any]]:
    """Facts about a table of features, by its path."""
    path = Path(origin_of(start))
    entry = {"file": path.name, "weights_sha256": sha256(path)} if start not in NO_NETWORK else {}
    return {str(path): entry} if entry else {}


def _named_once(names: Sequence[str]) -> None:
    for position, name in enumerate(names):
        if name in names[:position]:
            raise UserError(
                f"--arm {name}: named twice; give each arm a name of its own, as in --arm second=START"
            )


def _paths(name: str, start: str, splits: Sequence[tuple[int, int]]) -> list[str]:
    """An arm's encoders, checked to exist; none for built-in starts.

    Raises:
        UserError: one is missing or duplicated, or a path has a placeholder for fold but not for seed although folds
            differ between seeds.
    """
    if has_none(start):
        if start not in NO_NETWORK and not Path(origin_of(start)).is_file():
            raise UserError(f"{option_of(name, start)}{origin_of(start)}: no such file; {feature_table.HOW}")
        return []
    origin = start.removeprefix(SCALED)
    if splits and any(place in origin for place in PLACES) and not Path(origin).exists():
        if start != origin:
            raise UserError(f"--arm {name}: scaled: takes one encoder, and {origin} names several")
        if "{seed}" not in origin and len({seed for seed, _ in splits}) > 1:
            raise UserError(
                f"--arm {name}={origin}: folds differ between seeds; write {{seed}} into the path too, or use --seeds 1"
            )
        paths = list(dict.fromkeys(itertools.starmap(lambda s, f: filled(origin, s, f), splits)))
        if absent := [path for path in paths if not Path(path).exists()]:
            of_runs = initialisation.kind_of(origin) == ENCODER
            remedy = "one is needed for each seed; ask for fewer with --seeds"
            if "{fold}" in origin:
                remedy = "pretrain on the store of that split, which --target-stores DIR writes"
            elif of_runs:
                remedy = "pretrain once for each seed, with pretrain --seed, or ask for fewer with --seeds"
            raise UserError(
                f"--arm {name}={absent[0]}: no such {'folder' if of_runs else 'file'} ({len(absent)} of {len(paths)} "
                f"are missing); {remedy}"
            )
        return paths
    initialisation.check(origin, option_of(name, start))
    return [] if initialisation.folder_of(origin) is None else [origin]


def _one_backbone(name: str, cards: dict[str, dict[str, Any]]) -> str:
    path_of = {card["backbone"]: path for path, card in cards.items()}
    if len(path_of) > 1:
        have = ", ".join(f"{path} {backbone}" for backbone, path in path_of.items())
        raise UserError(f"--arm {name}: its encoders have different backbones ({have}); pretrain them alike")
    return next(iter(path_of))


def _different(name: str, cards: dict[str, dict[str, Any]]) -> None:
    """Copies of one encoder would look like perfectly reproducible pretraining."""
    first: dict[str, str] = {}
    for path, card in cards.items():
        digest = card.get("weights_sha256", path)
        if digest in first:
            raise UserError(
                f"--arm {name}: {first[digest]} and {path} are the same encoder; pretrain once for each seed, with "
                "pretrain --seed"
            )
        first[digest] = path


def _refuse_mixed(
    of_runs: dict[str, list[str]], run_backbones: Sequence[str], backbones: Sequence[str]
) -> None:
    if len(run_backbones) > 1 or (run_backbones and backbones and backbones[0] != run_backbones[0]):
        have = ", ".join(f"{name} {backbone}" for name, (backbone, *_) in of_runs.items())
        option = f", --backbone {backbones[0]}" if backbones else ""
        raise UserError(
            f"the arms have different backbones ({have}{option}), so a difference may not be due to the start; "
            "--mixed-backbones compares them anyway"
        )


def refuse_the_same(arms: Sequence[Arm]) -> None:
    """Ensure that no two arms have the same weights: they would give the same predictions at twice the cost.

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
