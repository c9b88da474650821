"""`mri-transfer export`: networks for machines that can't run this program."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

from mri_transfer.checkpoints.initialisation import PUBLISHED
from mri_transfer.errors import UserError
from mri_transfer.options import argument, option, same_as
from mri_transfer.pretrain.config import PretrainConfig

GRAPH = "training-graph"
# Names that --help needs without TensorFlow: finetune/export/conversion.py has the formats' own, and
# checkpoints/older_tensorflow.py the targets'.
FORMATS = (GRAPH, "saved_model", "litert", "onnx", "keras", "safetensors")
ALIASES = {"tflite": "litert", "tf_lite": "litert", "tensorflow": "saved_model", "tensorrt": "onnx"}
TARGETS = ("tf2.6", "tf2.7", "tf2.12")


def _as_for_pretrain(name: str, otherwise: str = "", *, of_run: bool = True, default: Any = None) -> Any:
    """The option of `pretrain` with this name.

    Args:
        name: the field of PretrainConfig.
        otherwise: its value if left out, in words; empty means the same as for `pretrain`.
        of_run: whether it is inherited from a RUN, if there is one.
        default: the field's default here, marking it as left out.
    """
    field = PretrainConfig.__dataclass_fields__[name]
    text, _, default_text = field.metadata["help"].partition(" (default: ")
    otherwise = (
        otherwise
        or default_text.removesuffix(")")
        or ("" if field.default in (None, ()) else str(field.default))
    )
    if default is None and otherwise:
        text += f" (default: {'as in RUN, else ' if of_run else ''}{otherwise})"
    text = text.replace("listed below", "listed by `pretrain --help`")
    return same_as(PretrainConfig, name, default=default, help=text, of_run=of_run)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to export, and how. Options that are None take the run's value, or `pretrain`'s default."""

    EXAMPLE: ClassVar[str] = """\
saved_model, litert, onnx: a classifier of `finetune`, or the encoder of `pretrain`, for another runtime. The result is
loaded back, and kept only if it gives Keras's answers for the images:

  mri-transfer export runs/classifier --format onnx --out exported
  mri-transfer export runs/classifier --format litert --int8 --out exported --images scans/

keras, safetensors: an encoder for other people's programs, such as one that comes with this program:

  mri-transfer export mri --format safetensors --out exported

training-graph: boards that end at TensorFlow 2.7 (JetPack 4.6: TX2, Nano, Xavier) or 2.12 (JetPack 5.1) can't run
this program, but they can train a graph that it made. Here:

  mri-transfer slices VOLUMES --out store --size 96
  mri-transfer export --format training-graph --for tf2.7 --out night --store store --init imagenet --batch 32

Copy the folders night/ and store/ to the board, and there, with nothing but NVIDIA's TensorFlow:

  python3 night/runner.py store --hours 8

In the morning copy night/ back, and make an ordinary run of it:

  mri-transfer import-graph night --out runs/mri
  mri-transfer compare TUMORS --arm imagenet --arm mri=runs/mri --out report

A RUN supplies its settings, and the training continues from its encoder. The options from --method on are those of
`mri-transfer pretrain`; on a board there are no positives of other sequences.
"""

    HEADINGS: ClassVar[dict[str, str]] = {
        "trained networks (saved_model, litert, onnx)": "int8 images",
        "training graphs": "for_ store method backbone init imagenet_weights positives max_mm batch size strength view "
        "learning_rate weight_decay warmup temperature decoupled recompute micro_batch seed",
    }

    run: Path | None = argument(
        metavar="RUN",
        help="a run of `mri-transfer finetune` or `pretrain`, or the name of an encoder that comes with this program; "
        "optional for a training graph",
        default=None,
    )
    format: str = option(
        help="training-graph: a folder with which a board without Keras 3 pretrains; saved_model, litert, onnx: a "
        "trained network for other runtimes; keras, safetensors: an encoder, without a head",
        choices=FORMATS,
        aliases=ALIASES,
    )
    out: Path = option(help="folder to write", metavar="DIR")
    int8: bool = option(False, help="litert: quantise to 8-bit integers, calibrated on the images")
    images: tuple[Path, ...] = option(
        (),
        help="saved_model, litert, onnx: images or volumes to compare the export on (default: those that RUN was "
        "trained on); may be repeated",
        metavar="PATH",
        repeat=True,
    )
    for_: str | None = option(
        None,
        help="training-graph: the TensorFlow that must load it; tf2.7 for JetPack 4.6, tf2.12 for 5.1. Newer ones "
        "load it as well",
        choices=TARGETS,
    )
    store: Path | None = option(
        None,
        help="training-graph: slice store that it will be trained on, since a graph takes slices of one size "
        "(default: that of RUN, else one of --size)",
        metavar="STORE",
    )
    method: str | None = _as_for_pretrain("method")
    backbone: str | None = _as_for_pretrain("backbone")
    init: str | None = _as_for_pretrain("init")
    imagenet_weights: Path | None = _as_for_pretrain("imagenet_weights", of_run=False)
    positives: str | None = _as_for_pretrain("positives")
    max_mm: float | None = _as_for_pretrain("max_mm")
    batch: int | None = _as_for_pretrain("batch")
    size: int | None = _as_for_pretrain("size")
    strength: float | None = _as_for_pretrain("strength")
    view: tuple[str, ...] = _as_for_pretrain("view", default=())
    learning_rate: float | None = _as_for_pretrain("learning_rate", of_run=False)
    weight_decay: float | None = _as_for_pretrain("weight_decay")
    warmup: float | None = _as_for_pretrain("warmup")
    temperature: float | None = _as_for_pretrain("temperature")
    recompute: str | None = _as_for_pretrain("recompute", of_run=False)
    decoupled: bool = _as_for_pretrain("decoupled", default=False)
    micro_batch: int | None = _as_for_pretrain("micro_batch", "all of a batch", of_run=False)
    seed: int | None = _as_for_pretrain("seed")

    @property
    def pretrain_options(self) -> dict[str, Any]:
        """The options of `pretrain` that were given, by name."""
        names = {field.name for field in dataclasses.fields(PretrainConfig)} - {"out", "store"}
        values = {name: value for name, value in vars(self).items() if name in names}
        return {name: value for name, value in values.items() if not (value in (None, ()) or value is False)}


def export(config: ExportConfig) -> dict[str, Any]:
    """Export in the format `config.format`.

    Returns:
        The summary of the format.

    Raises:
        UserError: options that don't belong to the format, an --out that isn't UTF-8, or any error of the format's own
            function.
    """
    try:
        str(config.out).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{config.out}: TensorFlow writes to no name that isn't UTF-8; choose another --out"
        ) from None
    if config.format == GRAPH:
        _refuse({"int8": config.int8, "images": config.images}, f"--format {GRAPH} has no such option")
        from mri_transfer.pretrain.graph.exporting import export_graph

        return export_graph(config)
    _refuse(
        {"for": config.for_, "store": config.store, **config.pretrain_options},
        f"goes with --format {GRAPH} only",
    )
    if config.run is None:
        raise UserError(f"--format {config.format}: name the RUN to export")
    run = config.run if config.run.exists() else PUBLISHED.get(str(config.run), config.run)
    from mri_transfer.finetune.export.conversion import export_run

    return export_run(run, config.out, format=config.format, int8=config.int8, images=config.images)


def _refuse(options: dict[str, Any], why: str) -> None:
    for name, value in options.items():
        if value:
            raise UserError(f"--{name.replace('_', '-')}: {why}; leave it out")
