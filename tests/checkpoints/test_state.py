"""Training states survive kill -9, a full disk and damage, and bring back every number of a training."""

import os
import subprocess
import sys
from pathlib import Path

import hypothesis.extra.numpy as hnp
import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mri_transfer import progress
from mri_transfer.checkpoints.state import assign_arrays, load_state, model_arrays, save_state
from mri_transfer.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def numbered(step: int, size: int = 1000) -> dict[str, np.ndarray]:
    return {"model/0000/kernel": np.full(size, step, "float32"), "optimizer/0000/iterations": np.array(step)}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    hnp.arrays("float32", hnp.array_shapes(max_dims=3, max_side=4)),
    st.dictionaries(
        st.text(), st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False) | st.none()
    ),
)
def test_arrays_and_information_come_back_exactly(tmp_path, array, info):
    save_state(tmp_path / "state", {"a/b": array, "seed": np.array([1, 2], "uint32")}, info)
    arrays, back = load_state(tmp_path / "state")
    assert arrays["a/b"].tobytes() == array.tobytes()
    assert arrays["seed"].dtype == "uint32"
    assert back == info


def test_two_generations_are_kept_and_nothing_else(tmp_path):
    assert load_state(tmp_path / "none") is None
    (tmp_path / "notes.txt").write_text("the user's")
    for step in range(12):
        save_state(tmp_path, numbered(step), {"step": step})
        assert load_state(tmp_path)[1] == {"step": step}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "notes.txt", "state-10.json", "state-10.npz", "state-11.json", "state-11.npz",
    ]  # fmt: skip


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "flip":
        digit = content.index(b"123456789") if path.suffix == ".json" else len(content) // 2
        content[digit] ^= 1
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if how == "cut" else b"" if how == "empty" else content)


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "missing"])
@pytest.mark.parametrize("suffix", ["npz", "json"])
def test_a_damaged_newest_falls_back_and_says_so(tmp_path, monkeypatch, suffix, how):
    lines = []
    monkeypatch.setattr(progress, "say", lines.append)
    for step in (1, 2):
        save_state(tmp_path, numbered(step), {"step": step, "views": 123456789})
    damage(tmp_path / f"state-1.{suffix}", how)
    arrays, info = load_state(tmp_path)
    assert info["step"] == 1
    assert arrays["model/0000/kernel"][0] == 1
    if (suffix, how) != ("json", "missing"):  # arrays without a card are what an interrupted save leaves
        assert len(lines) == 1
        assert "continuing from the state saved before it" in lines[0]
        assert f"state-1.{suffix}" in lines[0]
    # The next save must not count the damaged generation as one of its two.
    save_state(tmp_path, numbered(3), {"step": 3})
    newest = max(tmp_path.glob("state-*.npz"), key=lambda path: path.stat().st_mtime_ns)
    damage(newest, "cut")
    assert load_state(tmp_path)[1]["step"] == 1


def test_two_damaged_generations_are_an_error_not_a_new_beginning(tmp_path):
    for step in (1, 2):
        save_state(tmp_path, numbered(step), {"step": step})
    for path in tmp_path.glob("*.npz"):
        damage(path, "flip")
    with pytest.raises(
        UserError, match=r"state-1\.npz: is damaged .*no older state can be read; delete the folder"
    ):
        load_state(tmp_path)
    assert (tmp_path / "state-0.json").is_file()


def test_information_that_json_would_change_is_refused_and_the_old_state_stays(tmp_path):
    save_state(tmp_path, numbered(1), {"step": 1})
    with pytest.raises(ValueError, match="JSON"):
        save_state(tmp_path, numbered(2), {"loss": float("nan")})
    assert load_state(tmp_path)[1] == {"step": 1}


