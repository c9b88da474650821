import errno
import json
import math
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from mri_transfer.errors import UserError
from mri_transfer.storage.files import (
    FOLDER_CARD,
    NewerFormat,
    atomic_write,
    claim_folder,
    folder_kind,
    parse_json,
    read_json,
    read_object,
    require_folder,
    sha256,
    write_card,
    write_json,
    wrong_fields,
)


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted():
        with atomic_write(path) as file:
            file.write("half of the new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_json_round_trip_of_numpy_values(tmp_path):
    write_json(
        tmp_path / "a.json",
        {"n": np.int64(3), "x": np.float32(0.5), "v": np.arange(3), "p": tmp_path, "ü": "é"},
    )
    assert read_json(tmp_path / "a.json") == {"n": 3, "x": 0.5, "v": [0, 1, 2], "p": str(tmp_path), "ü": "é"}


def test_json_refuses_what_json_lacks(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": math.nan})
    assert not list(tmp_path.iterdir())


def test_unreadable_json_names_the_file(tmp_path):
    (tmp_path / "a.json").write_text("{torn")
    with pytest.raises(UserError, match=r"a\.json"):
        read_json(tmp_path / "a.json")
    with pytest.raises(UserError, match="no such file"):
        read_json(tmp_path / "b.json")


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-4, appendix B.1
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_is_claimed_once_and_for_one_kind(tmp_path):
    out = tmp_path / "deep" / "out"
    assert claim_folder(out, "slice store") is False
    assert claim_folder(out, "slice store") is True
    with pytest.raises(UserError, match="holds a slice store, not a pretraining run"):
        claim_folder(out, "pretraining run")
    assert require_folder(out, "slice store", "slices") == out
    with pytest.raises(UserError, match="mri-transfer pretrain"):
        require_folder(out, "pretraining run", "pretrain")


def test_other_peoples_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(UserError, match="something else"):
        claim_folder(tmp_path, "slice store")
    with pytest.raises(UserError, match="is a file"):
        claim_folder(tmp_path / "thesis.txt", "slice store")
    with pytest.raises(UserError, match="can't be made"):
        claim_folder(tmp_path / "thesis.txt" / "below", "slice store")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_card_of_another_kind_of_kind_is_damaged(tmp_path):
    write_card(tmp_path / FOLDER_CARD, {"kind": ["slice store"]})
    for use in (folder_kind, lambda folder: claim_folder(folder, "slice store")):
        with pytest.raises(UserError, match=r"folder\.json: is damaged \(kind\)"):
            use(tmp_path)


def test_a_torn_first_claim_can_be_claimed_again(tmp_path):
    (tmp_path / "folder.json.1a2b3c4d.part").write_text("{")
    assert claim_folder(tmp_path, "slice store") is False
    assert json.loads((tmp_path / "folder.json").read_text())["kind"] == "slice store"


def test_a_full_disk_is_one_line_at_the_command_line(capsys, monkeypatch, tmp_path):
    from mri_transfer import cli

    def full(config):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x"))

    monkeypatch.setattr(
        cli, "load", lambda reference: full if reference.endswith(":audit") else original(reference)
    )
    assert cli.main(["audit", str(tmp_path)]) == 2
    line = capsys.readouterr().err.strip()
    assert "\n" not in line
    assert "no space left" in line
    assert str(tmp_path / "x") in line


def original(reference):
    import importlib

    module, name = reference.split(":")
    return getattr(importlib.import_module(module), name)


BAD = {
    "nested": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested but parsed": b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}",
    "digits": b'{"a": ' + b"7" * 4300 + b"}",
    "infinite": b'{"a": Infinity}',
    "nan": b'{"a": NaN}',
    "overflow": b'{"a": 1e999}',
    "latin": '{"a": "é"}'.encode("latin-1"),
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "empty": b"",
    "torn": b'{"a": 1',
    "half a character": b'{"a": "\\uD83D"}',
    "half a character as a name": b'{"\\ude00": 1}',
}


def test_escaped_characters_and_bytes_of_file_names_are_read():
    assert parse_json(r'["\ud83d\ude00", "\udc80", "\\ud83d"]') == ["😀", "\udc80", r"\ud83d"]


@pytest.mark.parametrize("kind", BAD)
def test_whatever_is_no_json_is_one_line_with_the_remedy(tmp_path, kind):
    path = tmp_path / "a.json"
    path.write_bytes(BAD[kind])
    with pytest.raises(UserError, match=r"a\.json: not readable as JSON .*; bake it again$") as error:
        read_json(path, "bake it again")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", ["[]", "3", '"text"', "null", '{"n": "1"}', '{"n": true}', '{"n": 1.0}', "{}"]
)
def test_fields_of_other_types_are_one_line(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"a\.json: is damaged \((n|not a JSON object)\); bake it again$"):
        read_object(path, {"n": int}, remedy="bake it again")
    path.write_text('{"n": 1}')
    assert read_object(path, {"n": int}) == {"n": 1}


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ([str], ([], ["a", "b"]), ("a", ["a", 1], {"a": "b"}, None)),
        ([(int, float)], ([1, 0.5],), (["1"], [True], [None])),
        ([[str]], ([["a"], []],), (["a"], [[1]])),
        (dict[str, int], ({}, {"a": 1}), ({"a": "1"}, [1], 1)),
        ({"a": int, "b": [str]}, ({"a": 1, "b": [], "c": 0},), ({"a": 1}, {"a": 1, "b": [2]}, [], None)),
        ([{"a": int}], ([{"a": 1}], []), ([{"a": 1}, {}], {"a": 1}, [1])),
        ((str, type(None)), ("a", None), (1, False)),
    ],
)
def test_what_a_field_holds_is_looked_at_to_the_bottom(kind, good, bad):
    assert all(wrong_fields({"x": value}, {"x": kind}) == [] for value in good)
    assert all(wrong_fields({"x": value}, {"x": kind}) == ["x"] for value in bad)


