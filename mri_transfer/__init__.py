"""Is an encoder pretrained on unlabeled MRI a better start than ImageNet for a brain-tumour classifier?

The stages are subpackages: :mod:`mri_transfer.datasets`, :mod:`mri_transfer.pretrain`,
:mod:`mri_transfer.finetune` and :mod:`mri_transfer.checkpoints`. The command line is ``mri-transfer``.
"""

from pathlib import Path

__version__ = "0.1.0"

# In a checkout the stages lie beside this folder, not inside it. Extending the package's search path makes
# `python -m mri_transfer` work from inside a checkout, whatever is installed; in site-packages there is no
# pyproject.toml one level up, and nothing is added.
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file() and (_checkout / "datasets" / "__init__.py").is_file():
    __path__.append(str(_checkout))