SAVER = """
import sys
from pathlib import Path
import numpy as np
from mri_transfer.checkpoints.state import load_state, save_state
folder = Path(sys.argv[1])
def saved():
    return found[1]["step"] if (found := load_state(folder)) else 0
def save(step):
    save_state(folder, {f"model/{i}": np.full(5000, step, "float32") for i in range(4)}, {"step": step})
"""


def test_killed_at_random_moments_it_never_loses_a_state(tmp_path, killed_twenty_times):
    last = 0
    for _ in killed_twenty_times(SAVER):
        state = load_state(tmp_path)
        if state is None:
            continue
        arrays, info = state
        assert info["step"] >= last
        last = info["step"]
        assert all((array == info["step"]).all() and array.shape == (5000,) for array in arrays.values())
    assert last >= 5, "hardly anything was saved between the kills"
    assert len(list(tmp_path.iterdir())) <= 8, "remains of killed processes pile up"
    assert not list(tmp_path.glob("damaged*"))


# Dies just before the n-th call that the interpreter reports to the operating system, for every n.
STEPPER = """
import os, sys
from pathlib import Path
import numpy as np
from mri_transfer.checkpoints.state import load_state, save_state
folder, calls = Path(sys.argv[1]), {"open", "os.rename", "os.remove", "os.mkdir", "os.listdir", "os.scandir"}
def save(step):
    save_state(folder, {"x": np.full(3000, step, "float32")}, {"step": step})
for step in (1, 2, 3):
    save(step)
deaths = 0
while True:
    child = os.fork()
    if child == 0:
        left = deaths
        def die(event, _):
            global left
            if event in calls:
                left -= 1
                if left < 0:
                    os._exit(9)
        sys.addaudithook(die)
        save(4)
        os._exit(0)
    done = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    arrays, info = load_state(folder)
    assert info["step"] in (3, 4) and (arrays["x"] == info["step"]).all(), (deaths, info)
    if done == 0:
        break
    deaths += 1
    for step in (2, 3):
        save(step)
    assert load_state(folder)[1]["step"] == 3
print(deaths)
"""


def test_killed_before_each_single_operation_it_still_loads(tmp_path):
    command = [sys.executable, "-c", STEPPER, str(tmp_path)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 8


@pytest.mark.parametrize("free_kib", [0, 4, 100, 192, 196])
def test_a_full_disk_leaves_the_old_states(small_disk, free_kib):
    disk = small_disk("1m")
    folder = disk / "state"
    for step in (1, 2):
        save_state(folder, numbered(step, 50_000), {"step": step})  # 200 KiB each
    files = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(files.f_bavail * files.f_frsize - free_kib * 1024))
    with pytest.raises(OSError, match="No space left"):
        save_state(folder, numbered(3, 50_000), {"step": 3})
    assert load_state(folder)[1] == {"step": 2}
    damage(folder / "state-1.npz", "flip")
    assert load_state(folder)[1] == {"step": 1}
    (disk / "filler").unlink()
    save_state(folder, numbered(4, 50_000), {"step": 4})
    assert load_state(folder)[1] == {"step": 4}


def trained(model: keras.Model, optimizer, steps: int) -> list[float]:
    rng = np.random.default_rng(steps)
    model.compile(optimizer, "mse", jit_compile=False)
    x, y = rng.normal(size=(8, 6)).astype("float32"), rng.normal(size=(8, 2)).astype("float32")
    return [float(model.train_on_batch(x, y)) for _ in range(steps)]


