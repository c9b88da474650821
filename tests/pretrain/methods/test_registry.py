"""Methods are registered with what they need, and everything else is made from that."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.errors import UserError
from mri_transfer.export import ExportConfig
from mri_transfer.pretrain.augmentations.views import Views
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.methods import METHOD_OPTIONS, METHODS, NOTHING, SUBJECTS, Registered
from mri_transfer.pretrain.methods.method import Method
from mri_transfer.pretrain.methods.simclr import SimCLR
from mri_transfer.pretrain.pairs.positives import PairSampler


class Own(SimCLR):
    """A contrastive method of one's own."""


@pytest.fixture
def one_subject(small_store):
    """The store, as if all its slices were of one subject."""
    store = SliceStore.open(small_store)
    store.table["subject"] = np.full_like(store.table["subject"], store.table["subject"][0])
    return store


def sampler(store, method):
    return PairSampler(store, positives="adjacent", max_mm=6, batch=4, seed=0, **METHODS[method].batches)


def test_every_method_says_what_it_needs():
    for name, method in METHODS.items():
        assert issubclass(method.made, Method), name
        declared = {field.name for field in dataclasses.fields(PretrainConfig)}
        assert set(method.options) <= declared, f"{name}: declare it in PretrainConfig, by _of_methods"
        if not method.free_labels:  # those can't be exported as a training graph
            exported = {field.name for field in dataclasses.fields(ExportConfig)}
            assert set(method.options) <= exported, f"{name}: declare it in ExportConfig"


def test_a_method_that_does_not_say_what_it_compares_is_none():
    assert Registered(f"{__name__}:Own", "contrasts", compares=SUBJECTS).made is Own
    with pytest.raises(TypeError, match="compares"):
        Registered(f"{__name__}:Own", "contrasts")
    with pytest.raises(ValueError, match="say subjects, pairs or nothing"):
        Registered(f"{__name__}:Own", "contrasts", compares="slices")


def test_a_contrastive_method_of_ones_own_refuses_one_subject_or_fails(
    one_subject, small_store, tiny_encoder, monkeypatch
):
    """Its loss on one subject is 0, whatever it does; it used to train on that without a word."""
    monkeypatch.setitem(METHODS, "own", dataclasses.replace(METHODS["simclr"], made_by=f"{__name__}:Own"))
    with pytest.raises(UserError, match="all slices are of one subject, and contrast needs others"):
        sampler(one_subject, "own")
    with pytest.raises(UserError, match="--batch 1: --method own compares"):
        PretrainConfig(store=small_store, out=Path("out"), method="own", batch=1)
    # Registered wrongly: batches don't say whose slices they are, so there is nothing to contrast.
    monkeypatch.setitem(METHODS, "own", dataclasses.replace(METHODS["own"], compares=NOTHING))
    batch = sampler(one_subject, "own")(0)
    method = METHODS["own"].build(tiny_encoder(), Views(64))
    method.compile(keras.optimizers.AdamW(1e-3), jit_compile=False, run_eagerly=True)
    with pytest.raises(KeyError, match="subject"):
        method.train_on_batch(batch)


def test_batches_carry_what_the_method_needs_and_nothing_else(small_store):
    store = SliceStore.open(small_store)
    needed = {"simclr": {"subject"}, "byol": set(), "hybrid": {"subject", "plane", "position"}}
    for name, columns in needed.items():
        assert set(sampler(store, name)(0)) == {"a", "b"} | columns
    first, second = (sampler(store, name)(3) for name in ("byol", "hybrid"))
    np.testing.assert_array_equal(first["a"], second["a"])


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.compares == NOTHING])
def test_one_pair_teaches_a_method_that_compares_nothing(name, tiny_encoder, batch):
    method = METHODS[name].build(tiny_encoder(), Views(64), seed=1)
    method.compile(keras.optimizers.SGD(0.1), jit_compile=False, run_eagerly=True)
    before = [np.array(variable) for variable in method.encoder.trainable_variables]
    method.train_on_batch({key: batch[key][:1] for key in ("a", "b")})
    after = method.encoder.trainable_variables
    assert any((np.array(now) != then).any() for now, then in zip(after, before, strict=True))


def test_help_is_made_from_the_methods_without_keras():
    code = "import sys; sys.modules['keras'] = None; from mri_transfer.cli import main; main(sys.argv[1:])"
    for command in ("pretrain", "export"):
        done = subprocess.run(
            [sys.executable, "-c", code, command, "--help"], capture_output=True, text=True, check=False
        )
        text = " ".join(done.stdout.split())
        assert done.returncode == 0, done.stderr
        for name, method in METHODS.items():
            assert f"{name} {method.about}" in text
    assert "simclr, moco, dino and hybrid only: temperature of the similarities" in text
    assert "0.1 for simclr, dino and hybrid, 0.2 for moco" in text
    assert set(METHOD_OPTIONS) == {"temperature", "decoupled", "lesions", "label_weight"}
