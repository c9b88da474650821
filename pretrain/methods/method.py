"""What every self-supervised method has in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import keras
from keras import ops

# Turns a flat functional model into how training calls it: plainly, or so that it needs less memory.
Plan = Callable[[keras.Model], Callable[[Any], Any]]


def plain(model: keras.Model) -> Callable[[Any], Any]:
    """The model itself in training mode."""
    return lambda x: model(x, training=True)


class Method(keras.Model):
    """Turns a batch of slice pairs into a loss; subclasses say how.

    A batch is {"a", "b": uint8 (pairs, size, size)}; it has "subject" int32 (pairs,) and the free labels of
    `pretrain/pairs/free_labels.py` where the method's entry in METHODS says that it needs them. A subclass defines
    `call(batch, training)`, which makes views, encodes them and gives what the loss needs, and `compute_loss`. Its
    constructor takes its own options by name and passes everything else on. It knows nothing of budgets, schedules of
    the learning rate, or saving. All that changes while it trains is in its variables.

    Args:
        encoder: flat functional model, (batch, height, width, 1) in 0..255 to (batch, features).
        views: layer that makes a random view of each uint8 slice.
        plan: how training calls the encoder, or any other flat model; see `pretrain/fit/memory_plan.py`.
        seed: of the initial weights of heads.
    """

    # Its name in reports.
    TITLE: ClassVar[str]
    # The model that makes of the encoder's features the embeddings that the loss compares; None where it compares none.
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
        # Of the method alone: encoder and heads keep their own policy, and losses are always taken in float32.
        super().__init__(dtype="float32", **options)
        self.encoder, self.views, self.seed = encoder, views, seed
        self.plan: Plan = plan or plain

    @property
    def features(self) -> int:
        """How many the encoder gives."""
        return self.encoder.output_shape[-1]

    def both_views(self, batch: dict[str, Any]) -> Any:
        """One view of every slice: (2 * pairs, size, size, 1), those of "a" first."""
        return self.views(ops.concatenate([batch["a"], batch["b"]], axis=0))

    def set_progress(self, share: Any) -> None:
        """Told before every step how much of the budget is used, 0..1; methods with schedules of their own need it.

        Args:
            share: a number, or a scalar tensor where it is part of a graph.
        """

    def chance(self, pairs: int) -> float | None:
        """The loss for embeddings that know nothing of their input, or None where that says nothing.

        Args:
            pairs: in a batch.
        """
        return None
