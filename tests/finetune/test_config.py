import subprocess
import sys
from pathlib import Path

import pytest

from mri_transfer.cli import build_parser
from mri_transfer.finetune.config import CompareConfig, FinetuneConfig, Recipe, modes
from mri_transfer.options import from_arguments


def parse(*words: str) -> CompareConfig:
    return from_arguments(CompareConfig, build_parser("compare").parse_args(["compare", *words]))


def test_arms_and_stores_can_be_repeated():
    config = parse("t", "--out", "o", "--arm", "random", "--arm", "mri=r", "--against", "a", "--against", "b")
    assert config.arm == ("random", "mri=r")
    assert [str(path) for path in config.against] == ["a", "b"]
    assert parse("t", "--out", "o").arm == ()


def test_fractions_are_a_sorted_list():
    assert parse("t", "--out", "o", "--fractions", "1,0.05,0.25").fractions == (0.05, 0.25, 1.0)


def test_rates_are_a_sorted_list_that_goes_into_the_recipe():
    config = parse("t", "--out", "o", "--rates", "1e-3,1e-4,3e-4", "--calibration", "none")
    assert config.recipe().rates == (1e-4, 3e-4, 1e-3)
    assert config.recipe().calibration == "none"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("folds", "1"),
        ("seeds", "0"),
        ("fractions", "0"),
        ("fractions", "1.5"),
        ("unfreeze", "2"),
        ("rate", "0"),
        ("rates", "1e-3,-1"),
        ("rates", "fast"),
        ("calibration", "isotonic"),
        ("size", "x"),
    ],
)
def test_impossible_values_are_refused(option, value, capsys):
    with pytest.raises(SystemExit) as error:
        parse("t", "--out", "o", f"--{option}", value)
    assert error.value.code == 2
    assert f"--{option}" in capsys.readouterr().err


def test_the_recipe_has_one_place_for_its_defaults():
    assert parse("t", "--out", "o").recipe() == Recipe()
    assert FinetuneConfig(tumors="t", out="o").recipe() == Recipe()
    assert parse("t", "--out", "o", "--epochs", "3", "--rate", "0.01").recipe() == Recipe(epochs=3, rate=0.01)


def test_help_says_that_fine_tuning_takes_hours(capsys):
    with pytest.raises(SystemExit):
        build_parser("compare").parse_args(["compare", "--help"])
    text = capsys.readouterr().out
    assert "hours" in text
    assert "--mode both" in text
    assert "banner" not in text


def test_configuration_and_probe_workers_import_no_keras():
    code = "import sys, mri_transfer.finetune.config, mri_transfer.finetune.heads.probe; print('keras' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("probe", ("probe",)),
        ("both", ("probe", "finetune")),
        ("finetune,probe", ("probe", "finetune")),
        ("nearest, both", ("probe", "nearest", "finetune")),
    ],
)
def test_modes_are_a_list_in_one_order(text, expected):
    assert CompareConfig(tumors=Path("t"), out=Path("o"), mode=modes(text)).modes() == expected


@pytest.mark.parametrize("text", ["", "knn", "probe,knn", "probe,,nearest"])
def test_an_unknown_mode_names_those_there_are(text):
    with pytest.raises(ValueError, match="probe, nearest, finetune, or both"):
        modes(text)
