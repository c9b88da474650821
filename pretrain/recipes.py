"""Named settings for `--recipe`: purpose, cost, score, and where they were measured.

Explicit options override a recipe's settings.
"""

from __future__ import annotations

import dataclasses
from typing import Any

BUDGETS = ("hours", "minutes", "steps", "until")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings for a kind of machine.

    Attributes:
        purpose: intended users.
        settings: options by name in `PretrainConfig`.
        cost: time and memory, citing the measurement.
        reached: a score, citing the measurement.
    """

    purpose: str
    settings: dict[str, Any]
    cost: str
    reached: str


RECIPES = {
    "quick": Recipe(
        "see within minutes that everything works, on any machine",
        {"minutes": 10.0, "size": 96, "batch": 32},
        "51,840 views and 2.0 GB on one core of an x86-64 server",
        "nothing that lasts: from random weights a run of that length ended worse than its start (one seed)",
    ),
    "half-hour": Recipe(
        "ImageNet's weights, half an hour of MRI on two processor cores",
        {"minutes": 30.0, "size": 112, "batch": 32, "init": "imagenet"},
        "about 175,000 views and 2.4 GB; 121,600 views took 36 minutes on one core of an x86-64 server",
        "macro-F1 of a linear probe at 160 px after 121,600 views: 81.2 on MRI of 172 people without a tumour (three "
        "seeds), 83.5 on 285 people of whom 110 have gliomas (six); ImageNet's weights alone: 81.0, 80.9. But with "
        "--backbone efficientnet_lite0/16 ImageNet's alone reach 86.0, and no gain is shown (RESULTS.md)",
    ),
    "night-8gb": Recipe(
        "one night on two processor cores and 8 GB",
        {"hours": 8.0, "size": 160, "batch": 64, "first_size": 96, "recompute": "auto"},
        "peak 3.4 GB in 5 minutes held to 8 GB, on two cores of an x86-64 server; the night itself was not run",
        "not measured yet",
    ),
    "night-orin": Recipe(
        "one night on a Jetson Orin with 8 GB shared by processor and GPU",
        {"hours": 8.0, "size": 160, "batch": 64, "first_size": 96, "recompute": "always"},
        "not measured on such a board",
        "not measured",
    ),
    "workstation-gpu": Recipe(
        "an evening on a GPU with 16 GB or more of its own memory",
        {"hours": 3.0, "size": 160, "batch": 256, "first_size": 96, "recompute": "never"},
        "not measured on such a GPU",
        "not measured",
    ),
}


def described() -> str:
    """The recipes as lines for `--help`."""
    lines = []
    for name, recipe in RECIPES.items():
        options = " ".join(
            f"--{key.replace('_', '-')} {value:g}"
            if isinstance(value, float)
            else f"--{key.replace('_', '-')} {value}"
            for key, value in recipe.settings.items()
        )
        lines += [f"  {name:16} {recipe.purpose}:", f"  {'':16} {options}"]
        lines += [f"  {'':16} cost: {recipe.cost}", f"  {'':16} reached: {recipe.reached}"]
    return "\n".join(lines)


def settings_of(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """A recipe's settings, without its budget if another is given.

    Args:
        name: the recipe's.
        given: option values by name; None if omitted.
    """
    settings = dict(RECIPES[name].settings)
    if any(given.get(budget) is not None for budget in BUDGETS):
        settings = {key: value for key, value in settings.items() if key not in BUDGETS}
    return settings
