"""Is an encoder pretrained on unlabeled MRI a better start than ImageNet for a brain-tumour classifier?

The stages are subpackages: :mod:`mri_transfer.datasets`, :mod:`mri_transfer.pretrain`,
:mod:`mri_transfer.finetune` and :mod:`mri_transfer.checkpoints`. The command line is ``mri-transfer``.
"""

__version__ = "0.2.0"
