"""Everything that is written to be read again: backbones, ImageNet weights, encoders, training states.

An encoder on disk is the only thing that passes from pretraining to fine-tuning; see
:mod:`mri_transfer.checkpoints.encoders`. What a training starts from, `--init` and the arms of a comparison, is read by
:mod:`mri_transfer.checkpoints.initialisation` alone. Nothing that is loaded here can run code.
"""

EFFICIENTNET_LITE0 = "efficientnet_lite0"
DEFAULT_BACKBONE = EFFICIENTNET_LITE0
