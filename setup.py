"""Which packages there are; everything else about them is in pyproject.toml.

`pretrain/`, `finetune/`, `datasets/` and `checkpoints/` are installed as `mri_transfer.pretrain` and so on: a bare
top-level `datasets` would overwrite Hugging Face's package in a shared environment. In a checkout, links in
`mri_transfer/` show editors and type checkers the same layout. Nothing here depends on them: an archive unpacked on
Windows has none.
"""

import sys

from setuptools import find_packages, setup

# Without this pip downloads TensorFlow first, and then says less. Kept to what Python 3.6 can read.
if sys.version_info < (3, 10):
    sys.exit("mri-transfer needs Python 3.10 to 3.13, and this is %d.%d" % sys.version_info[:2])

STAGES = ("datasets", "checkpoints", "pretrain", "finetune")
linked = [name for stage in STAGES for name in (f"mri_transfer.{stage}", f"mri_transfer.{stage}.*")]

setup(
    packages=[
        *find_packages(include=["mri_transfer", "mri_transfer.*"], exclude=linked),
        *(
            f"mri_transfer.{name}"
            for name in find_packages(
                include=[pattern for stage in STAGES for pattern in (stage, f"{stage}.*")]
            )
        ),
    ],
    package_dir={f"mri_transfer.{stage}": stage for stage in STAGES},
)
