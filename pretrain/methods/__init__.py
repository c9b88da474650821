"""The self-supervised methods, one file each, listed here by the name the command line uses.

A method is a :class:`keras.Model` that is built from an encoder and turns a batch of slice pairs into a loss; it
knows nothing of budgets, schedules or saving.
"""

from __future__ import annotations

from typing import Any

import keras

from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.methods.barlow_twins import BarlowTwins
from mri_transfer.pretrain.methods.byol import BYOL
from mri_transfer.pretrain.methods.dino import DINO
from mri_transfer.pretrain.methods.hybrid import Hybrid
from mri_transfer.pretrain.methods.masked import Masked
from mri_transfer.pretrain.methods.method import Method, Plan
from mri_transfer.pretrain.methods.moco import MoCo
from mri_transfer.pretrain.methods.simclr import SimCLR
from mri_transfer.pretrain.methods.simsiam import SimSiam
from mri_transfer.pretrain.methods.vicreg import VICReg

METHODS: dict[str, type[Method]] = {
    "simclr": SimCLR,
    "moco": MoCo,
    "byol": BYOL,
    "simsiam": SimSiam,
    "barlow_twins": BarlowTwins,
    "vicreg": VICReg,
    "dino": DINO,
    "masked": Masked,
    "hybrid": Hybrid,
}


def build_method(
    config: PretrainConfig, encoder: keras.Model, views: keras.layers.Layer, plan: Plan | None = None
) -> Method:
    """The method that `config` names, with those of its options that the user gave.

    Args:
        encoder, views, plan: as of :class:`~mri_transfer.pretrain.methods.method.Method`.

    Raises:
        UserError: the method can't work with this backbone.
    """
    options: dict[str, Any] = {}
    for name in ("temperature", "lesions", "label_weight"):
        if (value := getattr(config, name)) is not None:
            options[name] = value
    if config.decoupled:
        options["decoupled"] = True
    return METHODS[config.method](encoder, views, plan=plan, seed=config.seed, **options)
