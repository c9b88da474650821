"""LiteRT (TensorFlow Lite): one flat file for phones, single-board computers and old Jetsons."""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from pathlib import Path

import numpy as np

from mri_transfer.files import atomic_write
from mri_transfer.finetune.export import saved_model
from mri_transfer.finetune.export.served import Runner, Served

NAME, NAME_INT8 = "model.tflite", "model-int8.tflite"
# What stays in float32 beside 8-bit convolutions: the mean over the last maps, standardisation, the linear head. A
# feature differs from image to image by less than a step of eight bits over its range; all of it costs next to nothing.
IN_FLOAT = ("MEAN", "SUB", "DIV", "MUL", "FULLY_CONNECTED", "SOFTMAX")


def write(model: Served, folder: Path) -> Path:
    """Write the file; it takes one image at a time."""
    return _write(folder / NAME, _converted(model, folder, None))


def write_int8(model: Served, folder: Path, calibration: np.ndarray) -> Path:
    """Write it with weights and activations of its convolutions as 8-bit integers.

    Ranges are those that the calibration images give (post-training quantisation: Jacob et al. 2018, arXiv:1712.05877).
    What the quantised encoder gives too much or too little of each feature, on average over these images, is taken off
    before the head (bias correction: Nagel et al. 2019, arXiv:1906.04721).

    Args:
        model: to export.
        folder: that exists.
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
    """By way of a SavedModel in `folder`, from which the converter takes variables as constants."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory(dir=folder) as inside:
        saved = saved_model.write(model, Path(inside), batch=1)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=["serving_default"])
        if calibration is None:
            return converter.convert()
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            [image[None, ..., None].astype(np.float32)] for image in calibration
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it announces the end of an interpreter that it uses itself
            debugger = tf.lite.experimental.QuantizationDebugger(
                converter=converter,
                debug_dataset=converter.representative_dataset,
                debug_options=tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=list(IN_FLOAT)),
            )
            return debugger.get_nondebug_quantized_model()


def interpreter(path: Path, threads: int | None = None):
    """LiteRT's interpreter, or TensorFlow's own where that is not installed."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        import tensorflow as tf

        Interpreter = tf.lite.Interpreter
    made = Interpreter(model_path=str(path), num_threads=threads)
    made.allocate_tensors()
    return made


def load(path: Path, threads: int | None = None) -> Runner:
    """The model in an interpreter."""
    made = interpreter(path, threads)
    (entry,), (result,) = made.get_input_details(), made.get_output_details()

    def run(images: np.ndarray) -> np.ndarray:
        found = []
        for image in images:
            made.set_tensor(entry["index"], image[None, ..., None].astype(entry["dtype"]))
            made.invoke()
            found.append(made.get_tensor(result["index"])[0])
        return np.stack(found)

    return run
