"""`mri-transfer export --format training-graph`: the whole training step in a folder, to train on a board.

FOLDER/graph/        SavedModel: train_step, embed, and every variable that they change
FOLDER/runner.py     trains it, with slices.py, states.py, training.py; Python 3.6, TensorFlow and NumPy
FOLDER/graph.json    description, origin, SHA-256 of the graph's files; written last
FOLDER/README.txt    what to type on the board
FOLDER/state/        the trained state, once the runner has begun
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mri_transfer
from mri_transfer import progress
from mri_transfer.checkpoints.initialisation import Initialisation
from mri_transfer.errors import UserError
from mri_transfer.machine import device
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.graph.settings import as_options, settings_of
from mri_transfer.pretrain.methods import METHODS, SUBJECTS
from mri_transfer.pretrain.pairs.positives import mixture
from mri_transfer.pretrain.run.trainer import Trainer
from mri_transfer.storage.files import (
    atomic_write,
    claim_folder,
    fsync_folder,
    read_object,
    sha256,
    write_json,
)
from mri_transfer.storage.sums import write_sums

if TYPE_CHECKING:
    import tensorflow as tf

    from mri_transfer.export import ExportConfig

KIND = "training graph"
FORMAT = 1
CARD = "graph.json"
BOARD = Path(__file__).parent / "board"
SCRIPTS = ("runner.py", "slices.py", "states.py", "training.py")


def export_graph(config: ExportConfig) -> dict[str, Any]:
    """Write the folder.

    Returns:
        The summary: folder, bytes, description of the graph.

    Raises:
        UserError: `--for` is missing, a graph can't have these settings, the start doesn't exist, the folder holds
            something else or a graph with other settings, or the older TensorFlow lacks an operation.
    """
    from mri_transfer.checkpoints.older_tensorflow import TARGETS, make_loadable

    if config.for_ is None:
        raise UserError(
            f"--for is missing: which TensorFlow must load the graph? One of {', '.join(TARGETS)}; tf2.7 for JetPack "
            "4.6, tf2.12 for 5.1"
        )
    if device.prepare() != "tensorflow":
        raise UserError("--format training-graph: needs the TensorFlow backend; unset KERAS_BACKEND")
    version, out = TARGETS[config.for_], config.out
    settings, slices = settings_of(config)
    claim_folder(out, KIND)
    request = {
        "tensorflow": version,
        "slice_size": slices["size"],
        "config": as_options(settings),
        "init_sha256": Initialisation.read(settings.init, settings.backbone).card.get("weights_sha256"),
    }
    if (out / CARD).is_file():
        before = read_object(out / CARD)
        if all(before.get(key) == value for key, value in request.items()):
            progress.say(f"{out}: already exported; choose another --out for a new one")
            return _summary(out)
        raise UserError(f"{out}: holds a training graph with other settings; choose another --out")
    trainer, start = _trainer(settings)
    module = training_module(trainer, slices["size"])
    fresh = out / "graph.part"
    shutil.rmtree(fresh, ignore_errors=True)
    _save(module, fresh)
    make_loadable(fresh, version)
    shutil.rmtree(out / "graph", ignore_errors=True)
    fresh.replace(out / "graph")
    for name in SCRIPTS:
        _write(out / name, (BOARD / name).read_text(encoding="utf-8"))
    _write(out / "README.txt", _instructions(out, version))
    paths = [path for path in (out / "graph").rglob("*") if path.is_file()]
    card = {
        "format": FORMAT,
        "made_by": f"mri-transfer {mri_transfer.__version__}",
        **request,
        **described(trainer, start),
        "slices": slices,
        "versions": device.versions(),
        "files": {path.relative_to(out).as_posix(): sha256(path) for path in sorted(paths)},
    }
    write_json(out / CARD, card)
    write_sums(out)
    progress.say(
        f"{out}: copy it to the board with the slices, and there: python3 {out.name}/runner.py STORE --hours 8"
    )
    return _summary(out)


def _summary(out: Path) -> dict[str, Any]:
    keys = ("tensorflow", "method", "backbone", "size", "slice_size", "batch")
    card = read_object(out / CARD, dict.fromkeys(keys, object))
    size = sum(path.stat().st_size for path in (out / "graph").rglob("*") if path.is_file())
    return {"folder": str(out), "bytes": size, **{key: card[key] for key in keys}}


def _trainer(settings: PretrainConfig) -> tuple[Trainer, dict[str, Any]]:
    assert settings.backbone is not None
    assert settings.size is not None
    initialisation = Initialisation.read(settings.init, settings.backbone, seed=settings.seed)
    encoder, start = initialisation.load(settings.size, settings.imagenet_weights)
    trainer = Trainer(
        settings, settings.backbone, encoder, size=settings.size, micro_batch=settings.micro_batch
    )
    return trainer, start


def described(trainer: Trainer, start: dict[str, Any]) -> dict[str, Any]:
    """The training's entries in graph.json.

    Returns:
        Settings that the runner needs, "state" (name, shape and type of every variable, in the module's order) and
        "encoder" (the name there of each of the encoder's weights).
    """
    from mri_transfer.checkpoints.backbones import named_weights
    from mri_transfer.checkpoints.state import named_variables

    config = trainer.config
    variables = named_variables(trainer.method, trainer.optimizer)
    name_of = {id(variable): name for name, variable in variables.items()}
    return {
        "method": config.method,
        "backbone": trainer.backbone,
        "size": trainer.size,
        "batch": config.batch,
        "seed": config.seed,
        "positives": mixture(config.positives),
        "max_mm": config.max_mm,
        "negatives": METHODS[config.method].compares == SUBJECTS,
        "peak_rate": trainer.peak_rate,
        "warmup": config.warmup,
        "chance": trainer.method.chance(config.batch),
        "start": start,
        "state": [
            {"name": name, "shape": list(variable.shape), "dtype": str(variable.dtype)}
            for name, variable in variables.items()
        ],
        "encoder": {name: name_of[id(variable)] for name, variable in named_weights(trainer.encoder).items()},
    }


def training_module(trainer: Trainer, slice_size: int) -> tf.Module:
    """The training as a TensorFlow module, to be saved.

    Its functions are train_step(a, b: uint8 (batch, side, side), subject: int32 (batch,), rate, share: float32) → the
    loss before the step, and embed(images: uint8 (n, side, side)) → float32 (n, features). Its `state` lists all
    variables that change, including those of the optimizer and random generators.

    Args:
        trainer: to export.
        slice_size: side of slices, pixels.
    """
    import tensorflow as tf
    from keras import ops

    from mri_transfer.checkpoints.state import named_variables

    method, optimizer, encoder = trainer.method, trainer.optimizer, trainer.encoder
    batch, side, negatives = (
        trainer.config.batch,
        slice_size,
        METHODS[trainer.config.method].compares == SUBJECTS,
    )
    slices = tf.TensorSpec((batch, side, side), tf.uint8)
    number = tf.TensorSpec((), tf.float32)

    def train_step(a, b, subject, rate, share):
        pairs = {"a": a, "b": b, **({"subject": subject} if negatives else {})}
        method.set_progress(share)
        optimizer.learning_rate.assign(rate)
        with tf.GradientTape() as tape:
            outputs = method(pairs, training=True)
            loss = method.compute_loss(x=pairs, y_pred=outputs, training=True)
        weights = method.trainable_variables
        gradients = tape.gradient(loss, [weight.value for weight in weights])
        optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return loss

    def embed(images):
        x = ops.expand_dims(ops.cast(images, "float32"), -1)
        if side != trainer.size:
            x = ops.image.resize(x, (trainer.size, trainer.size), antialias=True, data_format="channels_last")
        return encoder(x, training=False)

    module = tf.Module()
    module.state = [variable.value for variable in named_variables(method, optimizer).values()]
    subject = tf.TensorSpec((batch,), tf.int32)
    module.train_step = tf.function(
        train_step, input_signature=(slices, slices, subject, number, number), autograph=False
    )
    module.embed = tf.function(
        embed, input_signature=(tf.TensorSpec((None, side, side), tf.uint8),), autograph=False
    )
    return module


def _save(module: tf.Module, folder: Path) -> None:
    import tensorflow as tf

    with device.writes(folder):
        tf.saved_model.save(module, str(folder))
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    fsync_folder(folder)


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text)


def _instructions(out: Path, version: str) -> str:
    return (BOARD / "README.txt").read_text(encoding="utf-8").format(folder=out.name, version=version)
