"""This machine: threads, memory, and the versions recorded in every manifest."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from mri_transfer import __version__
from mri_transfer.errors import UserError
from mri_transfer.machine import interrupts, memory

# Set before TensorFlow is first imported: its C++ side logs to the terminal and would tear the progress bar.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("ABSL_MIN_LOG_LEVEL", "3")


def cores() -> int:
    """CPU cores available to this process (a container or `taskset` may allow fewer than exist)."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


@contextlib.contextmanager
def _c_messages_held_back() -> Iterator[None]:
    """Silence TensorFlow's C++ side, which prints to the terminal on import at any log level.

    If the import fails, its output is shown after all.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    # In memory if possible, since a full /tmp must not keep a run from starting.
    held_back = os.fdopen(os.memfd_create("messages"), "w+b") if hasattr(os, "memfd_create") else None
    with held_back or tempfile.TemporaryFile() as messages:
        os.dup2(messages.fileno(), 2)
        try:
            yield
        except BaseException:
            messages.seek(0)
            os.write(terminal, messages.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


_memory_limit: float | None = None


def limit_memory(limit: float | None) -> None:
    """Limit the bytes that :func:`prepare` lets a GPU sharing the system's memory take; None for the default.

    Call it before anything imports Keras.
    """
    global _memory_limit
    _memory_limit = limit


def _shared_memory_limit() -> float | None:
    """Bytes a GPU may take of memory shared with the CPU; None if it has its own."""
    if not memory.is_shared_with_gpu():
        return None
    limit = memory.default_limit() if _memory_limit is None else _memory_limit
    return None if limit is None else max(limit - memory.PROCESS_BYTES, limit / 4)


def _name_a_temporary_folder() -> None:
    """Keras can't be imported if no temporary folder has room, though it only needs a folder's name."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = "/dev/shm" if Path("/dev/shm").is_dir() else os.sep


@cache
def prepare() -> str:
    """Import Keras once, with settings that suit a shared-memory board.

    GPU memory is allocated as needed. On boards where CPU and GPU share memory, a limit also leaves room for the
    system, since TensorFlow would otherwise allocate until the kernel kills something.

    Returns:
        The name of the Keras backend, "tensorflow" or "jax".
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    limit, total = _shared_memory_limit(), memory.total_bytes()
    if limit is not None and total:
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{limit / total:.3f}")
        # Without this, a device with a limit allocates all of it at the start.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    _name_a_temporary_folder()
    # An interrupt during these imports surfaces as an arbitrary error from their C++ side.
    with interrupts.held_back(), _c_messages_held_back():
        import keras

        backend = keras.backend.backend()
        if backend == "tensorflow":
            import tensorflow as tf

            tf.get_logger().setLevel("ERROR")
            for gpu in tf.config.list_physical_devices("GPU"):
                # If TensorFlow has already initialised its devices, a host program has chosen its own settings.
                with contextlib.suppress(RuntimeError):
                    if limit is None:
                        tf.config.experimental.set_memory_growth(gpu, True)
                    else:
                        mib = int(limit / 2**20)
                        device = tf.config.LogicalDeviceConfiguration(memory_limit=mib)
                        tf.config.set_logical_device_configuration(gpu, [device])
        else:
            import jax

            # The default from 0.5 on: random numbers that don't depend on how many devices draw them.
            jax.config.update("jax_threefry_partitionable", True)
    return backend


def has_gpu() -> bool:
    """Whether Keras computes on a GPU here."""
    if prepare() == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    import jax

    return jax.default_backend() != "cpu"


def tensorflow_gpus() -> int:
    """How many GPUs TensorFlow sees."""
    import tensorflow as tf

    return len(tf.config.get_visible_devices("GPU"))


def jit_compile() -> bool | str:
    """Value for Keras's `jit_compile`: XLA makes TensorFlow on a CPU about ten times slower, as measured."""
    return "auto" if prepare() != "tensorflow" or has_gpu() else False


def versions() -> dict[str, str]:
    """Versions of Python and of every library whose results can differ between releases."""
    installed = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "mri-transfer": __version__,
    }
    for name in (
        "tensorflow",
        "keras",
        "jax",
        "numpy",
        "nibabel",
        "scikit-image",
        "scikit-learn",
    ):
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


@contextlib.contextmanager
def writes(folder: Path) -> Iterator[None]:
    """Wraps TensorFlow's writes to a folder: its errors are not OSErrors.

    Raises:
        OSError: the disk is full; UserError: writing failed for another reason.
    """
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        if os.strerror(errno.ENOSPC) in error.message:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from None
        raise UserError(f"{folder}: can't be written ({' '.join(error.message.split())[:200]})") from None