def test_a_newer_format_is_no_damage(tmp_path):
    (tmp_path / "a.json").write_text('{"format": 3}')
    with pytest.raises(
        NewerFormat, match=r"a\.json: was written by a newer mri-transfer \(format 3\); update"
    ):
        read_object(tmp_path / "a.json", {"n": int}, newest=2)


def test_a_link_stays_a_link_and_its_target_is_written(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "real.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    write_json(link, {"new": 1})
    assert link.is_symlink()
    assert json.loads(target.read_text()) == {"new": 1}
    target.unlink()
    write_json(link, {"newer": 2})  # a link to a file that is not there yet
    assert json.loads(target.read_text()) == {"newer": 2}
    assert not list(tmp_path.rglob("*.part"))


def test_devices_and_pipes_are_written_to_and_not_replaced(tmp_path):
    write_json(Path(os.devnull), {"a": 1})
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    texts = []
    reader = threading.Thread(target=lambda: texts.append(pipe.read_text()))
    reader.start()
    write_json(pipe, {"a": 1})
    reader.join(10)
    assert json.loads(texts[0]) == {"a": 1}
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    with pytest.raises(IsADirectoryError):
        write_json(tmp_path, {})


@pytest.mark.parametrize("how", ["a pipe", "a file"])
def test_what_is_printed_to_is_added_to(tmp_path, how):
    code = (
        "from pathlib import Path; from mri_transfer.storage.files import write_json; print('before', flush=True); "
        "write_json(Path('/dev/stdout'), {'a': 1}); print('after')"
    )
    if how == "a pipe":
        output = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
    else:
        with (tmp_path / "out").open("w") as file:
            subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
        output = (tmp_path / "out").read_text()
    assert output.startswith("before\n{")
    if how == "a pipe":
        assert output.endswith("}\nafter\n")
