"""What a user or a server can get wrong: one clear line, exit code 2, nothing lost."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import zipfile

import pytest

from mri_transfer.datasets.tumors.images import list_images


@pytest.fixture(autouse=True)
def no_token(monkeypatch, tmp_path):
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "no-kaggle"))


@pytest.fixture
def serve(site, tools, published):
    """Serve a source in small; returns it."""

    def start(name):
        source = tools.faithful[name]()
        for path, body in source.served.items():
            site.put(path, body)
        published(source.md5)
        return source

    return start


@pytest.fixture
def run(cli, site, tmp_path):
    """Fetch from the server into `tmp_path/out`, giving up soon."""

    def start(*arguments):
        return cli("fetch", *arguments, "--out", tmp_path / "out", "--mirror", site.url, "--retries", 1)

    return start


def last_line(done) -> str:
    assert done.returncode == 2, done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["adni"], ("adni", "ixi, oasis1, openneuro, tumors")),
        (["openneuro"], ("ds000001",)),
        (["openneuro", "ds1"], ("'ds1'", "ds000001")),
        (["openneuro", "../ds000001"], ("ds000001",)),
        (["ixi", "T1"], ("T1", "takes no NAME")),
        (["ixi", "--zip", "x.zip"], ("x.zip", "tumors")),
        (["tumors", "--zip", "none.zip"], ("none.zip", "no such file")),
        (["ixi", "--mirror", "example.org/ixi"], ("example.org/ixi", "https://")),
        (["ixi", "--mirror", "file:///data"], ("file:///data", "https://")),
    ],
    ids=lambda value: "-".join(value).replace("/", "") if isinstance(value, list) else "",
)
def test_options_that_make_no_sense(refuses, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    refuses("fetch", *arguments, "--out", "out", words=words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--modalities", "T1,T3", "T1,T2,PD,MRA"),
        ("--discs", "0", "1 to 12"),
        ("--discs", "1-13", "1 to 12"),
        ("--discs", "one", "1,3,5-8"),
        ("--parallel", "0", "at least 1"),
        ("--timeout", "0", "above 0"),
        ("--variant", "all", "subj111"),
    ],
)
def test_values_that_make_no_sense(cli, capfd, option, value, says):
    with pytest.raises(SystemExit) as error:
        cli("fetch", "ixi", "--out", "out", option, value)
    assert error.value.code == 2
    assert says in capfd.readouterr().err


def test_terms_that_need_agreement_are_shown_and_nothing_is_fetched(cli, site, serve, tmp_path):
    serve("oasis1")
    done = cli("fetch", "oasis1", "--out", tmp_path / "out", "--mirror", site.url)
    assert "--accept-terms" in last_line(done)
    assert "do not try to find out who the participants are" in done.stderr
    assert site.requests == []
    assert not (tmp_path / "out").exists()


def test_no_kaggle_token(cli, tmp_path):
    line = last_line(cli("fetch", "tumors", "--out", tmp_path / "out"))
    for word in ("Kaggle", "KAGGLE_API_TOKEN", "--zip FILE"):
        assert word in line


def test_a_folder_that_holds_something_else(run, serve, site, tmp_path):
    serve("ixi")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years")
    assert "holds something else" in last_line(run("ixi"))
    (tmp_path / "out" / "thesis.txt").unlink()
    assert run("ixi").returncode == 0
    assert "holds a copy of IXI, not a copy of the tumour set" in last_line(run("tumors"))


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (("status", 403), "access refused (403)"),
        (("status", 404), "not found (404)"),
        (("page",), "a web page came instead"),
        (("redirect", "/login.html"), "a web page came instead"),
    ],
    ids=["403", "404", "login-page", "redirect-to-login"],
)
def test_an_archive_that_cannot_be_had_does_not_keep_the_other(
    run, serve, site, tmp_path, content_of, action, words, tools
):
    small = serve("ixi")
    site.put("/login.html", tools.login, kind="text/html")
    site.plan("/IXI-T1.tar", action)
    line = last_line(run("ixi"))
    assert words in line
    assert "/IXI-T1.tar" in line
    expected = {name: body for name, body in small.expected.items() if "T2" in name}
    assert content_of(tmp_path / "out") == expected
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [failure["file"] for failure in summary["failed"]] == ["IXI-T1.tar"]
    assert run("ixi").returncode == 0
    assert content_of(tmp_path / "out") == small.expected


def test_a_dead_server_is_one_line_and_the_same_command_continues(run, serve, site, tmp_path, content_of):
    small = serve("ixi")
    site.rule = lambda path, number: ("drop", 50_000) if number == 1 else ("status", 503)
    line = last_line(run("ixi"))
    assert "503" in line
    assert "run the same command again to continue" in line
    site.rule = lambda path, number: None
    assert run("ixi").returncode == 0
    assert content_of(tmp_path / "out") == small.expected
    assert any("Range" in headers for headers in site.gets("/IXI-T1.tar") + site.gets("/IXI-T2.tar"))


@pytest.mark.parametrize("fault", ["truncated", "bits", "no-archive", "tar-cut-before-packing"])
def test_a_damaged_archive_is_fetched_again_once(run, serve, site, tmp_path, content_of, tools, fault):
    small = serve("oasis1")
    path = "/oasis_cross-sectional_disc1.tar.gz"
    good = site.files[path].body
    import gzip

    bad = {
        "truncated": good[: len(good) // 2],
        "bits": good[:2000] + bytes(100) + good[2100:],
        "no-archive": gzip.compress(b"hello " * 1000),
        "tar-cut-before-packing": gzip.compress(gzip.decompress(good)[:7000]),
    }[fault]
    site.put(path, bad)
    line = last_line(run(*small.arguments))
    assert path in line
    assert len(site.gets(path)) == 2
    assert all("disc12/" in name for name in content_of(tmp_path / "out"))

    def rule(address, number):
        site.put(path, bad if address == path and number <= 3 else good)

    site.rule = rule
    assert run(*small.arguments).returncode == 0
    assert content_of(tmp_path / "out") == small.expected


def test_a_member_that_leads_out_is_listed_and_the_rest_arrives(
    run, serve, site, tools, tmp_path, content_of, published
):
    import hashlib

    members = {
        "../../x": b"evil",
        "/IXI003-HH-1-T1.nii.gz": b"evil",
        "IXI001-Guys-1-T1.nii.gz": b"1",
        "notes.txt": b"",
    }
    tar = tools.make_tar(members)
    site.put("/IXI-T1.tar", tar)
    published({"T1": hashlib.md5(tar).hexdigest()})
    done = run("ixi", "--modalities", "T1")
    assert done.returncode == 0, done.stderr
    assert content_of(tmp_path / "out") == {"IXI-T1/IXI001-Guys-1-T1.nii.gz": b"1"}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [skip["member"] for skip in summary["skipped"]] == ["../../x", "/IXI003-HH-1-T1.nii.gz"]
    assert "leads out of the folder" in done.stderr
    strict = run("ixi", "--modalities", "T1", "--strict")
    assert "IXI-T1.tar: ../../x: a name that leads out" in last_line(strict)
    assert not (tmp_path / "x").exists()
    assert not (tmp_path.parent / "x").exists()


def test_the_lock_ends_with_its_process(run, serve, tmp_path):
    serve("ixi")
    assert run("ixi").returncode == 0
    code = f"""
