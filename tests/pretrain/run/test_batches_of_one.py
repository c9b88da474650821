"""With one pair a step, some methods have nothing to compare."""

import pytest

from mri_transfer.errors import UserError
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.methods import METHODS

COMPARING = ("simclr", "moco", "barlow_twins", "vicreg", "hybrid")


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_of_one_is_refused_where_pairs_are_compared(method, tmp_path):
    def config(batch):
        return PretrainConfig(store=tmp_path, out=tmp_path / "run", method=method, batch=batch)

    assert config(2).batch == 2
    if method not in COMPARING:
        assert config(1).batch == 1
        return
    with pytest.raises(UserError, match=rf"--batch 1: --method {method} .*use --batch 2 or more"):
        config(1)


def test_the_loss_of_one_pair_is_zero():
    """Why: NT-Xent has no negative, so nothing is learnt whatever the projections are."""
    keras = pytest.importorskip("keras")
    from mri_transfer.pretrain.methods.simclr import nt_xent

    random = keras.random.SeedGenerator(0)
    pair = [keras.random.normal((1, 8), seed=random) for _ in range(2)]
    assert float(nt_xent(*pair, keras.ops.array([5]), 0.1)) == 0.0
