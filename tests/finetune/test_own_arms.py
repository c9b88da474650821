"""Own networks, weights and tables of features, from start to report."""

import contextlib
import json
import re
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mri_transfer import api

DOCS = Path(__file__).resolve().parents[2] / "docs" / "own_networks.md"
SIZE = 32
QUICK = {"size": SIZE, "folds": 2, "seeds": 1, "draws": 50, "workers": 1, "quiet": True}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """One picture each of 48 generated heads; the folder is called as in the docs."""
    folder = tmp_path_factory.mktemp("labelled") / "tumors"
    api.generate_labelled(folder, per_class=12, seed=0, one_each=True)
    return folder


def network(seed=0, channels=3, size=SIZE):
    import keras

    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((size, size, channels)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.Conv2D(12, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, activation="softmax"),
        ]
    )


def entry_of(report, arm):
    (entry,) = (start for start in report["arms"] if start["name"] == arm)
    return entry


def test_two_sets_of_weights_on_one_network_in_one_command(labelled, tmp_path, cli):
    import keras

    for seed, name in enumerate(("imagenet.weights.h5", "RadImageNet-notop.h5")):
        keras.utils.set_random_seed(seed)
        model = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(224, 224, 3))
        model.save_weights(tmp_path / name) if seed == 0 else model.save(tmp_path / name)
    done = cli(
        *("compare", labelled, "--out", tmp_path / "report", "--backbone", "mobilenet", "--arm", "imagenet"),
        *("--imagenet-weights", tmp_path / "imagenet.weights.h5"),
        *("--arm", f"radimagenet={tmp_path / 'RadImageNet-notop.h5'}"),
        *("--size", SIZE, "--folds", 2, "--seeds", 1, "--draws", 50, "--workers", 1),
    )
    assert done.returncode == 0, done.stderr
    assert "radimagenet: weights of mobilenet from RadImageNet-notop.h5" in done.stderr
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["backbones"] == {"imagenet": "mobilenet", "radimagenet": "mobilenet"}
    assert report["kinds"] == {"imagenet": "imagenet", "radimagenet": "weights"}
    assert entry_of(report, "imagenet")["sha256"] != entry_of(report, "radimagenet")["sha256"]
    assert "RadImageNet-notop.h5" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    refused = cli(
        *("compare", labelled, "--out", tmp_path / "other", "--backbone", "resnet50", "--arm", "pixels"),
        *("--arm", f"radimagenet={tmp_path / 'RadImageNet-notop.h5'}", "--size", SIZE, "--folds", 2),
    )
    assert refused.returncode == 2
    assert "does not hold the weights of resnet50" in refused.stderr.splitlines()[-1]


class Numbers:
    """Stands in for a torch tensor."""

    def __init__(self, values):
        self.values = np.asarray(values, np.float32)

    def __getitem__(self, place):
        return Numbers(self.values[place])

    def numpy(self):
        return self.values


def stand_ins():
    """Modules that do as much of timm, torch and transformers as the recipes ask for; features are block means."""

    def blocks(image):
        return np.asarray(image.convert("L").resize((6, 6)), np.float32).ravel()

    class Model:
        def eval(self):
            return self

        def __call__(self, images=None, pixel_values=None):
            if images is not None:
                return images
            return types.SimpleNamespace(last_hidden_state=pixel_values)

    modules = {name: types.ModuleType(name) for name in ("timm", "torch", "transformers")}
    modules["torch"].inference_mode = contextlib.nullcontext
    modules["timm"].create_model = lambda name, pretrained, num_classes: Model()
    modules["timm"].data = types.SimpleNamespace(
        create_transform=lambda is_training, **config: lambda image: Numbers(blocks(image)),
        resolve_model_data_config=lambda model: {"input_size": (3, 6, 6)},
    )
    processor = lambda image, return_tensors: {"pixel_values": Numbers(blocks(image)[None, None])}  # noqa: E731
    of = types.SimpleNamespace
    modules["transformers"].AutoImageProcessor = of(from_pretrained=lambda name: processor)
    modules["transformers"].AutoModel = of(from_pretrained=lambda name: Model())
    return modules


