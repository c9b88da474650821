"""The user's own Kaggle token: found where Kaggle's client keeps it, sent to Kaggle and to nobody else."""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path

import pytest

from mri_transfer.datasets.fetch import sources
from mri_transfer.datasets.fetch.kaggle import Bearer, credentials
from mri_transfer.errors import UserError

PATH = "/sartajbhuvaji/brain-tumor-classification-mri"


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def kaggle(site, tools, monkeypatch):
    """The server in Kaggle's place: without a mirror, so that the token is sent."""
    site.put(PATH, tools.make_zip(tools.tumors()))
    entry = dataclasses.replace(sources.SOURCES["tumors"], base=site.url)
    monkeypatch.setitem(sources.SOURCES, "tumors", entry)
    return site


def basic(name, key):
    return "Basic " + base64.b64encode(f"{name}:{key}".encode()).decode()


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ({"KAGGLE_API_TOKEN": "KGAT_1"}, "Bearer KGAT_1"),
        ({"KAGGLE_USERNAME": "ada", "KAGGLE_KEY": "k1"}, basic("ada", "k1")),
        (".kaggle/kaggle.json", basic("eve", "k2")),
        (".kaggle/access_token", "Bearer KGAT_2"),
        (".config/kaggle/kaggle.json", basic("eve", "k2")),
        ("elsewhere/kaggle.json", basic("eve", "k2")),
    ],
    ids=["env-token", "env-name-and-key", "kaggle-json", "access-token", "xdg", "config-dir"],
)
def test_the_token_is_found_and_sent(
    cli, kaggle, home, monkeypatch, tmp_path, tools, content_of, place, expected
):
    if isinstance(place, dict):
        for name, value in place.items():
            monkeypatch.setenv(name, value)
    else:
        file = home / place
        file.parent.mkdir(parents=True)
        file.write_text(
            "KGAT_2\n" if file.name == "access_token" else json.dumps({"username": "eve", "key": "k2"})
        )
        if place.startswith("elsewhere"):
            monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(file.parent))
    done = cli("fetch", "tumors", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert content_of(tmp_path / "out") == tools.tumors()
    assert [headers["Authorization"] for headers in kaggle.gets(PATH)] == [expected]
    output = done.stderr + "".join(
        path.read_text() for path in (tmp_path / "out").glob("*.*") if path.is_file()
    )
    for secret in ("KGAT", "k1", expected.split()[1]):
        assert secret not in output


def test_the_token_does_not_follow_to_another_host(cli, kaggle, monkeypatch, tmp_path):
    """Kaggle redirects to a signed address of a storage service."""
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_1")
    kaggle.put("/signed.zip", kaggle.files[PATH].body)
    address = kaggle.url.replace("127.0.0.1", "localhost")
    kaggle.rule = lambda path, number: (
        ("redirect", f"{address}/signed.zip?signature=1") if path == PATH else None
    )
    assert cli("fetch", "tumors", "--out", tmp_path / "out").returncode == 0
    assert [headers.get("Authorization") for headers in kaggle.gets(PATH)] == ["Bearer KGAT_1"]
    assert [headers.get("Authorization") for headers in kaggle.gets("/signed.zip")] == [None]


def test_the_token_is_not_sent_to_a_mirror(cli, kaggle, monkeypatch, tmp_path):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_1")
    assert cli("fetch", "tumors", "--out", tmp_path / "out", "--mirror", kaggle.url).returncode == 0
    assert all("Authorization" not in headers for _, _, headers in kaggle.requests)


def test_a_refused_token(cli, kaggle, monkeypatch, tmp_path):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "old")
    kaggle.plan(PATH, ("status", 401))
    done = cli("fetch", "tumors", "--out", tmp_path / "out")
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert "Kaggle does not accept the token" in line
    assert "--zip FILE" in line


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"username": "x"}', "[" * 99_999])
def test_a_token_file_that_holds_none(home, content):
    (home / ".kaggle").mkdir()
    (home / ".kaggle" / "kaggle.json").write_text(content)
    with pytest.raises(UserError, match="no readable Kaggle token"):
        credentials()


def test_the_environment_comes_first(home, monkeypatch):
    (home / ".kaggle").mkdir()
    (home / ".kaggle" / "kaggle.json").write_text('{"username": "x", "key": "y"}')
    monkeypatch.setenv("KAGGLE_API_TOKEN", " KGAT_3 ")
    authorization = credentials()
    assert isinstance(authorization, Bearer)
    assert authorization.token == "KGAT_3"
