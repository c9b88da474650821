"""LiteRT (TensorFlow Lite): one flat file for phones, single-board computers and old Jetsons."""

from __future__ import annotations

import csv
import dataclasses
import functools
import math
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer.finetune.export import saved_model
from mri_transfer.finetune.export.served import Runner, Served
from mri_transfer.storage.files import atomic_write

NAME, NAME_INT8 = "model.tflite", "model-int8.tflite"
# Operations that stay float32 beside 8-bit convolutions at almost no cost: residual sums, the mean over the last maps,
# standardisation, the linear head. A feature varies between images by less than an 8-bit step of its range.
IN_FLOAT = ("ADD", "MEAN", "SUB", "DIV", "MUL", "FULLY_CONNECTED", "SOFTMAX")
# So do the first convolutions, with this share of the weights: rounding the very first depthwise one's changes slices'
# features as much as rounding all others together (README of benchmarks/).
LEADING_SHARE = 0.02
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def write(model: Served, folder: Path) -> Path:
    """Write the file, for one image at a time."""
    return _write(folder / NAME, _converted(model, folder, None))


def write_int8(model: Served, folder: Path, calibration: np.ndarray) -> Path:
    """Write it with the convolutions' weights and activations, except the first few, as 8-bit integers.

    Ranges come from the calibration images (post-training quantisation: Jacob et al. 2018, arXiv:1712.05877). The
    quantised encoder's mean error of each feature over these images is subtracted before the head (bias correction:
    Nagel et al. 2019, arXiv:1906.04721).

    Args:
        model: to export.
        folder: existing.
        calibration: uint8 (n, size, size).
    """
    encoder = model.features_only()
    rough = _write(folder / NAME_INT8, _converted(encoder, folder, calibration))
    shift = (load(rough)(calibration) - encoder(calibration)).mean(axis=0)
    corrected = dataclasses.replace(model, shift=shift.astype(np.float32))
    return _write(folder / NAME_INT8, _converted(corrected, folder, calibration))


def _write(path: Path, content: bytes) -> Path:
    with atomic_write(path, "wb") as file:
        file.write(content)
    return path


def _converted(model: Served, folder: Path, calibration: np.ndarray | None) -> bytes:
    """Via a SavedModel in `folder`, whose variables the converter turns into constants."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory(dir=folder) as inside:
        saved = saved_model.write(model, Path(inside), batch=1)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=["serving_default"])
        if calibration is None:
            return converter.convert()
        converter.optimizations = [tf.lite.Optimize.DEFAULT]

        def examples(count: int | None = None) -> Iterator[list[np.ndarray]]:
            return ([image[None, ..., None].astype(np.float32)] for image in calibration[:count])

        converter.representative_dataset = examples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=list(IN_FLOAT))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it deprecates an interpreter that it uses itself
            debugger = tf.lite.experimental.QuantizationDebugger(
                converter=converter,
                debug_dataset=functools.partial(examples, 1),
                debug_options=options,
            )
            debugger.run()  # names the operations in order
            options.denylisted_nodes = _leading(debugger, model.parts[0])
            debugger.options = options
            return debugger.get_nondebug_quantized_model()


def _leading(debugger: Any, encoder: Any) -> list[str]:
    """Output names of the first convolutions."""
    kernels = [math.prod(weight.shape) for weight in encoder.weights if len(weight.shape) == 4]
    count = int((np.cumsum(kernels) <= LEADING_SHARE * sum(kernels)).sum())
    with tempfile.TemporaryFile("w+") as table:
        debugger.layer_statistics_dump(table)
        table.seek(0)
        rows = [row for row in csv.DictReader(table) if row["op_name"] in CONVOLUTIONS]
    rows.sort(key=lambda row: int(row["tensor_idx"]))
    return [row["tensor_name"] for row in rows[:count]]


def interpreter(path: Path, threads: int | None = None):
    """LiteRT's interpreter, or TensorFlow's if that is not installed."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        import tensorflow as tf

        Interpreter = tf.lite.Interpreter
    runtime = Interpreter(model_path=str(path), num_threads=threads)
    runtime.allocate_tensors()
    return runtime


def load(path: Path, threads: int | None = None) -> Runner:
    """The model in an interpreter."""
    runtime = interpreter(path, threads)
    (entry,), (result,) = runtime.get_input_details(), runtime.get_output_details()

    def run(images: np.ndarray) -> np.ndarray:
        outputs = []
        for image in images:
            runtime.set_tensor(entry["index"], image[None, ..., None].astype(entry["dtype"]))
            runtime.invoke()
            outputs.append(runtime.get_tensor(result["index"])[0])
        return np.stack(outputs)

    return run
