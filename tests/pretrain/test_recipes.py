"""Recipes set what was not given, and a budget of one's own replaces theirs."""

import dataclasses
from pathlib import Path

import pytest

from mri_transfer.cli import build_parser
from mri_transfer.options import from_arguments
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.recipes import BUDGETS, RECIPES


def config(*words):
    arguments = ["pretrain", "store", "--out", "run", *words]
    preset = PretrainConfig.preset(vars(build_parser("pretrain").parse_args(arguments)))
    return from_arguments(PretrainConfig, build_parser("pretrain", preset).parse_args(arguments))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_sets_options_that_exist_and_one_budget(name):
    recipe = RECIPES[name]
    fields = {field.name for field in dataclasses.fields(PretrainConfig)}
    assert set(recipe.settings) <= fields
    assert len(set(recipe.settings) & set(BUDGETS)) == 1
    options = config("--recipe", name)
    assert all(getattr(options, key) == value for key, value in recipe.settings.items())


def test_options_of_ones_own_win():
    options = config("--recipe", "night-8gb", "--batch", "7", "--minutes", "5")
    assert (options.batch, options.minutes, options.hours) == (7, 5.0, None)
    assert options.size == RECIPES["night-8gb"].settings["size"]


def test_without_a_recipe_nothing_changes():
    assert config("--steps", "3") == PretrainConfig(store=Path("store"), out=Path("run"), steps=3)


def test_the_help_lists_them(capsys):
    with pytest.raises(SystemExit):
        build_parser("pretrain").parse_args(["pretrain", "--help"])
    output = capsys.readouterr().out
    assert all(name in output and recipe.purpose in output for name, recipe in RECIPES.items())
