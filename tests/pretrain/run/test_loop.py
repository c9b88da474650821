"""What happens in the middle of a run: divergence, memory, lost slices, signals, scores; with a small network."""

import dataclasses
import datetime
import json
import os
import signal
import time

import numpy as np
import pytest

from mri_transfer.checkpoints.encoders import read_card
from mri_transfer.checkpoints.state import load_state
from mri_transfer.errors import UserError
from mri_transfer.pretrain import pretrain as run_module
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.fit.out_of_memory import Marker, is_out_of_memory, largest_that_fits, smaller
from mri_transfer.pretrain.pretrain import pretrain
from mri_transfer.pretrain.run.position import Position
from mri_transfer.pretrain.run.starting import seconds_left
from mri_transfer.pretrain.run.trainer import Trainer, bytes_of_training
from tests.pretrain import small_network
from tests.pretrain.finished_runs import same, weights

STEPS = 12
SETTINGS = {"steps": STEPS, "batch": 4, "size": 32, "backbone": "mobilenet"}


class Watch:
    """A monitor that calls `at(step)` after every step, and gives the figures it returns."""

    name, used, finish_seconds = "watch", 0.0, 0.0

    def __init__(self, at=lambda step: None):
        self.at, self.stop, self.last_view, self.figures = at, None, None, None

    def restore(self, lines):
        self.restored = list(lines)

    def due(self, run, at):
        self.figures = self.at(at["step"])
        return bool(self.figures)

    def measure(self, run, at):
        self.stop = self.figures.pop("stop", None) if self.figures else None
        return self.figures or {}

    def finish(self, run, at):
        self.last_view = run
        return {"sentence": "seen to the end"}


@pytest.fixture
def config(small_store, tmp_path, monkeypatch):
    """Of a run with the small network and no monitor."""
    small_network.use(monkeypatch.setattr)
    monkeypatch.setattr(run_module, "_monitors", lambda config: [])
    return PretrainConfig(store=small_store, out=tmp_path / "run", **SETTINGS)


@pytest.fixture
def watched(config, monkeypatch):
    """Run with a monitor that calls a function after every step."""

    def train(at, **changes):
        watch = Watch(at)
        monkeypatch.setattr(run_module, "_monitors", lambda config: [watch])
        return pretrain(dataclasses.replace(config, **changes)), watch

    return train


@pytest.mark.parametrize(
    ("changes", "rate"),
    [
        ({}, 1e-3),
        ({"method": "byol"}, 3e-4),  # at 1e-3 its embeddings collapse
        ({"init": "imagenet"}, 3e-4),
        ({"init": "imagenet", "method": "byol"}, 3e-4),
    ],
)
def test_the_learning_rate_where_none_is_given(config, changes, rate):
    assert dataclasses.replace(config, **changes).default_rate == rate


