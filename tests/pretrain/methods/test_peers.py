"""Every loss gives the number that lightly's implementation gives, to 1e-5.

Where two definitions differ by a convention, ours is written out below.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install '.[peers]'")
lightly = pytest.importorskip("lightly.loss", reason="pip install '.[peers]'")

from keras import ops  # noqa: E402

from mri_transfer.pretrain.methods.barlow_twins import cross_correlation_loss  # noqa: E402
from mri_transfer.pretrain.methods.byol import normalised_regression  # noqa: E402
from mri_transfer.pretrain.methods.dino import self_distillation  # noqa: E402
from mri_transfer.pretrain.methods.moco import info_nce  # noqa: E402
from mri_transfer.pretrain.methods.simclr import nt_xent  # noqa: E402
from mri_transfer.pretrain.methods.simsiam import negative_cosine  # noqa: E402
from mri_transfer.pretrain.methods.vicreg import vicreg_loss  # noqa: E402

N, D = 32, 64
SUBJECTS = np.arange(N)  # lightly knows none: all differ


def draw(seed=0, n=N):
    """Two views that are related but not alike."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, D))
    return a.astype("float32"), (a + rng.normal(size=(n, D))).astype("float32")


def equal(ours, theirs):
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent(seed, temperature):
    a, b = draw(seed)
    theirs = lightly.NTXentLoss(temperature)(torch.tensor(a), torch.tensor(b))
    equal(nt_xent(ops.convert_to_tensor(a), ops.convert_to_tensor(b), SUBJECTS, temperature), theirs)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_decoupled(seed, temperature):
    a, b = draw(seed)
    theirs = lightly.DCLLoss(temperature)(torch.tensor(a), torch.tensor(b))
    ours = nt_xent(ops.convert_to_tensor(a), ops.convert_to_tensor(b), SUBJECTS, temperature, decoupled=True)
    equal(ours, theirs)


@pytest.mark.parametrize("seed", range(3))
def test_info_nce(seed):
    """lightly's negatives are those of its memory bank alone; ours are whatever is passed."""
    query, key = draw(seed)
    criterion = lightly.NTXentLoss(0.2, memory_bank_size=(100, D))
    bank = criterion.memory_bank.bank.numpy().copy()
    theirs = criterion(torch.tensor(query), torch.tensor(key))
    equal(info_nce(query, key, SUBJECTS, bank, np.arange(1000, 1100), 0.2), theirs)


@pytest.mark.parametrize("seed", range(3))
def test_negative_cosine(seed):
    """BYOL's loss in the paper is 2 - 2 cos; lightly trains it with -cos."""
    a, b = draw(seed)
    theirs = lightly.NegativeCosineSimilarity()(torch.tensor(a), torch.tensor(b))
    equal(negative_cosine(a, b), theirs)
    equal(normalised_regression(a, b), 2 + 2 * theirs)


@pytest.mark.parametrize("seed", range(3))
def test_barlow_twins(seed):
    a, b = draw(seed)
    theirs = lightly.BarlowTwinsLoss(5e-3)(torch.tensor(a), torch.tensor(b))
    equal(cross_correlation_loss(ops.convert_to_tensor(a), ops.convert_to_tensor(b), 5e-3), theirs)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [0.3, 1])
def test_vicreg(seed, scale):
    """Both follow the authors' code: the variance terms averaged over the views, the distance over the features."""
    a, b = (scale * x for x in draw(seed))
    theirs = lightly.VICRegLoss()(torch.tensor(a), torch.tensor(b))
    equal(vicreg_loss(ops.convert_to_tensor(a), ops.convert_to_tensor(b)), theirs)


@pytest.mark.parametrize("seed", range(3))
def test_dino(seed):
    """With two views, lightly's sum over pairs of different views is the mean of our two directions."""
    (s_a, s_b), (t_a, t_b), center = draw(seed), draw(seed + 10), draw(seed + 20)[0][0] / 10
    criterion = lightly.DINOLoss(D, teacher_temp=0.07, student_temp=0.1)
    criterion.center.copy_(torch.tensor(center)[None, None])
    student, teacher = [torch.tensor(s_a), torch.tensor(s_b)], [torch.tensor(t_a), torch.tensor(t_b)]
    theirs = criterion(teacher, student)
    ours = (
        self_distillation(s_a, t_b, center, 0.1, 0.07) + self_distillation(s_b, t_a, center, 0.1, 0.07)
    ) / 2
    equal(ours, theirs)
