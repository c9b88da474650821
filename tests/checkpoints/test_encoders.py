"""Encoders on disk: bit-equal when read back, whole at every instant, and clear about what is wrong with them."""

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from mri_transfer.checkpoints import encoders
from mri_transfer.checkpoints.backbones import build_encoder, named_weights
from mri_transfer.checkpoints.encoders import (
    load_encoder,
    read_card,
    save_encoder,
)
from mri_transfer.errors import UserError
from mri_transfer.storage.arrays import write_arrays
from mri_transfer.storage.files import read_object, sha256, write_card, write_json

PROVENANCE = {
    "start": {
        "init": "imagenet",
        "backbone": "efficientnet_lite0",
        "weights_sha256": "ab",
        "source": "a package",
    },
    "method": "simclr",
    "data": {"fingerprint": "cd", "subjects": 85, "slices": 9000},
    "seconds": 28_800.0,
    "metrics": {"loss": float("nan"), "history": [1.0, float("inf")]},
}
GREY = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 1), "uint8")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    encoder = build_encoder(size=64, seed=7)
    rng = np.random.default_rng(2)  # statistics as after training, not the initial zeros and ones
    encoder.set_weights([w + rng.uniform(0, 0.1, w.shape).astype("float32") for w in encoder.get_weights()])
    return encoder


@pytest.fixture(scope="module")
def newer() -> keras.Model:
    return build_encoder(size=64, seed=8)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("run")
    save_encoder(model, run / "encoder", backbone="efficientnet_lite0", size=64, provenance=PROVENANCE)
    return run


@pytest.fixture
def run(saved, tmp_path) -> Path:
    """A copy to spoil."""
    shutil.copytree(saved, tmp_path / "run")
    return tmp_path / "run"


def test_features_after_loading_are_bit_equal(model, saved):
    expected = np.asarray(model(GREY))
    for folder in (saved, saved / "encoder", str(saved)):
        np.testing.assert_array_equal(np.asarray(load_encoder(folder)(GREY)), expected)


def test_the_card_explains_itself(saved):
    card = read_card(saved)
    assert (card["backbone"], card["size"], card["features"]) == ("efficientnet_lite0", 64, 1280)
    assert "(batch, height, width, 1)" in card["use"]
    assert "0..255" in card["use"]
    assert card["provenance"]["data"] == PROVENANCE["data"]
    assert card["provenance"]["metrics"] == {"loss": None, "history": [1.0, None]}
    files = sorted(path.name for path in (saved / "encoder").iterdir())
    assert files == [f"encoder-{card['weights_sha256'][:8]}.npz", "encoder.json"]
    with np.load(saved / "encoder" / card["weights"], allow_pickle=False) as weights:
        assert weights["stem_conv/kernel"].shape == (3, 3, 3, 32)
        assert {weights[name].dtype.name for name in weights.files} == {"float32"}


def test_another_size_has_the_same_weights(model, saved):
    other = load_encoder(saved, size=96)
    assert other.input_shape == (None, 96, 96, 1)
    for name, variable in named_weights(model).items():
        np.testing.assert_array_equal(np.array(named_weights(other)[name]), np.array(variable))


def test_saving_again_replaces_and_leaves_nothing_behind(newer, run):
    (run / "encoder" / "encoder-new.npz.0badc0de.part").write_bytes(b"of a killed process")
    old = read_card(run)["weights"]
    save_encoder(newer, run / "encoder", backbone="efficientnet_lite0", size=64, provenance={})
    assert read_card(run)["weights"] != old
    assert len(list((run / "encoder").iterdir())) == 2
    np.testing.assert_array_equal(np.asarray(load_encoder(run)(GREY)), np.asarray(newer(GREY)))


@pytest.mark.parametrize("position", [0.001, 0.3, 0.999])
def test_a_flipped_byte_is_found(run, position):
    weights = run / "encoder" / read_card(run)["weights"]
    content = bytearray(weights.read_bytes())
    content[int(position * len(content))] ^= 4
    weights.write_bytes(content)
    with pytest.raises(UserError, match=rf"{weights.name}: is damaged .*; copy it again from where it came"):
        load_encoder(run)


def test_missing_parts_name_the_file_and_the_remedy(run, tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        load_encoder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: holds no encoder \(encoder\.json\); name a run"):
        load_encoder(tmp_path / "empty")
    (run / "encoder" / read_card(run)["weights"]).unlink()
    with pytest.raises(UserError, match=r"\.npz: is missing; copy it again"):
        load_encoder(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"format": 99}, "newer mri-transfer"), ({"weights": "../../secret.npz"}, "not the card of an encoder"),
     ({"weights": 3}, "not the card"), ({"size": -1}, "not the card"), ({"size": "160"}, "size"),
     ({"provenance": None}, "provenance"),
     ({"backbone": "resnet5O"}, "did you mean"), ({"weights_sha256": "0" * 64}, "is damaged")],
)  # fmt: skip
def test_a_card_that_makes_no_sense_is_one_clear_line(run, change, message):
    path = run / "encoder" / "encoder.json"
    write_json(path, read_object(path) | change)
    with pytest.raises(UserError, match=message) as error:
        load_encoder(run)
    assert "\n" not in str(error.value)
    infinite = path.read_text().replace('"size": ', '"size": 1e999, "was": ')
    for content in ("", "{", "[]", "3", "\xff", "[" * 99_999, '{"size": ' + "1" * 4300 + "}", infinite):
        path.write_text(content, encoding="latin-1")
        with pytest.raises(UserError, match=r"encoder\.json"):
            load_encoder(run)


