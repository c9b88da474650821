import dataclasses

import pytest

from mri_transfer.finetune.config import Recipe
from mri_transfer.finetune.heads.stages import Stage, stages, steps_of

PLAIN = Recipe(epochs=12, batch=32, rate=2e-4, calibration="none")
GRID = dataclasses.replace(PLAIN, rates=(1e-3, 1e-4, 3e-4))


def test_a_plain_recipe_is_one_training():
    assert stages(PLAIN, 320, inner=True) == [Stage("final", 2e-4, 12)]


def test_every_rate_of_the_grid_has_a_short_training_and_the_last_takes_the_best():
    assert stages(GRID, 320, inner=True) == [
        *(Stage("rate", rate, 4) for rate in (1e-4, 3e-4, 1e-3)),
        Stage("final", None, 12),
    ]


def test_a_grid_of_one_is_no_choice():
    assert stages(dataclasses.replace(PLAIN, rates=(1e-3,)), 320, inner=True) == [Stage("final", 1e-3, 12)]


@pytest.mark.parametrize("change", [{"calibration": "temperature"}, {"early_stopping": True}])
def test_calibration_and_stopping_need_one_full_training_on_the_inner_split(change):
    assert stages(dataclasses.replace(GRID, **change), 320, inner=True)[-2:] == [
        Stage("calibration", None, 12),
        Stage("final", None, 12),
    ]


def test_without_an_inner_split_the_middle_of_the_grid_is_taken():
    assert stages(dataclasses.replace(GRID, calibration="temperature"), 320, inner=False) == [
        Stage("final", 3e-4, 12)
    ]


def test_a_recipe_without_epochs_is_the_probe():
    assert [stage.epochs for stage in stages(dataclasses.replace(GRID, epochs=0), 320, inner=True)] == [0]


def test_steps_are_those_of_all_stages():
    assert steps_of(PLAIN, 320) == 120
    assert steps_of(dataclasses.replace(PLAIN, calibration="temperature"), 320) == 12 * 8 + 120
    assert steps_of(dataclasses.replace(GRID, calibration="temperature"), 320) == 3 * 4 * 8 + 12 * 8 + 120


def test_few_images_are_gone_over_more_often_unless_the_epochs_are_given():
    free = dataclasses.replace(PLAIN, epochs=None, usual=12, least_steps=300)
    assert [free.passes(images) for images in (3200, 800, 256, 96, 10)] == [12, 12, 38, 100, 300]
    assert stages(free, 96, inner=True) == [Stage("final", 2e-4, 100)]
    assert stages(PLAIN, 96, inner=True) == [Stage("final", 2e-4, 12)]
    assert steps_of(free, 96) == 300
