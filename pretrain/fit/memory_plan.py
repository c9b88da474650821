"""Fits a training step into memory: by recomputing early activations, by micro-batches, or neither.

Activations kept for the backward pass take nearly all of a step's memory. Two ways keep fewer, both with exact
derivatives of what they compute:

- *Recomputing* (:mod:`~mri_transfer.pretrain.fit.recompute`) stores a few early tensors and computes the rest twice.
  The numbers do not change, and memory halves.
- *Micro-batches* encode a few views at a time, keep only their features, and encode each again once its gradient is
  known. The loss still sees the whole batch: Gao, Zhang, Han & Callan, "Scaling Deep Contrastive Learning Batch Size
  under Memory Limited Setup", 2021, https://arxiv.org/abs/2101.06983. Memory no longer grows with the batch. Batch
  normalisation sees one micro-batch at a time, so the numbers differ a little; the run folder records the size used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from mri_transfer.pretrain.fit.recompute import activation_bytes, recomputing, without_side_effects
from mri_transfer.pretrain.methods.method import Plan

# Above this many bytes of stored activations `--recompute auto` recomputes them.
RECOMPUTE_ABOVE = 2e9
# For `step_bytes`: bytes of the program and of the micro-batch loop; fraction of activations held; float32 copies of
# views while they are made.
PROGRAM, MICRO_BATCHES = 0.95e9, 0.35e9
STORED, STORED_RECOMPUTING = 1.25, 0.58
VIEW_COPIES = 6


def recomputes(recompute: str, encoder: keras.Model, batch: int) -> bool:
    """Whether to recompute early activations: as set, or for "auto" if a batch of pairs would store too much."""
    return recompute == "always" or (
        recompute == "auto" and 2 * batch * activation_bytes(encoder) > RECOMPUTE_ABOVE
    )


def memory_plan(recompute: bool = False, micro_batch: int | None = None) -> Plan | None:
    """How training calls an encoder.

    Args:
        recompute: compute early activations twice; ignored with micro-batches, which recompute everything.
        micro_batch: pairs whose activations are held at a time, or None for the whole batch.

    Returns:
        A :data:`Plan`, or None for the plain call.
    """
    if micro_batch is not None:
        return lambda model: _in_micro_batches(model, 2 * micro_batch)
    return recomputing if recompute else None


def _in_micro_batches(model: keras.Model, micro_batch: int) -> Callable[[Any], Any]:
    """A training-mode call of `model` that holds the activations of at most `micro_batch` images at a time."""

    def encode(x: Any) -> Any:
        count = x.shape[0]
        if count is None:
            raise ValueError("micro-batches need a batch of known size")
        parts = next(n for n in range(-(-count // micro_batch), count + 1) if count % n == 0)
        if parts == 1:
            return model(x, training=True)
        chunks = ops.reshape(x, (parts, count // parts, *x.shape[1:]))
        if keras.backend.backend() == "tensorflow":
            run: Callable[..., Any] = functools.partial(_tensorflow_chunks, model.output.dtype)
        else:
            run = _remat_chunks
        y = without_side_effects(model, run, chunks)
        return ops.reshape(y, (count, *y.shape[2:]))

    return encode


def _remat_chunks(pure: Callable[..., Any], trainable: list, state: list, chunks: Any) -> tuple[Any, list]:
    """XLA orders operations to keep memory low; nothing to do."""
    outputs = []
    for i in range(chunks.shape[0]):
        y, state = keras.remat(pure)(trainable, state, chunks[i])
        outputs.append(y)
    return ops.stack(outputs), state


def _tensorflow_chunks(
    dtype: str, pure: Callable[..., Any], trainable: list, state: list, chunks: Any
) -> tuple[Any, list]:
    """TensorFlow runs whatever is ready, even all micro-batches at once, so loops run them one after another."""
    import tensorflow as tf

    parts = chunks.shape[0]

    def loop(body: Callable[..., Any], start: Any) -> Any:
        return tf.while_loop(
            lambda i, *_: i < parts, body, (0, *start), parallel_iterations=1, maximum_iterations=parts
        )[1:]

    # Only random generators affect a second computation; moving averages just record.
    generators = [i for i, value in enumerate(state) if not value.dtype.is_floating]

    @tf.custom_gradient
    def encode(*weights):
        def forward(i, state, records, outputs):
            records = [array.write(i, state[j]) for array, j in zip(records, generators, strict=True)]
            y, state = pure(list(weights), state, chunks[i])
            return i + 1, state, records, outputs.write(i, y)

        records = [tf.TensorArray(state[j].dtype, size=parts) for j in generators]
        outputs = tf.TensorArray(dtype, size=parts)
        after, records, outputs = loop(forward, (list(state), records, outputs))
        records = [array.stack() for array in records]

        def gradient(upstream, *_):
            def backward(i, total):
                old_state = list(state)
                for j, states in zip(generators, records, strict=True):
                    old_state[j] = states[i]
                with tf.GradientTape() as tape:
                    copies = [tf.identity(weight) for weight in weights]
                    tape.watch(copies)
                    y, _ = pure(copies, old_state, chunks[i])
                parts = tape.gradient(
                    y,
                    copies,
                    output_gradients=upstream[i],
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )
                return i + 1, [a + b for a, b in zip(total, parts, strict=True)]

            return loop(backward, ([tf.zeros_like(weight) for weight in weights],))[0]

        return (outputs.stack(), *after), gradient

    y, *after = encode(*trainable)
    return y, after


def step_bytes(encoder: keras.Model, batch: int, *, recompute: bool, micro_batch: int | None) -> int:
    """Expected peak memory of a training process, in bytes, everything included.

    The constants were fitted to measurements of the default backbone on TensorFlow on a CPU, at 128 and 160 px and 8 to
    64 pairs at once (1.8 to 5.3 GB), which vary by 10% from run to run; other backbones may differ.

    Args:
        encoder: flat functional model at the views' size.
        batch: pairs in a step.
        recompute, micro_batch: as in :func:`memory_plan`.
    """
    pairs, stored, program = batch, STORED, PROGRAM
    if micro_batch is not None and micro_batch < batch:
        pairs = micro_batch
        # The loop's overhead is small if the rest is.
        program += min(MICRO_BATCHES, 0.2 * 2 * batch * STORED * activation_bytes(encoder))
    elif recompute:
        stored = STORED_RECOMPUTING
    views_made = 2 * batch * 4 * encoder.input_shape[1] ** 2 * VIEW_COPIES
    # Weights, their gradients and two moments of AdamW.
    weights = 4 * 4 * encoder.count_params()
    return round(program + weights + views_made + 2 * pairs * stored * activation_bytes(encoder))