def test_an_encoder_that_does_not_fit_says_what_differs(model, run):
    folder = run / "encoder"
    arrays = {name: np.array(variable) for name, variable in named_weights(model).items()}
    for block in ("block1a", "block2a"):
        del arrays[f"{block}_project_bn/gamma"]
    arrays["adapter/kernel"] = np.zeros((2, 2), "float32")
    arrays["stem_conv/kernel"] = np.zeros((3, 3, 1, 32), "float32")
    digest = write_arrays(folder / "x.npz", arrays)
    (folder / "x.npz").rename(folder / f"encoder-{digest[:8]}.npz")
    card = read_object(folder / "encoder.json")
    write_json(
        folder / "encoder.json", card | {"weights": f"encoder-{digest[:8]}.npz", "weights_sha256": digest}
    )
    with pytest.raises(UserError, match="don't fit efficientnet_lite0") as error:
        load_encoder(run)
    text = str(error.value)
    assert "2 missing: block1a_project_bn/gamma, block2a_project_bn/gamma;" in text
    assert "1 unexpected: adapter/kernel;" in text
    assert "1 of another shape: stem_conv/kernel (3, 3, 1, 32) instead of (3, 3, 3, 32)" in text


def test_an_encoder_of_a_backbone_that_is_not_here_is_named(run):
    card = read_object(run / "encoder" / "encoder.json")
    write_json(run / "encoder" / "encoder.json", card | {"backbone": "efficientnet_v9"})
    with pytest.raises(UserError, match=r"run: --backbone efficientnet_v9: no such .*, or use the versions"):
        load_encoder(run)


def test_a_reader_meets_a_run_that_saves(newer, run, monkeypatch):
    """The weights vanish between reading the card and reading the weights, as a new encoder replaces them."""
    real = encoders.read_arrays

    def replaced(path, *rest):
        monkeypatch.setattr(encoders, "read_arrays", real)
        save_encoder(newer, run / "encoder", backbone="efficientnet_lite0", size=64, provenance={})
        return real(path, *rest)

    monkeypatch.setattr(encoders, "read_arrays", replaced)
    np.testing.assert_array_equal(np.asarray(load_encoder(run)(GREY)), np.asarray(newer(GREY)))


# After a fork TensorFlow's threads are gone, so plain arrays stand for the model's variables; the rest is real.
SAVER = """
import sys, types
import numpy as np
from mri_transfer.checkpoints import encoders
folder = sys.argv[1]
model = types.SimpleNamespace(output_shape=(None, 64))
def saved():
    return encoders.read_card(folder)["provenance"]["step"]
def save(step):
    shapes = {"stem_conv/kernel": (3, 3, 1, 64), "stem_conv/bias": (64,)}
    encoders.named_weights = lambda model: {name: np.full(shape, step, "float32") for name, shape in shapes.items()}
    encoders.save_encoder(model, folder, backbone="efficientnet_lite0", size=8, provenance={"step": step})
save(0)
"""


@pytest.mark.slow
def test_killed_at_random_moments_it_never_loses_an_encoder(tmp_path, killed_twenty_times):
    last = 0
    for _ in killed_twenty_times(SAVER):
        card, arrays = encoders._read(tmp_path)
        step = card["provenance"]["step"]
        assert step >= last
        last = step
        assert set(arrays) == {"stem_conv/kernel", "stem_conv/bias"}
        assert all((array == step).all() for array in arrays.values())
    assert last >= 5, "hardly anything was saved between the kills"
    assert len(list(tmp_path.iterdir())) <= 6, "remains of killed processes pile up"


@pytest.mark.parametrize("failing", ["encoder-new.npz", "encoder.json"])
def test_a_full_disk_leaves_the_old_encoder(model, newer, run, monkeypatch, failing):
    before = sha256(run / "encoder" / read_card(run)["weights"])
    real = Path.replace

    def full(self, target):
        if Path(target).name == failing:
            raise OSError(28, "No space left on device", str(self))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        save_encoder(newer, run / "encoder", backbone="efficientnet_lite0", size=64, provenance={})
    monkeypatch.undo()
    np.testing.assert_array_equal(np.asarray(load_encoder(run)(GREY)), np.asarray(model(GREY)))
    assert sha256(run / "encoder" / read_card(run)["weights"]) == before
    save_encoder(model, run / "encoder", backbone="efficientnet_lite0", size=64, provenance={})
    assert len(list((run / "encoder").iterdir())) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"method": ["simclr"]},
        {"config": []},
        {"config": {"store": 3}},
        {"seconds": "long"},
        {"start": {"provenance": 3}},
        {"start": {"provenance": {"start": {"provenance": {"data": "x"}}}}},
    ],
)
def test_a_provenance_of_other_types_is_one_line(tmp_path, model, change):
    save_encoder(model, tmp_path, backbone="efficientnet_lite0", size=64, provenance=PROVENANCE)
    card = read_object(tmp_path / "encoder.json")
    write_card(tmp_path / "encoder.json", card | {"provenance": card["provenance"] | change})
    with pytest.raises(UserError, match=r"encoder.json: is not the card of an encoder \(provenance: \w+\)"):
        read_card(tmp_path)
