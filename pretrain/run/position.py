"""A run's position: its saved state apart from arrays, as readable JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from mri_transfer.errors import UserError
from mri_transfer.options import LARGEST_SIDE
from mri_transfer.storage.files import Kind, wrong_fields

_NUMBER: Kind = (int, float)
_COUNT: Kind = (int, type(None))
_NUMBER_OR_NONE: Kind = (int, float, type(None))
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("seconds", "share", "step_seconds", "rate_scale", "saving_seconds"), _NUMBER),
    **dict.fromkeys(("first_loss", "ends", "left"), _NUMBER_OR_NONE),
    **{
        "step": int,
        "size": _COUNT,
        "micro_batch": _COUNT,
        "diverged": [int],
        "monitor_seconds": dict[str, int | float],
    },
}
_NEVER_NEGATIVE = ("step", "seconds", "share", "step_seconds", "saving_seconds")
_MOST = {"size": LARGEST_SIDE, "micro_batch": 100_000}


@dataclasses.dataclass
class Position:
    """What a run needs to continue.

    Attributes:
        step: optimizer steps done.
        seconds: of the budget used, excluding interruptions.
        share: of the budget used, 0..1.
        step_seconds: recent duration of a step; 0 if unknown.
        first_loss: the first step's.
        size: side of the views in pixels.
        micro_batch: pairs encoded at once; None for the whole batch.
        rate_scale: factor on the learning rate; below 1 after a divergence.
        diverged: steps at which the loss or a weight was not finite.
        ends: Unix time by which a run with --until must be ready.
        left: seconds left at the save.
        saving_seconds: time that training waited for saves.
        monitor_seconds: time taken by monitors, by name.
    """

    step: int = 0
    seconds: float = 0.0
    share: float = 0.0
    step_seconds: float = 0.0
    first_loss: float | None = None
    size: int | None = None
    micro_batch: int | None = None
    rate_scale: float = 1.0
    diverged: list[int] = dataclasses.field(default_factory=list)
    ends: float | None = None
    left: float | None = None
    saving_seconds: float = 0.0
    monitor_seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    def info(self) -> dict[str, Any]:
        """As JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_info(cls, info: dict[str, Any]) -> Position:
        """From :meth:`info`, also of a version with fewer or more entries.

        Raises:
            UserError: an entry has the wrong type, or a value that no run has.
        """
        wrong = wrong_fields(info, {}, _KINDS)
        wrong = wrong or [name for name in _NEVER_NEGATIVE if info.get(name, 0) < 0]
        given = {name: info[name] for name in _MOST if info.get(name) is not None}
        if wrong := wrong or [name for name, count in given.items() if not 0 < count <= _MOST[name]]:
            raise UserError(f"state/ is damaged ({', '.join(wrong)}); choose another --out")
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in info.items() if name in names})