def lines_of(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(small_store, tmp_path_factory):
    """A run of the same settings that nothing happened to."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    with pytest.MonkeyPatch.context() as patch:
        small_network.use(patch.setattr)
        patch.setattr(run_module, "_monitors", lambda config: [])
        pretrain(PretrainConfig(store=small_store, out=out, **SETTINGS))
    return out


@pytest.mark.slow
def test_stopped_in_the_middle_it_goes_on_to_the_same_bits(config, watched, undisturbed):
    def stop(step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        watched(stop)
    assert load_state(config.out / "state")[1]["step"] == 5
    assert read_card(config.out)["provenance"]["steps"] == 5  # usable before the end
    summary = pretrain(config)
    assert summary["steps"] == STEPS
    assert same(undisturbed, config.out)
    assert not (config.out / "state").exists()
    assert not (config.out / "running.json").exists()


def test_a_loss_that_is_not_finite_takes_the_run_back_once(config, watched, monkeypatch):
    step, calls = Trainer.step, []

    def stumble(self, batch, rate, share):
        calls.append(rate)
        return float("nan") if len(calls) == 8 else step(self, batch, rate, share)

    monkeypatch.setattr(Trainer, "step", stumble)
    summary, _ = watched(lambda number: {"figure": number})
    assert summary["diverged_at_steps"] == [8]
    assert summary["steps"] == STEPS
    assert len(calls) == 8 + STEPS  # from the first state, which is the last one saved
    np.testing.assert_allclose(calls[8:15], [rate / 2 for rate in calls[:7]])
    assert [line["step"] for line in lines_of(config.out)] == list(range(1, STEPS + 1))


def test_the_second_time_it_ends_with_the_last_good_encoder(config, watched, monkeypatch):
    monkeypatch.setattr(Trainer, "step", lambda *_: float("inf"))
    with pytest.raises(UserError, match=r"diverged: .* at step 1 and step 1, .*--learning-rate"):
        watched(lambda step: None)
    assert all(np.isfinite(array).all() for array in weights(config.out))
    summary = json.loads((config.out / "summary.json").read_text())
    assert summary["stopped"].startswith("diverged")
    assert summary["sentence"] == "seen to the end"
    with pytest.raises(UserError, match="ended early, diverged"):
        pretrain(config)  # not "already finished"


def test_weights_that_are_not_finite_are_never_saved(config, watched):
    from mri_transfer.pretrain.run.loop import Loop

    loops, spoilt = [], []
    init = Loop.__init__

    def remember(self, **parts):
        init(self, **parts)
        loops.append(self)

    def spoil(step):
        if step == 3 and not spoilt:
            spoilt.append(step)
            loops[0].trainer.encoder.layers[2].kernel.assign(np.full((3, 3, 1, 6), np.nan, "float32"))
            loops[0].save_now()
            assert load_state(config.out / "state")[1]["step"] == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "__init__", remember)
        summary, _ = watched(spoil)
    # At the next step, or at the end where XLA hides it from the loss.
    assert summary["diverged_at_steps"] in ([4], [STEPS])
    assert summary["steps"] == STEPS
    assert all(np.isfinite(array).all() for array in weights(config.out))


def test_the_best_by_a_monitors_score_is_kept_beside_the_latest(config, watched):
    scores = {2: 0.3, 4: 0.7, 7: float("nan"), 9: 0.5}
    summary, watch = watched(lambda step: {"score": scores[step]} if step in scores else None)
    card = read_card(config.out / "best")
    assert card["provenance"]["steps"] == 4
    assert card["provenance"]["metrics"]["score"] == 0.7
    assert summary["best"] == str(config.out / "best")
    assert not same(config.out, config.out / "best")
    assert watch.last_view.metrics[-1]["step"] == STEPS
    second = dataclasses.replace(
        config, out=config.out.with_name("next"), init=str(config.out / "best"), steps=1
    )
    assert pretrain(second)["steps"] == 1
    assert read_card(second.out)["provenance"]["start"]["weights_sha256"] == card["weights_sha256"]


@pytest.mark.slow
def test_a_resumed_run_knows_its_best(config, watched):
    def first(step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"score": 0.9} if step == 3 else None

    with pytest.raises(KeyboardInterrupt):
        watched(first)
    _, watch = watched(lambda step: {"score": 0.8} if step == 8 else None)
    assert read_card(config.out / "best")["provenance"]["metrics"]["score"] == 0.9
    assert [line["score"] for line in watch.restored if "score" in line] == [0.9]


def test_a_monitor_that_asks_for_the_end_gets_it(config, watched):
    with pytest.raises(UserError, match=r"ended early, collapsed: all features are equal"):
        watched(lambda step: {"stop": "collapsed: all features are equal"} if step == 6 else None)
    assert read_card(config.out)["provenance"]["steps"] == 6
    assert lines_of(config.out)[-1]["step"] == 6
    assert json.loads((config.out / "summary.json").read_text())["steps"] == 6


def test_health_leaves_every_bit_as_it_is(config, undisturbed, monkeypatch):
    monkeypatch.undo()
    small_network.use(monkeypatch.setattr)
    pretrain(dataclasses.replace(config, keep_going=True))
    assert any("health_slices" in line for line in lines_of(config.out))
    assert same(undisturbed, config.out)


@pytest.mark.slow
def test_slices_that_vanish_end_the_run_with_a_line_and_all_its_steps(config, watched, undisturbed, tmp_path):
    import shutil

    store = tmp_path / "store"
    shutil.copytree(config.store, store)
    shard = next((store / "shards").iterdir())
    content = shard.read_bytes()

    def cut(step):
        if step == 4:
            os.truncate(shard, 1000)

    with pytest.raises(
        UserError, match=r"slices can't be read any more .*run the same command again"
    ) as line:
        watched(cut, store=store)
    assert str(shard) in str(line.value)
    saved = load_state(config.out / "state")[1]["step"]
    assert 4 <= saved < STEPS
    shard.write_bytes(content)
    pretrain(dataclasses.replace(config, store=store))
    assert same(undisturbed, config.out)


@pytest.mark.slow
def test_another_size_of_views_midway_keeps_every_number(config, small_store):
    from mri_transfer.datasets.store.store import SliceStore
    from mri_transfer.pretrain.pairs.positives import PairSampler

    sampler = PairSampler(
        SliceStore.open(small_store), positives="same", max_mm=6, batch=config.batch, seed=0
    )
    trainer = Trainer(config, "mobilenet", None, size=32)
    for step in range(3):
        trainer.step(sampler(step), 1e-3, 0.1)
    before = trainer.arrays()
    trainer.build(size=48)
    after = trainer.arrays()
    assert list(before) == list(after)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert trainer.encoder.input_shape == (None, 48, 48, 1)
    assert not trainer.compiled
    assert np.isfinite(trainer.step(sampler(3), 1e-3, 0.1))
    assert trainer.compiled
    assert int(trainer.optimizer.iterations) == 4


def test_two_processes_do_not_share_a_run(config, watched):
    def second(step):
        if step == 2:
            with pytest.raises(UserError, match="another process"):
                pretrain(config)
            attempts.append(step)

    attempts = []
    watched(second)
    assert attempts == [2]


# -- the clock


def test_a_run_that_must_be_ready_at_a_time_of_day_goes_by_the_clock_only_if_that_is_sane(
    config, monkeypatch
):
    until_seven = dataclasses.replace(config, steps=None, until="07:00")
    evening = datetime.datetime(2026, 11, 24, 23, 0).timestamp()
    monkeypatch.setattr(time, "time", lambda: evening)
    position = Position()
    assert seconds_left(until_seven, position) == 8 * 3600
    assert position.ends == evening + 8 * 3600
    saved = dataclasses.replace(position, left=7 * 3600.0, seconds=3600.0)
    for now, left in (
        (evening + 3 * 3600, 5 * 3600),  # off for two hours
        (evening + 9 * 3600, 0),  # off past the end
        (120.0, 7 * 3600),  # off, and the clock has no battery
        (evening - 3600, 7 * 3600),  # set back
    ):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        assert seconds_left(until_seven, saved) == left
    # The end stays what it was, for the time when the network has set the clock right.
    assert saved.ends == evening + 8 * 3600


# -- memory


def test_fewer_pairs_at_once_down_to_four():
    sizes, micro_batch = [], None
    while (micro_batch := smaller(micro_batch, 64)) is not None:
        sizes.append(micro_batch)
    assert sizes == [32, 16, 8, 4]
    assert smaller(None, 4) is None
    assert smaller(1000, 16) == 8


def test_the_most_pairs_that_fit_are_chosen():
    def needed(micro_batch):
        return 1e9 + 40e6 * (micro_batch or 64)

    assert largest_that_fits(needed, 64, None) is None
    assert largest_that_fits(needed, 64, 4e9) is None
    assert largest_that_fits(needed, 64, 2e9) == 16
    with pytest.raises(UserError, match=r"--batch 64: .*1\.16 GB and 1\.1 GB may be used; .*--size"):
        largest_that_fits(needed, 64, 1.1e9)


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's."""


def test_errors_that_say_that_memory_is_short():
    jax = RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8589934592 bytes.")
    for error in (MemoryError(), ResourceExhaustedError("OOM when allocating tensor"), jax):
        assert is_out_of_memory(error)
    for error in (
        RuntimeError("shapes differ"),
        ValueError("Out of memory"),
        UserError("RESOURCE_EXHAUSTED"),
    ):
        assert not is_out_of_memory(error)


@pytest.mark.slow
def test_short_memory_is_answered_by_fewer_pairs_at_once(config, watched, monkeypatch):
    step, done = Trainer.step, []

    def scarce(self, batch, rate, share):
        if self.micro_batch is None and len(done) == 5:
            raise ResourceExhaustedError("OOM when allocating tensor")
        done.append(int(self.optimizer.iterations))
        return step(self, batch, rate, share)

    def stop(step):
        if step == 9:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "step", scarce)
    with pytest.raises(KeyboardInterrupt):
        watched(stop, batch=8)
    info = load_state(config.out / "state")[1]
    assert info["micro_batch"] == 4
    summary = pretrain(dataclasses.replace(config, batch=8))  # it remembers, and doesn't try again
    assert summary["micro_batch"] == 4
    assert done == list(range(STEPS))  # no step was lost or done twice


