"""ONNX: for ONNX Runtime and TensorRT. Two files, as JetPack 4.6's TensorRT 8.2 only reads opsets up to 13.

Source: https://docs.nvidia.com/deeplearning/tensorrt/archives/tensorrt-821/support-matrix; TensorRT 10 reads more.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mri_transfer.errors import UserError
from mri_transfer.finetune.export.served import IMAGES, Runner, Served
from mri_transfer.storage.files import atomic_write

OPSETS = {13: "TensorRT 8.2 (JetPack 4.6)", 17: "TensorRT 10 (JetPack 6)"}
INSTALL = "pip install 'mri-transfer[export]'"


def name(opset: int) -> str:
    """Of the file."""
    return f"model-opset{opset}.onnx"


def write(model: Served, folder: Path, opset: int) -> Path:
    """Write the file, for any number of images.

    Raises:
        UserError: tf2onnx is not installed.
    """
    try:
        import tf2onnx
    except ImportError:
        raise UserError(f"--format onnx needs tf2onnx: {INSTALL}") from None
    import tensorflow as tf

    function = tf.function(
        lambda images: tf.identity(model.function(images), name=model.output),
        input_signature=[model.signature(None)],
    )
    proto, _ = tf2onnx.convert.from_function(function, input_signature=[model.signature(None)], opset=opset)
    proto.graph.output[0].name, before = model.output, proto.graph.output[0].name
    for node in proto.graph.node:
        for names in (node.input, node.output):
            for place, input_name in enumerate(names):
                if input_name == before:
                    names[place] = model.output
    for key, value in (("classes", json.dumps(model.classes)), ("weights_sha256", model.weights)):
        proto.metadata_props.add(key=key, value=value)
    path = folder / name(opset)
    with atomic_write(path, "wb") as file:
        file.write(proto.SerializeToString())
    return path


def trtexec(path: Path, size: int) -> str:
    """The command that builds an engine from it on the board."""
    shape = f"{IMAGES}:1x{size}x{size}x1"
    return f"trtexec --onnx={path.name} --saveEngine={path.stem}.plan --fp16 --shapes={shape}"


def load(path: Path, threads: int | None = None) -> Runner:
    """The model in ONNX Runtime.

    Raises:
        UserError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"--format onnx is checked with onnxruntime: {INSTALL}") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: np.ndarray) -> np.ndarray:
        return session.run(None, {IMAGES: images[..., None].astype(np.float32)})[0]

    return run
