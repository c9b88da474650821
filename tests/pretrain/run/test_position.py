import pytest

from mri_transfer.errors import UserError
from mri_transfer.pretrain.run.position import Position


def test_what_is_saved_comes_back_also_of_other_versions():
    position = Position(step=3, seconds=2.5, diverged=[1], monitor_seconds={"health": 1.0}, micro_batch=None)
    info = position.info()
    assert Position.from_info(info) == position
    assert Position.from_info({**info, "of a later version": {}}) == position
    assert Position.from_info({"step": 3, "seconds": 1}) == Position(step=3, seconds=1)


@pytest.mark.parametrize("name", list(Position().info()))
@pytest.mark.parametrize("value", ["3", {"a": "b"}, [None], True])
def test_a_value_of_another_type_is_one_line(name, value):
    with pytest.raises(UserError, match=rf"state/ is damaged \({name}\); choose another --out$"):
        Position.from_info({**Position().info(), name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("step", -1), ("seconds", -0.5), ("size", 0), ("size", 2000), ("size", 10**9), ("micro_batch", -2)],
)
def test_a_value_that_no_run_has_is_one_line(name, value):
    with pytest.raises(UserError, match=rf"state/ is damaged \({name}\); choose another --out$"):
        Position.from_info({**Position().info(), name: value})
