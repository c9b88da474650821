"""Settings of an earlier run, given again with changes."""

import json
from pathlib import Path

import pytest

from mri_transfer import settings
from mri_transfer.cli import build_parser
from mri_transfer.errors import UserError
from mri_transfer.finetune.config import CompareConfig
from mri_transfer.options import as_dict
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.storage.files import write_card, write_json


def merged(kind, command, *words):
    return settings.merged(kind, settings.given_in(build_parser(command), [command, *map(str, words)]))


@pytest.fixture
def run(tmp_path):
    config = PretrainConfig(
        **{"store": Path("s"), "out": Path("r"), "steps": 7, "view": ("jpeg=0",), "method": "moco"},
        **{"temperature": 0.3, "seed": 4, "keep_going": True, "banner": "generated"},
    )
    write_card(tmp_path / "config.json", {"config": as_dict(config), "data": {}, "versions": {}})
    return config, tmp_path


def test_settings_come_back_as_they_were(run):
    config, folder = run
    expected = as_dict(config) | {"banner": ""}
    for path in (folder, folder / "config.json"):
        assert as_dict(merged(PretrainConfig, "pretrain", "--config", path)) == expected
    assert settings.settings_of(folder)["temperature"] == 0.3


def test_what_is_given_beside_them_wins(run):
    _, folder = run
    config = merged(
        PretrainConfig, "pretrain", "other", f"--config={folder}", "--seed", 0, "--view", "blur=2"
    )
    assert (config.store, config.seed, config.view) == (Path("other"), 0, ("blur=2",))
    assert (config.out, config.steps, config.method) == (Path("r"), 7, "moco")
    for_hours = merged(PretrainConfig, "pretrain", "--config", folder, "--hours", "8h")
    assert (for_hours.hours, for_hours.steps) == (8, None)  # of budgets there can be one


def test_a_comparison_comes_back_from_its_report(tmp_path):
    config = CompareConfig(
        **{"tumors": Path("t"), "out": Path("o"), "arm": ("random", "mri=r"), "fractions": (0.1, 1.0)}
    )
    options = {key: value for key, value in as_dict(config).items() if key != "banner"}
    write_json(tmp_path / "report.json", {"settings": {"options": options}, "results": []})
    assert merged(CompareConfig, "compare", "--config", tmp_path) == config
    changed = merged(CompareConfig, "compare", "--config", tmp_path, "--arm", "imagenet", "--arm", "mri=q")
    assert changed.arm == ("imagenet", "mri=q")
    assert changed.fractions == (0.1, 1.0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"config": {"out": "r", "sede": 1}}, "sede: no such option; did you mean seed?; remove it"),
        ({"config": {"store": "s", "out": "r", "batch": "x"}}, "batch='x'"),
        (
            {"config": {"tumors": "t", "out": "r"}},
            "tumors is not an option of `pretrain`; name a run of `pretrain`",
        ),
        ({"out": "r"}, "store: is required"),
        ({"kind": "slice store"}, "holds no settings"),
        ({"kind": "slice store", "settings": ["options"]}, "holds no settings"),
        (None, "holds no settings (config.json or report.json)"),
    ],
)
def test_what_is_no_settings_is_one_line(tmp_path, refuses, content, words):
    if content is not None:
        (tmp_path / "config.json").write_text(json.dumps(content), encoding="utf-8")
    path = tmp_path if content is None else tmp_path / "config.json"
    refuses("pretrain", "--config", path, words=(words,))
    refuses("pretrain", "--config", tmp_path / "none.json", words=("none.json: no such file",))


def test_from_python(run):
    from mri_transfer import api

    _, folder = run
    with pytest.raises(UserError, match="give exactly one of"):
        api.pretrain(**api.settings(folder) | {"hours": 1})
