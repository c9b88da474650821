"""The machine this runs on: threads, memory, and the versions that go into every manifest."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from functools import cache

# Set before TensorFlow is first imported: its C++ side logs to the terminal and would tear the progress bar.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("ABSL_MIN_LOG_LEVEL", "3")


def cores() -> int:
    """Processor cores this process may use (a container or `taskset` may allow fewer than there are)."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


@cache
def prepare() -> str:
    """Import Keras with settings that suit a shared-memory board, once.

    On boards where processor and GPU share memory, TensorFlow would otherwise take all of it at the start.

    Returns:
        The name of the Keras backend, "tensorflow" or "jax".
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        for gpu in tf.config.list_physical_devices("GPU"):
            try:
                tf.config.experimental.set_memory_growth(gpu, True)
            except RuntimeError:
                pass  # TensorFlow has already started its devices: a host program chose for itself
    return backend


def versions() -> dict[str, str]:
    """Versions of Python and of every library whose numbers can differ between releases."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in ("mri-transfer", "tensorflow", "keras", "jax", "numpy", "nibabel", "scikit-image", "scikit-learn"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
