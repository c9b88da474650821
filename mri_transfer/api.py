"""Every command as a function, for notebooks and scripts.

    from mri_transfer import api

    summary = api.compare("tumors", out="report", arm=["random", "imagenet", "mri=runs/mri"])

Positional arguments and names are those of the command line, with `_` for `-`; what is left out has its default, and
`mri-transfer COMMAND --help` explains each. Paths may be text. A function returns the summary that the command writes
for programs, and raises :class:`mri_transfer.errors.UserError` for what the command would say in one line.
docs/python_api.md shows them at work, and the parts they are made of.
"""

from __future__ import annotations

import importlib
from concurrent.futures import Executor
from typing import Any

from mri_transfer.cli import COMMANDS
from mri_transfer.options import configure


def _run(command: str, arguments: tuple[Any, ...], options: dict[str, Any], **more: Any) -> dict[str, Any]:
    config, run = (
        getattr(importlib.import_module(module), name)
        for module, name in (each.split(":") for each in (COMMANDS[command].config, COMMANDS[command].run))
    )
    return run(configure(config, arguments, options), **more)


def doctor(**options: Any) -> dict[str, Any]:
    """Look at this machine: `api.doctor(seconds=0)`."""
    return _run("doctor", (), options)


def fetch(*source: str, **options: Any) -> dict[str, Any]:
    """Download public volumes or the tumour set: `api.fetch("openneuro", "ds000001", out="volumes")`."""
    return _run("fetch", source, options)


def slices(*paths: Any, executor: Executor | None = None, **options: Any) -> dict[str, Any]:
    """Cut volumes into a store of 2-D slices: `api.slices("volumes", out="store")`.

    `executor`, of `concurrent.futures`' kind, reads the volumes instead of processes that are started for it.
    """
    return _run("slices", (paths,), options, executor=executor)


def audit(folder: Any, **options: Any) -> dict[str, Any]:
    """Look for copies, neighbours and leaks in a tumour folder: `api.audit("tumors", out="audit")`."""
    return _run("audit", (folder,), options)


def pretrain(store: Any, **options: Any) -> dict[str, Any]:
    """Train an encoder without labels: `api.pretrain("store", out="runs/mri", hours=8)`."""
    return _run("pretrain", (store,), options)


def finetune(tumors: Any, **options: Any) -> dict[str, Any]:
    """Make a classifier of an encoder: `api.finetune("tumors", init="runs/mri", out="runs/classifier")`."""
    return _run("finetune", (tumors,), options)


def compare(tumors: Any, executor: Executor | None = None, **options: Any) -> dict[str, Any]:
    """Compare starts on the same folds: `api.compare("tumors", arm=["imagenet", "mri=runs/mri"], out="report")`.

    `executor`, of `concurrent.futures`' kind, does the trials instead of processes that are started for it.
    """
    return _run("compare", (tumors,), options, executor=executor)


def predict(run: Any, *images: Any, **options: Any) -> dict[str, Any]:
    """Class probabilities of images and volumes: `api.predict("runs/classifier", "scan.png")["images"]`."""
    return _run("predict", (run, images), options)


def verify(*paths: Any, **options: Any) -> dict[str, Any]:
    """See whether stores, runs and comparisons are still as they were written: `api.verify("store", "runs/mri")`."""
    return _run("verify", (paths,), options)


def encoders(**options: Any) -> dict[str, Any]:
    """The encoders that come with this program: `api.encoders()["encoders"][0]["name"]`."""
    return _run("encoders", (), options)


def export(*run: Any, **options: Any) -> dict[str, Any]:
    """Write a network for machines without this program: `api.export("runs/classifier", out="deploy")`."""
    return _run("export", run, options)


def import_graph(*source: Any, **options: Any) -> dict[str, Any]:
    """Take back what an exported training graph has learned; the options are those of `mri-transfer import-graph`."""
    return _run("import-graph", source, options)