import pathlib, time
from mri_transfer.datasets.fetch.transfer.receipts import Receipts
from mri_transfer.datasets.tumors.images import list_images
held = Receipts(pathlib.Path({str(tmp_path / "out")!r}))
print("held", flush=True)
time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    assert "another process" in last_line(run("ixi"))
    holder.kill()
    holder.wait()
    assert run("ixi").returncode == 0


def test_archives_are_kept_on_request_and_used_again(run, serve, site, tmp_path):
    small = serve("ixi")
    assert run("ixi", "--keep-archives").returncode == 0
    assert (tmp_path / "out" / "IXI-T1.tar").read_bytes() == small.served["/IXI-T1.tar"]
    gone = next(name for name in small.expected if "T1" in name)
    (tmp_path / "out" / gone).unlink()
    assert run("ixi", "--keep-archives").returncode == 0
    assert (tmp_path / "out" / gone).read_bytes() == small.expected[gone]
    assert len(site.gets("/IXI-T1.tar")) == 1


def test_an_archive_that_a_kill_left_behind_is_removed(run, serve, tmp_path):
    small = serve("ixi")
    assert run("ixi").returncode == 0
    left = tmp_path / "out" / "IXI-T1.tar"
    left.write_bytes(small.served["/IXI-T1.tar"])
    assert run("ixi").returncode == 0
    assert not left.exists()


def test_a_source_grows_in_one_folder(run, serve, tmp_path, content_of):
    small = serve("ixi")
    assert run("ixi", "--modalities", "T1").returncode == 0
    assert run("ixi", "--modalities", "t2").returncode == 0
    assert content_of(tmp_path / "out") == small.expected
    assert len((tmp_path / "out" / "volumes.csv").read_text().splitlines()) == 1 + len(small.expected)


