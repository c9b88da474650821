"""Everything that is saved and loaded again: backbones, ImageNet weights, encoders, training states.

An encoder on disk is the only thing that passes from pretraining to fine-tuning; see
:mod:`mri_transfer.checkpoints.encoders`. Only :mod:`mri_transfer.checkpoints.initialisation` interprets what a training
starts from: `--init` and the arms of a comparison. Nothing loaded here can run code.
"""

EFFICIENTNET_LITE0 = "efficientnet_lite0"
DEFAULT_BACKBONE = EFFICIENTNET_LITE0
