"""The method of one's own in the docs trains."""

import re
from pathlib import Path

import pytest

from mri_transfer.errors import UserError
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.methods import BUILT_IN, METHODS, register

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def as_before():
    yield
    for name in set(METHODS) - set(BUILT_IN):
        del METHODS[name]


def test_a_registered_method_is_a_choice_and_built_in_ones_are_safe():
    from mri_transfer.pretrain.methods.method import Method

    class Mine(Method): ...

    with pytest.raises(UserError, match="simclr: is a method of this program"):
        register("simclr", Mine)
    with pytest.raises(UserError, match="say subjects, pairs or nothing"):
        register("mine", Mine, compares="images")
    register("mine", Mine, compares="nothing", options={"temperature": 0.2})
    assert METHODS["mine"].made is Mine
    assert (
        PretrainConfig(store=Path("s"), out=Path("o"), method="mine", temperature=0.1, batch=1).method
        == "mine"
    )


@pytest.mark.slow
def test_the_method_of_the_docs_trains(small_store, tmp_path, monkeypatch):
    text = (ROOT / "docs" / "own_networks.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(from keras import ops.*?)^```", text, re.M | re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").symlink_to(small_store)
    names: dict = {}
    exec(block.replace("hours=8", "steps=2, batch=4, size=32"), names)
    run = names["api"].settings("runs/alignment")
    assert run["method"] == "alignment"
    assert names["api"].load_encoder("runs/alignment").about["provenance"]["method"] == "alignment"
