"""The self-supervised methods, one file each, registered here with what the rest of the program needs to know.

To add one, write its file (a pure loss, and a subclass of :class:`~mri_transfer.pretrain.methods.method.Method`) and an
entry in :data:`METHODS`; or call :func:`register` from Python, without changing anything here. That is all: `--method`,
its help and errors, batch contents, learning rates, exported training graphs and pages follow from the entry, which is
read without Keras. New options must also be declared in `pretrain/config.py`, with `_of_methods`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mri_transfer.errors import UserError

if TYPE_CHECKING:
    import keras

    from mri_transfer.pretrain.methods.method import Method, Plan

# Default peak learning rates of AdamW: from random weights, and the maximum from trained ones.
RATE, TRAINED_RATE = 1e-3, 3e-4


# What a method compares within a batch: slices of different subjects, pushed apart; features over the pairs; or
# nothing, so that one pair is enough.
SUBJECTS, PAIRS, NOTHING = "subjects", "pairs", "nothing"


@dataclasses.dataclass(frozen=True)
class Registered:
    """A method, and what it needs.

    Attributes:
        made_by: "module:class", the module relative to this package or absolute; or the class itself.
        about: description for `--help`; continues the method's name.
        compares: SUBJECTS, PAIRS or NOTHING. With SUBJECTS, a store needs two, and only then do batches carry
            "subject": a contrastive method that claims to compare something else fails at its first step.
        free_labels: whether batches carry "plane" and "position", see `pretrain/pairs/free_labels.py`.
        rate: peak learning rate of AdamW from random weights.
        options: fields of PretrainConfig that it takes, with their defaults.
    """

    made_by: str | type[Method]
    about: str
    _: dataclasses.KW_ONLY
    compares: str
    free_labels: bool = False
    rate: float = RATE
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.compares not in (SUBJECTS, PAIRS, NOTHING):
            raise ValueError(f"{self.made_by}: compares {self.compares!r}; say subjects, pairs or nothing")

    @property
    def batches(self) -> dict[str, bool]:
        """Required batch contents, as arguments of :class:`~mri_transfer.pretrain.pairs.positives.PairSampler`."""
        return {"negatives": self.compares == SUBJECTS, "free_labels": self.free_labels}

    @property
    def made(self) -> type[Method]:
        """The class itself; imports Keras."""
        if not isinstance(self.made_by, str):
            return self.made_by
        module, _, name = self.made_by.partition(":")
        return getattr(importlib.import_module(module, __name__), name)

    def build(
        self,
        encoder: keras.Model,
        views: keras.layers.Layer,
        *,
        plan: Plan | None = None,
        seed: int = 0,
        **options: Any,
    ) -> Method:
        """The method, ready to be compiled.

        Args:
            encoder, views, plan, seed: as in :class:`~mri_transfer.pretrain.methods.method.Method`.
            options: its own, overriding those here and the class's defaults.

        Raises:
            UserError: the method can't work with this encoder.
        """
        return self.made(encoder, views, plan=plan, seed=seed, **{**self.options, **options})


METHODS = {
    "simclr": Registered(
        ".simclr:SimCLR",
        "contrasts slices of different subjects",
        compares=SUBJECTS,
        options={"temperature": 0.1, "decoupled": False},
    ),
    "moco": Registered(
        ".moco:MoCo",
        "contrasts slices of different subjects, with a queue",
        compares=SUBJECTS,
        options={"temperature": 0.2},
    ),
    # At 1e-3 its embeddings had an effective rank of 2.8 within 1,700 steps; see benchmarks/README.md.
    "byol": Registered(".byol:BYOL", "predicts its slow average's embedding", compares=NOTHING, rate=3e-4),
    "simsiam": Registered(".simsiam:SimSiam", "predicts one view from the other", compares=NOTHING),
    "barlow_twins": Registered(
        ".barlow_twins:BarlowTwins", "makes views agree, features decorrelate", compares=PAIRS
    ),
    "vicreg": Registered(
        ".vicreg:VICReg", "makes views agree, features vary and decorrelate", compares=PAIRS
    ),
    "dino": Registered(
        ".dino:DINO",
        "matches its slow average's soft clusters",
        compares=NOTHING,
        options={"temperature": 0.1},
    ),
    "masked": Registered(".masked:Masked", "reconstructs hidden blocks", compares=NOTHING),
    "hybrid": Registered(
        ".hybrid:Hybrid",
        "is simclr that also predicts each slice's plane and position, and finds and describes synthetic lesions "
        "pasted on slices",
        compares=SUBJECTS,
        free_labels=True,
        options={"temperature": 0.1, "decoupled": False, "lesions": 0.75, "label_weight": 1.0},
    ),
}
BUILT_IN = tuple(METHODS)
# Every option that only some methods take.
METHOD_OPTIONS = tuple(dict.fromkeys(name for method in METHODS.values() for name in method.options))


def takers(option: str) -> tuple[str, ...]:
    """The methods that take an option."""
    return tuple(name for name, method in METHODS.items() if option in method.options)


def register(
    name: str,
    method: type[Method],
    *,
    compares: str = SUBJECTS,
    free_labels: bool = False,
    rate: float = RATE,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Let `pretrain` use your own method by name. Registering a name again replaces the former method.

    Parameters
    ----------
    name : str
        Its name in `method=`.
    method : type
        A subclass of `mri_transfer.pretrain.methods.method.Method`, which documents what to define.
    compares : {"subjects", "pairs", "nothing"}
        What it compares within a batch: slices of different subjects (batches then carry "subject"), features over
        the pairs, or nothing.
    free_labels : bool
        Whether batches carry "plane" and "position".
    rate : float
        Peak learning rate of AdamW from random weights.
    options : dict, optional
        Options of `pretrain` that it takes ("temperature", ...), with their defaults.

    Raises
    ------
    UserError
        The name is a built-in method's or not a name, `method` is no method, or `compares` is something else.
    """
    from mri_transfer.pretrain.methods.method import Method

    if not (isinstance(method, type) and issubclass(method, Method)):
        raise UserError(
            f"{method!r}: is not a class that extends mri_transfer.pretrain.methods.method.Method"
        )
    if not (isinstance(name, str) and name.isidentifier()):
        raise UserError(f"{name!r}: is not a valid name; use letters, digits and _, such as my_method")
    if name in BUILT_IN:
        raise UserError(f"{name}: is a method of this program; choose another name")
    if compares not in (SUBJECTS, PAIRS, NOTHING):
        raise UserError(f"compares={compares!r}: say subjects, pairs or nothing")
    METHODS[name] = Registered(
        method,
        "is your own",
        compares=compares,
        free_labels=free_labels,
        rate=rate,
        options=options or {},
    )
