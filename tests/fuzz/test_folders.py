"""What `folders.py` has found, as fast tests; and its first inputs, the same ones each time, among the slow ones."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.datasets.store.writer import StoreWriter
from mri_transfer.errors import UserError
from mri_transfer.finetune.planning.plan import adherence, digest_of
from mri_transfer.storage.json_lines import line_of, value_of
from mri_transfer.storage.sums import SUMS
from tests.fuzz.folders import fit_checksums

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(small_store, tmp_path):
    shutil.copytree(small_store, tmp_path / "store")
    return tmp_path / "store"


def changed_rows(content, change):
    rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
    change(rows)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


TABLES = {
    "no UTF-8": lambda content: b"\xff" + content,
    "UTF-16": lambda content: content.decode().encode("utf-16"),
    "a cell too few": lambda content: changed_rows(content, lambda rows: rows[3].pop()),
    "a cell too many": lambda content: changed_rows(content, lambda rows: rows[3].append("x")),
    "no number": lambda content: changed_rows(content, lambda rows: rows[2].__setitem__(4, "x")),
    "a number too long": lambda content: changed_rows(
        content, lambda rows: rows[2].__setitem__(6, "9" * 5000)
    ),
    "a volume that is none": lambda content: changed_rows(content, lambda rows: rows[2].__setitem__(6, "77")),
    "a cell too long": lambda content: changed_rows(
        content, lambda rows: rows[2].__setitem__(0, "z" * 200_000)
    ),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_of_a_store_with_fitting_checksums(store, kind):
    content = (store / "slices.csv").read_bytes()
    after = TABLES[kind](content)
    (store / "slices.csv").write_bytes(after)
    fit_checksums(store, content, after)
    with pytest.raises(UserError, match=r"slices\.csv: (damaged|its columns)"):
        SliceStore.open(store)


LINES = {
    "no name of a plane": lambda event: event["planes"].__setitem__(0, 0.5),
    "no place": lambda event: event["position"].__setitem__(0, "x"),
    "a place less": lambda event: event["position"].pop(),
    "no path": lambda event: event.__setitem__("path", None),
    "a sum that is none": lambda event: event.__setitem__("sha256", ["a"]),
    "evidence of another kind": lambda event: event["evidence"].__setitem__("parts", 7),
    "what was told is none": lambda event: event["evidence"].__setitem__("told", "abc"),
    "no kind of line": lambda event: event.__setitem__("kind", {"a": 1}),
}


@pytest.mark.parametrize("kind", LINES)
def test_a_line_of_a_journal_with_a_fitting_checksum(store, kind):
    lines = (store / "volumes.jsonl").read_bytes().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if value_of(line)["kind"] == "volume")
    event = value_of(lines[place])
    LINES[kind](event)
    lines[place] = line_of(event)
    (store / "volumes.jsonl").write_bytes(b"".join(lines))
    with pytest.raises(
        UserError, match=r"journal not understood \((planes|position|path|sha256|parts|told|kind)"
    ):
        StoreWriter(store, SliceStore.open(store).manifest["settings"])


@pytest.mark.parametrize("field", ["planned", "before"])
def test_a_plan_of_other_values_with_a_fitting_hash(tmp_path, field):
    path, planned, before = (
        tmp_path / "plan.json",
        {"arms": {"a": {"weights": ["1"]}}},
        {"trials": 0, "looks": 0},
    )
    adherence(path, planned, "", before)
    plan = json.loads(path.read_text())
    plan[field] = {"planned": {"arms": {"a": 3}}, "before": {"trials": "many"}}[field]
    path.write_text(json.dumps(plan | {"sha256": digest_of(plan)}))
    with pytest.raises(UserError, match="is not a comparison plan"):
        adherence(path, planned, "", before)


def test_names_in_a_list_of_checksums_are_not_obeyed(store, cli):
    with (store / SUMS).open("ab") as file:
        file.write(b"0" * 64 + b"  \x1b[2J\xff\n")
    done = cli("verify", store)
    assert done.returncode == 2
    assert "\x1b" not in done.stderr + done.stdout
    assert "\\x1b[2J\\xff: is missing" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the fuzzer uses Linux's timers")
def test_the_first_damaged_folders(tmp_path):
    command = [sys.executable, "-m", "tests.fuzz.folders", "--inputs", "75", "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=850)
    assert done.returncode == 0, done.stderr[-2000:]
    assert ", 0 kept in" in done.stdout, done.stdout[-4000:]
