"""What every self-supervised method has in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import keras
from keras import ops

# Turns a flat functional model into its training call: plain, or using less memory.
Plan = Callable[[keras.Model], Callable[[Any], Any]]


def plain(model: keras.Model) -> Callable[[Any], Any]:
    """The model itself in training mode."""
    return lambda x: model(x, training=True)


class Method(keras.Model):
    """Turns a batch of slice pairs into a loss; subclasses say how.

    A batch is {"a", "b": uint8 (pairs, size, size)}; it has "subject" int32 (pairs,) and the free labels of
    `pretrain/pairs/free_labels.py` if the method's entry in METHODS requires them. A subclass defines `call(batch,
    training)`, which makes views, encodes them and returns the loss's inputs, and `compute_loss`. Its constructor takes
    its own options by name and passes everything else on. It knows nothing about budgets, learning-rate schedules or
    saving. Its variables hold everything that changes during training.

    Args:
        encoder: flat functional model, (batch, height, width, 1) in 0..255 to (batch, features).
        views: layer that makes a random view of each uint8 slice.
        plan: how training calls the encoder, or any other flat model; see `pretrain/fit/memory_plan.py`.
        seed: for the heads' initial weights.
    """

    # Its name in reports.
    TITLE: ClassVar[str]
    # The model that turns the encoder's features into the embeddings that the loss compares; None if it compares none.
    # A collapse shows there first, so monitors look at it.
    head: Any = None

    def __init__(
        self,
        encoder: keras.Model,
        views: keras.layers.Layer,
        *,
        plan: Plan | None = None,
        seed: int = 0,
        **options: Any,
    ):
        # Applies to the method alone: encoder and heads keep their own policy, and losses are always float32.
        super().__init__(dtype="float32", **options)
        self.encoder, self.views, self.seed = encoder, views, seed
        self.plan: Plan = plan or plain

    @property
    def features(self) -> int:
        """Number of encoder features."""
        return self.encoder.output_shape[-1]

    def both_views(self, batch: dict[str, Any]) -> Any:
        """One view per slice: (2 * pairs, size, size, 1), those of "a" first."""
        return self.views(ops.concatenate([batch["a"], batch["b"]], axis=0))

    def set_progress(self, share: Any) -> None:
        """Called before every step with the share of the budget used, 0..1, for methods with their own schedules.

        Args:
            share: a number, or a scalar tensor inside a graph.
        """

    def chance(self, pairs: int) -> float | None:
        """The loss for embeddings independent of the input, or None where that is meaningless.

        Args:
            pairs: in a batch.
        """
        return None
