"""Rows of a batch on each of several TensorFlow devices that do one step together (`tf.distribute.MirroredStrategy`).

TensorFlow traces a step once for each device, and the copies talk to one another only where they are told to. These
functions tell them. Where there is nobody to talk to (one device, JAX, a model that is called outside of a step) they
give back what they got.

What all rows mean to a loss is computed by every device for itself, from the same numbers; so the loss counts as many
times as there are devices, and is to be divided by their number before gradients are taken, which then add up.
"""

from __future__ import annotations

from typing import Any


def in_scope() -> int:
    """How many devices get what is made now: those of the scope that is entered, or 1."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def count() -> int:
    """How many devices do the present step together; 1 outside of one."""
    return 1 if (context := _context()) is None else context.num_replicas_in_sync


def own_rows(x: Any) -> Any:
    """The rows of `x` (rows, ...) that are this device's: an equal share of them, in order.

    Args:
        x: the same on every device; as many rows as a multiple of the devices.
    """
    context = _context()
    if context is None:
        return x
    import tensorflow as tf

    devices, shape = context.num_replicas_in_sync, x.shape
    shared = tf.reshape(x, (devices, shape[0] // devices, *shape[1:]))
    return tf.gather(shared, context.replica_id_in_sync_group)  # a slice would forget how many rows there are


def all_rows(x: Any) -> Any:
    """The rows of all devices (devices * rows, ...), in order, on each of them.

    A gradient with respect to `x` holds what all devices make of these rows. Spelled as a sum of what is zero
    elsewhere, which is exact: TensorFlow's `all_gather` exchanges lengths first, and forgets how many rows there are.

    Args:
        x: this device's rows (rows, ...), floating; as many on every device.
    """
    context = _context()
    if context is None:
        return x
    import tensorflow as tf

    devices, place = context.num_replicas_in_sync, context.replica_id_in_sync_group
    before = tf.reshape(tf.cast(place, tf.int32), (1, 1))
    around = tf.concat([before, devices - 1 - before], axis=1)
    # Not every version adds up bfloat16; in float32 nothing is lost.
    mine = tf.pad(tf.cast(x, tf.float32)[None], tf.pad(around, [[0, len(x.shape)], [0, 0]]))
    mine = tf.reshape(mine, (devices * x.shape[0], *x.shape[1:]))
    return tf.cast(context.all_reduce(tf.distribute.ReduceOp.SUM, mine), x.dtype)


def _context() -> Any:
    """Of a device that does a step together with others, or None."""
    if in_scope() == 1:
        return None
    import tensorflow as tf

    return tf.distribute.get_replica_context()  # None in the scope alone, where models are made