def test_memory_that_is_short_for_the_fewest_pairs_ends_the_run_with_a_line(config, monkeypatch):
    def scarce(self, batch, rate, share):
        raise MemoryError

    monkeypatch.setattr(Trainer, "step", scarce)
    with pytest.raises(UserError, match=r"out of memory with 4 pairs at once; .*--batch"):
        pretrain(config)


def test_a_limit_is_kept_by_choosing_at_the_start(config):
    encoder = small_network.build_small()
    large = dataclasses.replace(config, batch=64, steps=1)
    least, most = (bytes_of_training(large, encoder, pairs) for pairs in (16, 32))
    assert least < most
    assert pretrain(dataclasses.replace(large, memory=(least + most) / 2e9))["micro_batch"] == 16
    with pytest.raises(UserError, match=r"--batch 64: training needs about .* raise --memory"):
        pretrain(dataclasses.replace(config, batch=64, memory=0.5, out=config.out.with_name("none")))


def marked(tmp_path, boot, kills):
    root = tmp_path / "root"
    (root / "proc/sys/kernel/random").mkdir(parents=True, exist_ok=True)
    (root / "proc/sys/kernel/random/boot_id").write_text(f"{boot}\n")
    (root / "proc/vmstat").write_text(f"nr_free_pages 1\noom_kill {kills}\n")
    return Marker(tmp_path, root)


def test_a_kill_for_memory_is_told_from_other_deaths(tmp_path):
    first = marked(tmp_path, "a", 3).__enter__()
    assert not first.killed
    assert not marked(tmp_path, "a", 3).__enter__().killed  # kill -9: the kernel counts nothing
    assert marked(tmp_path, "a", 4).__enter__().killed
    assert not marked(tmp_path, "b", 9).__enter__().killed  # started anew: a power cut
    with marked(tmp_path, "b", 9):
        assert (tmp_path / "running.json").is_file()
    assert not marked(tmp_path, "b", 10).__enter__().killed  # it had ended in an orderly way