@pytest.mark.parametrize(("variant", "part"), [("raw", "/RAW/"), ("t88", "/T88_111/")])
def test_another_variant_of_the_scans(run, serve, tmp_path, variant, part):
    small = serve("oasis1")
    assert run(*small.arguments, "--variant", variant).returncode == 0
    rows = (tmp_path / "out" / "volumes.csv").read_text().splitlines()[1:]
    assert len(rows) == 4
    assert all(part in row for row in rows)
    assert not any("FSL_SEG" in row or "masked" in row or "mpr-2" in row for row in rows)
    assert f"holds {variant} of oasis_cross-sectional_disc1.tar.gz" in last_line(run(*small.arguments))


def test_quiet_says_nothing(cli, serve, site, tmp_path):
    serve("ixi")
    done = cli("fetch", "ixi", "--out", tmp_path / "out", "--mirror", site.url, "--quiet", "--json", "-")
    assert done.stderr == ""
    assert json.loads(done.stdout)["command"] == "fetch"
    assert "CC BY-SA" in (tmp_path / "out" / "TERMS-ixi.txt").read_text()


# The tumour set, from a zip that the user has.


def own_zip(tmp_path, tools, change=lambda members: members):
    path = tmp_path / "archive.zip"
    path.write_bytes(tools.make_zip(change(tools.tumors())))
    return path


def test_a_zip_of_ones_own(cli, tools, tmp_path, content_of):
    path = own_zip(
        tmp_path,
        tools,
        lambda members: {
            **{f"brain/{name}": body for name, body in members.items()},
            "__MACOSX/brain/Training/no_tumor/._x.jpg": b"x",
        },
    )
    done = cli("fetch", "tumors", "--out", tmp_path / "out", "--zip", path)
    assert done.returncode == 0, done.stderr
    assert content_of(tmp_path / "out") == tools.tumors()
    assert path.is_file()
    assert f"next: mri-transfer audit {tmp_path / 'out'}" in done.stderr
    files, classes = list_images(tmp_path / "out")  # as the audit does
    assert (len(files), len(classes)) == (len(tools.tumors()), 4)
    assert cli("fetch", "tumors", "--out", tmp_path / "out", "--zip", path).returncode == 0


def test_a_bad_image_in_ones_own_zip_is_listed(cli, tools, tmp_path, content_of):
    path = own_zip(tmp_path, tools)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 16] ^= 1
    path.write_bytes(content)
    done = cli("fetch", "tumors", "--out", tmp_path / "out", "--zip", path)
    assert done.returncode == 0, done.stderr
    assert "1 not unpacked" in done.stderr
    assert len(content_of(tmp_path / "out")) == len(tools.tumors()) - 1
    strict = cli("fetch", "tumors", "--out", tmp_path / "out", "--zip", path, "--strict")
    assert "archive.zip" in last_line(strict)


@pytest.mark.parametrize("fault", ["truncated", "no-zip", "encrypted", "other-content"])
def test_ones_own_zip_that_is_of_no_use(refuses, tools, tmp_path, fault):
    path = own_zip(tmp_path, tools)
    words = ("damaged", "download it again")
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:3000])
    elif fault == "no-zip":
        path.write_text("hello " * 500)
        words = ("is not a tar, tar.gz or zip", "download it again")
    elif fault == "encrypted":
        content = bytearray(path.read_bytes())
        at = -1
        while (at := content.find(b"PK\x01\x02", at + 1)) >= 0:
            content[at + 8] |= 1
        path.write_bytes(content)
        words = ("nothing in it can be unpacked", "encrypted")
    else:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as file:
            file.writestr("holiday.jpg", b"x")
        path.write_bytes(stream.getvalue())
        words = ("nothing in it is wanted", "tumour set")
    refuses("fetch", "tumors", "--out", tmp_path / "out", "--zip", path, "--quiet", words=(path, *words))


def test_a_password_in_the_mirror_reaches_the_server_and_nothing_else(cli, site, serve, tmp_path):
    serve("ixi")
    mirror = site.url.replace("http://", "http://me:SECRET@")
    out = tmp_path / "out"
    done = cli("fetch", "ixi", "--modalities", "T1", "--out", out, "--mirror", mirror, "--retries", 1)
    assert done.returncode == 0, done.stderr
    sent = [headers.get("Authorization") for method, _, headers in site.requests if method == "GET"]
    assert sent
    assert all(header == "Basic " + base64.b64encode(b"me:SECRET").decode() for header in sent)
    assert "SECRET" not in done.stdout + done.stderr
    for path in out.rglob("*"):
        if path.is_file():
            assert b"SECRET" not in path.read_bytes(), path
    for bad in ("ftp://me:SECRET@example.org", "http://me:SECRET@[", "me:SECRET@example.org"):
        done = cli("fetch", "ixi", "--out", out, "--mirror", bad)
        assert done.returncode == 2
        assert "SECRET" not in done.stdout + done.stderr