def test_an_own_network_and_a_table_of_features_from_start_to_report(labelled, tmp_path, monkeypatch):
    """The table is made by the recipes of the docs, with stand-ins for what they import."""
    recipes = re.findall(r"^```python\n(import numpy.*?)^```", DOCS.read_text(encoding="utf-8"), re.M | re.S)
    assert len(recipes) == 2
    monkeypatch.chdir(labelled.parent)
    with (
        pytest.MonkeyPatch.context() as patched
    ):  # no longer than needed: others look whether there is a torch
        for name, module in stand_ins().items():
            patched.setitem(sys.modules, name, module)
        for recipe in recipes:
            exec(compile(recipe, "recipe", "exec"), {})
    with np.load("dinov3.npz") as first, np.load("dinov2.npz") as second:
        np.testing.assert_array_equal(first["features"], second["features"])
    arms = {"pixels": "pixels", "mine": network(), "dinov3": "features:dinov3.npz"}
    result = api.compare("tumors", out=tmp_path / "report", arm=arms, mode="probe,nearest", **QUICK)
    report = result.details
    assert report["kinds"] == {"pixels": "pixels", "mine": "network", "dinov3": "features"}
    assert entry_of(report, "dinov3")["provenance"] == {
        **{"init": "features", "source": "dinov3.npz", "rows": 56, "features": 36}
    }
    assert report["methods"].count("mine.keras") == report["methods"].count("dinov3.npz") == 1
    leaks = " ".join(report["leaks_with_pretraining"].values())
    assert "mine: your own network doesn't say what it was trained on" in leaks
    assert "dinov3: a table of features doesn't say" in leaks
    page = result.page.read_text(encoding="utf-8")
    assert "a table of features that were made elsewhere" in page
    assert "your own network" in page

    # A network built again is the same one; a table with another number is not.
    arms["mine"] = network()
    repeat = api.compare("tumors", out=tmp_path / "report", arm=arms, mode="probe,nearest", **QUICK)
    assert repeat.trials_done_before == repeat.trials
    with np.load("dinov3.npz") as table:
        files, features = table["files"], table["features"]
    features[0, 0] += 1
    arms["dinov3"] = (files, features)
    changed = api.compare("tumors", out=tmp_path / "report", arm=arms, mode="probe,nearest", **QUICK)
    assert changed.trials_done_before == changed.trials * 2 // 3
    with pytest.raises(api.UserError, match=r"--arm dinov3=features:.*have no row"):
        api.compare(
            "tumors", out=tmp_path / "r", arm=[("dinov3", (files[1:20], features[1:20])), "pixels"], **QUICK
        )
    arms = {"dinov3": arms["dinov3"], "mine": arms["mine"], "other": network(1)}
    with pytest.raises(api.UserError, match="dinov3: has no network to fine-tune"):
        api.compare("tumors", out=tmp_path / "r", arm=arms, mode="finetune", **QUICK)


def test_own_networks_are_fine_tuned(labelled, tmp_path):
    """Without a published split, to spare its trainings; of other sizes and channels than the images."""
    arms = {"mine": network(), "other": network(seed=1, channels=1, size=24)}
    result = api.compare(
        *(labelled / "Training",),
        **{"out": tmp_path / "report", "arm": arms, "mode": "finetune", "epochs": 1, "calibration": "none"},
        executor=ThreadPoolExecutor(
            1
        ),  # here, as a process of its own would take longer to start than to train
        **QUICK,
    )
    assert [row["mode"] for row in result.rows()] == ["finetune", "finetune"]
    assert all(row["macro_f1_estimate"] > 0 for row in result.rows())
    assert list((tmp_path / "report" / "figures").glob("gradcam-*.png"))  # where they look is shown
