"""Everything that is written to be read again: backbones, ImageNet weights, encoders, training states.

An encoder on disk is the only thing that passes from pretraining to fine-tuning; see
:mod:`mri_transfer.checkpoints.encoders`. Nothing that is loaded here can run code.
"""
