"""Everything that is saved and loaded again: backbones, ImageNet weights, encoders, training states.

An encoder on disk is the only thing that passes from pretraining to fine-tuning; see
:mod:`mri_transfer.checkpoints.encoders`. Only :mod:`mri_transfer.checkpoints.initialisation` interprets what a training
starts from: `--init` and the arms of a comparison. Nothing loaded here can run code.
"""

import re

EFFICIENTNET_LITE0 = "efficientnet_lite0"
DEFAULT_BACKBONE = EFFICIENTNET_LITE0
_PART = re.compile(r"(.+)/(4|8|16)")


def network_of(backbone: str) -> str:
    """The whole network that a backbone is, or is the lower part of.

    >>> network_of("efficientnet_lite0/16"), network_of("efficientnet_lite0")
    ('efficientnet_lite0', 'efficientnet_lite0')
    """
    match = _PART.fullmatch(backbone)
    return match[1] if match else backbone
