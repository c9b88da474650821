"""Every command as a function, and its results as objects: for notebooks and scripts.

    from mri_transfer import api

    comparison = api.compare("tumors", out="report", arm=["random", "imagenet", "mri=runs/mri"])
    comparison.verdict, comparison.to_frame(), comparison.figures()["headline"]

Positional arguments and names are those of the command line, with `_` for `-` and the same defaults. Nothing is printed
to standard output; progress goes to standard error, and `quiet=True` silences it. Where a command would print a
one-line error, the function raises :class:`UserError` with that line. See docs/python_api.md for examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from mri_transfer import progress
from mri_transfer.api.loaded import Classifier, Encoder, load_classifier, load_encoder
from mri_transfer.api.own_arms import as_texts
from mri_transfer.api.results import (
    Audit,
    Comparison,
    Doctor,
    Encoders,
    Finetuned,
    Predictions,
    Pretraining,
    Result,
    Slices,
    Verified,
)
from mri_transfer.api.signatures import CALLBACKS, EXECUTOR, config_of, from_command
from mri_transfer.cli import COMMANDS, load
from mri_transfer.errors import UserError
from mri_transfer.options import configure
from mri_transfer.pretrain.methods import register as register_method
from mri_transfer.pretrain.run.callbacks import Callback
from mri_transfer.settings import settings_of as settings

__all__ = [
    "Audit",
    "Callback",
    "Classifier",
    "Comparison",
    "Doctor",
    "Encoder",
    "Encoders",
    "Finetuned",
    "Predictions",
    "Pretraining",
    "Result",
    "Slices",
    "UserError",
    "Verified",
    "audit",
    "compare",
    "doctor",
    "encoders",
    "export",
    "fetch",
    "finetune",
    "generate_labelled",
    "generate_volumes",
    "import_graph",
    "load_classifier",
    "load_encoder",
    "predict",
    "pretrain",
    "register_method",
    "settings",
    "slices",
    "verify",
]


# These import SciPy and nibabel, which a script that only trains doesn't need at once.
_ON_DEMAND = {
    "generate_labelled": "mri_transfer.datasets.synthetic.generate:write_tumors",
    "generate_volumes": "mri_transfer.datasets.synthetic.generate:write_volumes",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = load(_ON_DEMAND[name])
    return globals()[name]


def _run(
    command: str,
    kind: type,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    quiet: bool = False,
    **more: Any,
) -> Any:
    with progress.in_a_call(quiet):
        if options.get("arm") is not None and options.get("out") is not None:
            options = options | {"arm": as_texts(options["arm"], Path(options["out"]))}
        config = configure(config_of(command), arguments, options)
        summary = load(COMMANDS[command].run)(config, **more)
    return kind(summary, getattr(config, "out", None))


@from_command("doctor", returns=Doctor)
def doctor(*, quiet: bool = False, **options: Any) -> Doctor:
    """Check this machine: what it can handle, and what to fix.

    Examples
    --------
    >>> api.doctor(seconds=0)
    """
    return _run("doctor", Doctor, (), options, quiet)


@from_command("fetch", returns=Result)
def fetch(*source: Any, quiet: bool = False, **options: Any) -> Result:
    """Download public volumes or the tumour set.

    Examples
    --------
    >>> api.fetch("openneuro", "ds000001", out="volumes")
    """
    return _run("fetch", Result, source, options, quiet)


@from_command("slices", EXECUTOR, returns=Slices)
def slices(*paths: Any, executor: Executor | None = None, quiet: bool = False, **options: Any) -> Slices:
    """Cut volumes into a store of 2-D slices.

    Examples
    --------
    >>> api.slices("volumes", out="store")
    """
    return _run("slices", Slices, (paths,), options, quiet, executor=executor)


@from_command("audit", returns=Audit)
def audit(*folder: Any, quiet: bool = False, **options: Any) -> Audit:
    """Find copies, neighbours and leaks in a folder of labelled images.

    Examples
    --------
    >>> api.audit("tumors", out="audit")
    """
    return _run("audit", Audit, folder, options, quiet)


@from_command("pretrain", CALLBACKS, returns=Pretraining)
def pretrain(
    *store: Any, callbacks: Sequence[Callback] = (), quiet: bool = False, **options: Any
) -> Pretraining:
    """Train an encoder without labels. Call again to resume an interrupted run.

    Examples
    --------
    >>> api.pretrain("store", out="runs/mri", hours=8)
    """
    several = (callbacks,) if isinstance(callbacks, Callback) else tuple(callbacks)
    return _run("pretrain", Pretraining, store, options, quiet, callbacks=several)


@from_command("finetune", returns=Finetuned)
def finetune(*tumors: Any, quiet: bool = False, **options: Any) -> Finetuned:
    """Train a classifier from an encoder.

    Examples
    --------
    >>> api.finetune("tumors", init="runs/mri", out="runs/classifier")
    """
    return _run("finetune", Finetuned, tumors, options, quiet)


@from_command("compare", EXECUTOR, returns=Comparison)
def compare(
    *tumors: Any, executor: Executor | None = None, quiet: bool = False, **options: Any
) -> Comparison:
    """Compare starts on the same folds, with intervals and a report. Call again to resume.

    Examples
    --------
    >>> api.compare("tumors", arm={"imagenet": "imagenet", "mine": keras_model}, out="report")
    """
    return _run("compare", Comparison, tumors, options, quiet, executor=executor)


@from_command("predict", returns=Predictions)
def predict(*run_and_images: Any, quiet: bool = False, **options: Any) -> Predictions:
    """Class probabilities of image files and volumes; for pictures in memory use `load_classifier`.

    Examples
    --------
    >>> api.predict("runs/classifier", "scan.png").to_frame()
    """
    run = run_and_images[0] if run_and_images else options.pop("run", None)
    return _run("predict", Predictions, (run, run_and_images[1:]), options, quiet)


@from_command("verify", returns=Verified)
def verify(*paths: Any, quiet: bool = False, **options: Any) -> Verified:
    """Verify that stores, runs and comparisons are still as they were written.

    Examples
    --------
    >>> api.verify("store", "runs/mri")
    """
    return _run("verify", Verified, (paths,), options, quiet)


@from_command("encoders", returns=Encoders)
def encoders(*, quiet: bool = False, **options: Any) -> Encoders:
    """The encoders shipped with this program, with their cards.

    Examples
    --------
    >>> api.encoders()["encoders"]
    """
    return _run("encoders", Encoders, (), options, quiet)


@from_command("export", returns=Result)
def export(*run: Any, quiet: bool = False, **options: Any) -> Result:
    """Write a network for machines without this program.

    Examples
    --------
    >>> api.export("runs/classifier", format="litert", out="deploy")
    """
    return _run("export", Result, run, options, quiet)


@from_command("import-graph", returns=Result)
def import_graph(*folder: Any, quiet: bool = False, **options: Any) -> Result:
    """Import what an exported training graph has learned.

    Examples
    --------
    >>> api.import_graph("from-the-board", out="runs/board")
    """
    return _run("import-graph", Result, folder, options, quiet)
