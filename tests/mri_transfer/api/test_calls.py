"""Commands as functions: the same configuration as the command line makes, and errors of one line."""

import importlib
import inspect
from pathlib import Path

import pytest

from mri_transfer import api, cli
from mri_transfer.errors import UserError
from mri_transfer.finetune.config import CompareConfig, PredictConfig
from mri_transfer.options import configure, from_arguments


def parsed(command, *words):
    module, name = cli.COMMANDS[command].config.split(":")
    config = getattr(importlib.import_module(module), name)
    return from_arguments(config, cli.build_parser(command).parse_args([command, *words]))


def test_a_call_is_what_the_command_line_makes():
    words = (
        "t",
        "--out",
        "r",
        "--arm",
        "random",
        "--arm",
        "mri=runs/mri",
        "--fractions",
        "0.05,1",
        "--dry-run",
    )
    call = {"out": "r", "arm": ["random", "mri=runs/mri"], "fractions": [0.05, 1.0], "dry_run": True}
    assert configure(CompareConfig, ("t",), call) == parsed("compare", *words)
    assert configure(CompareConfig, (), {"tumors": Path("t"), "out": "r", "arm": "random"}).arm == ("random",)
    expected = parsed("predict", "run", "a.png", "b", "--gradcam", "g", "--spacing", "2.5")
    assert configure(PredictConfig, ("run", ("a.png", "b")), {"gradcam": "g", "spacing": 2.5}) == expected


def test_numbers_keep_their_digits():
    third = 1 / 3
    config = configure(CompareConfig, ("t",), {"out": "r", "fractions": (third, 1.0), "rate": third})
    assert config.fractions[0] == third
    assert config.rate == third


def test_none_stands_for_the_default():
    config = configure(CompareConfig, ("t",), {"out": "r", "size": None, "seeds": None, "epochs": None})
    assert config == configure(CompareConfig, ("t",), {"out": "r"})


@pytest.mark.parametrize("path", ["", "a\0b", 3, {"a": 1}, range(400)])
def test_what_is_no_path_is_one_line(path):
    for options in ({"tumors": path, "out": "r"}, {"tumors": "t", "out": path}):
        with pytest.raises(UserError, match=r"no file has that name|must be a path") as error:
            configure(CompareConfig, (), options)
        assert len(str(error.value)) < 260
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="arm=3: give text"):
        api.compare("t", out="r", arm=3)


def test_an_empty_path_on_the_command_line(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["compare", "t", "--out", ""])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--out: '': no file has that name" in line


def test_a_recipe_sets_defaults_as_on_the_command_line():
    from mri_transfer.pretrain.config import PretrainConfig
    from mri_transfer.pretrain.recipes import RECIPES

    name = next(iter(RECIPES))
    config = configure(PretrainConfig, ("s",), {"out": "r", "recipe": name, "hours": 1, "seed": 3})
    preset = PretrainConfig.preset({"recipe": name, "hours": 1})
    for key, value in preset.items():
        assert getattr(config, key) == value
    assert config.seed == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"out": "r", "sede": 1}, "sede: no such option; did you mean seed?"),
        ({}, "out: is required"),
        ({"out": "r", "folds": 1}, "folds=1: must be at least 2"),
        ({"out": "r", "seeds": "x"}, "seeds='x'"),
        ({"out": "r", "mode": "all"}, "mode='all': there is no mode 'all'"),
        ({"out": 3}, "out=3"),
        ({"out": "r", "folds": [3]}, "folds=[3]: takes one value"),
    ],
)
def test_mistakes_are_one_line(options, words):
    with pytest.raises(UserError) as error:
        api.compare("tumors", **options)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_every_command_has_its_function():
    for command in set(cli.COMMANDS) - {"demo", "doctor"}:
        function = getattr(api, command.replace("-", "_"))
        assert inspect.getdoc(function)


def test_a_function_returns_what_the_command_does(tmp_path, small_volumes):
    summary = api.slices(small_volumes, out=tmp_path / "store", size=48, workers=1)
    assert summary["slices"] > 10
    with pytest.raises(UserError, match="no such"):
        api.predict(tmp_path / "none", "a.png")


def test_lists_are_taken_where_several_values_are():
    config = configure(CompareConfig, ("t",), {"out": "r", "mode": ["nearest", "probe"]})
    assert config.mode == configure(CompareConfig, ("t",), {"out": "r", "mode": "probe,nearest"}).mode
    assert configure(PredictConfig, ("run", (["a.png", "b.png"],)), {}).images == (
        Path("a.png"),
        Path("b.png"),
    )


@pytest.mark.parametrize("callbacks", [[print], [api.Callback]])
def test_what_is_no_callback_is_refused_before_the_start(tmp_path, callbacks):
    with pytest.raises(UserError, match="is not a callback; make an object of a class that extends"):
        api.pretrain("store", out=tmp_path / "r", steps=1, callbacks=callbacks)


@pytest.mark.parametrize(("name", "method"), [("mine", "a class"), ("mine", int), ("", None), ("a b", None)])
def test_what_is_no_method_is_refused(name, method):
    from mri_transfer.pretrain.methods.simclr import SimCLR

    with pytest.raises(UserError, match="is no"):
        api.register_method(name, method or SimCLR)


def test_the_published_encoders_are_a_table():
    assert [row["name"] for row in api.encoders(quiet=True).rows()] == ["mri", "imagenet-mri"]