def network() -> tuple[keras.Model, keras.optimizers.Optimizer]:
    """Dropout and batch normalisation have states of their own; layers are left unnamed on purpose."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(2),
        ]
    )
    optimizer = keras.optimizers.AdamW(0.01)
    optimizer.build(model.trainable_variables)
    return model, optimizer


def test_a_restored_training_goes_on_bit_for_bit(tmp_path):
    model, optimizer = network()
    trained(model, optimizer, 3)
    save_state(tmp_path, model_arrays(model, optimizer), {"step": 3})
    expected = trained(model, optimizer, 4)
    other, its_optimizer = network()  # Keras numbers its layers differently
    trained(other, its_optimizer, 1)
    arrays, _ = load_state(tmp_path)
    assign_arrays(arrays, other, its_optimizer)
    assert trained(other, its_optimizer, 4) == expected
    for ours, theirs in zip(
        model_arrays(model, optimizer).items(), model_arrays(other, its_optimizer).items(), strict=True
    ):
        assert ours[0] == theirs[0]
        assert ours[1].dtype == theirs[1].dtype
        np.testing.assert_array_equal(ours[1], theirs[1])
    names = " ".join(arrays)
    for word in ("kernel", "moving_variance", "seed_generator_state", "iteration", "momentum", "velocity"):
        assert word in names


def test_arrays_are_copies():
    model, optimizer = network()
    before = model_arrays(model, optimizer)
    copies = {name: array.copy() for name, array in before.items()}
    trained(model, optimizer, 2)
    assert all(np.array_equal(before[name], copies[name]) for name in before)


def test_loss_scaling_of_mixed_precision_is_part_of_the_state():
    model, _ = network()
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, momentum=0.9), initial_scale=8.0)
    scaled.build(model.trainable_variables)
    arrays = model_arrays(model, scaled)
    assert any(array == 8.0 for array in arrays.values() if array.shape == ())
    assert sum("momentum" in name for name in arrays) == len(model.trainable_variables)


def test_bfloat16_is_widened_and_comes_back():
    layer = keras.layers.Dense(3, dtype="bfloat16")
    model = keras.Sequential([keras.Input((2,)), layer])
    arrays = model_arrays(model)
    assert {array.dtype.name for array in arrays.values()} == {"float32"}
    before = np.array(keras.ops.cast(layer.kernel, "float32"))
    layer.kernel.assign(layer.kernel * 2)
    assign_arrays(arrays, model)
    np.testing.assert_array_equal(np.array(keras.ops.cast(layer.kernel, "float32")), before)


def test_the_state_of_another_model_is_refused_whole():
    model, optimizer = network()
    arrays = model_arrays(model, optimizer)
    wider = keras.Sequential([keras.Input((6,)), keras.layers.Dense(7)])
    before = wider.get_weights()
    with pytest.raises(
        UserError,
        match=r"another model .*unexpected.*of another shape: model/0000/kernel \(6, 5\) instead of \(6, 7\)",
    ):
        assign_arrays(arrays, wider)
    assert all(np.array_equal(a, b) for a, b in zip(before, wider.get_weights(), strict=True))
    wrong = arrays | {"optimizer/0000/iteration": np.array(1.0)}
    with pytest.raises(UserError, match="iteration in float64, not in int"):
        assign_arrays(wrong, model, optimizer)
    with pytest.raises(ValueError, match="build the optimizer"):
        model_arrays(model, keras.optimizers.Adam())


DAMAGED_CARDS = {
    "nested": b'{"info": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "digits": b'{"format": ' + b"1" * 4300 + b"}",
    "infinite": b'{"format": 1, "info": {"step": Infinity}}',
    "list": b"[]",
    "latin": '{"info": "é"}'.encode("latin-1"),
    "types": b'{"format": 1, "info": [], "sha256": 3, "info_sha256": {}}',
}


@pytest.mark.parametrize("kind", DAMAGED_CARDS)
def test_a_card_that_is_no_such_json_falls_back_to_the_state_before(tmp_path, monkeypatch, kind):
    lines = []
    monkeypatch.setattr(progress, "say", lines.append)
    for step in (1, 2):
        save_state(tmp_path, numbered(step), {"step": step})
    (tmp_path / "state-1.json").write_bytes(DAMAGED_CARDS[kind])
    assert load_state(tmp_path)[1] == {"step": 1}
    assert "state-1.json" in lines[0]
    assert "\n" not in lines[0]
