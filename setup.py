"""Which packages there are; everything else about them is in pyproject.toml.

`pretrain/`, `finetune/`, `datasets/` and `checkpoints/` are installed as `mri_transfer.pretrain` and so on: a bare
top-level `datasets` would overwrite Hugging Face's package in a shared environment. In a checkout, links in
`mri_transfer/` show editors and type checkers the same layout. Nothing here depends on them: an archive unpacked on
Windows has none.
"""

from setuptools import find_packages, setup

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
