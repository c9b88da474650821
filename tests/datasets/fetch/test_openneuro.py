"""OpenNeuro: the listing, page by page; anatomy only; what changed at the source; files that can't be had."""

from __future__ import annotations

import json

import pytest

from mri_transfer.datasets.fetch.openneuro import Listed, licence_of


@pytest.fixture
def dataset(site, tools):
    source = tools.faithful["openneuro"]()
    for path, body in source.served.items():
        site.put(path, body)
    return source


@pytest.fixture
def run(cli, site, tmp_path):
    def start(*arguments, number="ds000001"):
        out = tmp_path / "out"
        return cli(
            "fetch", "openneuro", number, "--out", out, "--mirror", site.url, "--retries", 1, *arguments
        )

    return start


@pytest.mark.parametrize("page", [3, 1000])
def test_a_listing_of_many_pages(run, site, dataset, tmp_path, content_of, page):
    site.page = page
    assert run().returncode == 0
    assert content_of(tmp_path / "out") == dataset.expected
    pages = [path for method, path, _ in site.requests if (method, path) == ("GET", "/")]
    assert len(pages) == -(-len(dataset.served) // page)


def test_the_data_sets_own_licence_is_shown_before_its_images_are_fetched(run, site, dataset, tmp_path):
    done = run()
    assert "Licence: CC0" in done.stderr
    assert "DOI: 10.1/x" in (tmp_path / "out" / "TERMS-ds000001.txt").read_text()
    order = [path for method, path, _ in site.requests if method == "GET" and path != "/"]
    assert order[0] == "/ds000001/dataset_description.json"


def test_several_data_sets_share_a_folder(run, site, dataset, tools, tmp_path):
    for path, body in dataset.served.items():
        site.put(path.replace("ds000001", "ds000002"), body)
    assert run().returncode == 0
    done = run(number="DS000002")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "ds000002" / "sub-01" / "anat" / "sub-01_T1w.nii.gz").is_file()
    from mri_transfer.datasets.volumes.find import find_volumes

    subjects = {source.identity.subject for source in find_volumes([tmp_path / "out"]).sources}
    assert subjects == {f"ds00000{n}/sub-0{m}" for n in (1, 2) for m in (1, 2, 3)}


@pytest.mark.parametrize("name", ["README", "sub-02/anat/sub-02_T1w.nii.gz"])
def test_what_has_changed_at_the_source_is_replaced(run, site, dataset, tmp_path, tools, name):
    assert run().returncode == 0
    old = dataset.expected[f"ds000001/{name}"]
    new = bytes(old[:-9]) + b"neu" + bytes(6)
    site.put(f"/ds000001/{name}", new)
    site.rule = lambda path, number: ("status", 403) if path.endswith(name) and number == 2 else None
    assert run().returncode == 0
    assert (tmp_path / "out" / "ds000001" / name).read_bytes() == old  # kept while the new one can't be had
    done = run()
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "ds000001" / name).read_bytes() == new
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["downloaded_bytes"] == len(new)


def test_an_object_of_several_parts_is_checked_by_size_and_its_own_checksum(
    run, site, dataset, tmp_path, tools
):
    path = "/ds000001/sub-01/anat/sub-01_T1w.nii.gz"
    site.files[path].etag = '"0123456789abcdef0123456789abcdef-2"'
    assert run().returncode == 0
    lines = (tmp_path / "out" / "receipt.jsonl").read_text().splitlines()
    entry = next(entry for line in lines if path.endswith((entry := json.loads(line))["file"]))
    assert entry["checked"] == ["gzip checksum", "listed size"]


def test_a_new_content_of_the_same_size_is_fetched_though_nothing_but_its_tag_tells(
    run, site, dataset, tmp_path
):
    path = "/ds000001/sub-01/anat/sub-01_T2w.nii"
    for content, tag in ((b"a" * 4000, "e"), (b"b" * 4000, "f")):
        site.put(path, content)
        site.files[path].etag = f'"0123456789abcdef0123456789abcde{tag}-2"'
        assert run().returncode == 0
        assert (tmp_path / "out" / path[1:]).read_bytes() == content


@pytest.mark.parametrize("action", [("status", 403), ("status", 404), ("page",)], ids=["403", "404", "page"])
def test_one_file_that_cannot_be_had_is_listed_and_the_rest_arrives(
    run, site, dataset, tmp_path, content_of, action
):
    bad = "sub-02/anat/sub-02_T1w.nii.gz"
    site.rule = lambda path, number: action if path.endswith(bad) else None
    done = run()
    assert done.returncode == 0, done.stderr
    assert "1 could not be had" in done.stderr
    assert bad in done.stderr
    missing = {f"ds000001/{bad}"}
    assert content_of(tmp_path / "out").keys() == dataset.expected.keys() - missing
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [failure["file"] for failure in summary["failed"]] == [f"ds000001/{bad}"]
    strict = run("--strict")
    assert strict.returncode == 2
    assert bad in strict.stderr.splitlines()[-1]
    site.rule = lambda path, number: None
    assert run().returncode == 0
    assert content_of(tmp_path / "out") == dataset.expected


def test_a_file_damaged_on_its_way_is_fetched_again(run, site, dataset, tmp_path, content_of):
    path = "/ds000001/sub-01/anat/sub-01_T1w.nii.gz"
    good = site.files[path]
    body = bytearray(good.body)
    body[500] ^= 1

    def rule(address, number):
        if address == path:
            site.files[path].body = bytes(body) if number == 1 else dataset.served[path]

    site.rule = rule
    assert run().returncode == 0
    assert content_of(tmp_path / "out") == dataset.expected
    assert len(site.gets(path)) == 2


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"<html>hello</html>", "no listing of a bucket"),
        (b"not xml at all", "no listing of a bucket"),
        (b"<Error><Code>AccessDenied</Code></Error>", "no listing of a bucket"),
        (b"<ListBucketResult><Contents><Size>3</Size></Contents></ListBucketResult>", "no listing"),
        (
            b"<ListBucketResult><Contents><Key>k</Key><Size>-3</Size></Contents></ListBucketResult>",
            "no listing",
        ),
        (
            b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
            "the listing is incomplete",
        ),
        (
            b"<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
            b"</ListBucketResult>",
            "the listing is incomplete",
        ),
        (b"<ListBucketResult></ListBucketResult>", "no files of such a data set"),
        (
            b"<ListBucketResult><Contents><Key>ds000001/README</Key><Size>3</Size></Contents></ListBucketResult>",
            "none of its 1 files is an anatomical image",
        ),
        (
            b'<!DOCTYPE l [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "'
            + b"&a;" * 50
            + b'"><!ENTITY c "'
            + b"&b;" * 50
            + b'"><!ENTITY d "'
            + b"&c;" * 50
            + b'"><!ENTITY e "'
            + b"&d;" * 50
            + b'">]><ListBucketResult>&e;</ListBucketResult>',
            "",
        ),
    ],
    ids=[
        *("web-page", "text", "s3-error", "no-key", "negative-size", "no-token", "same-token", "empty"),
        *("no-anatomy", "entity-bomb"),
    ],
)
def test_listings_that_are_none(refuses, site, tmp_path, answer, words):
    site.put("/listing", answer, kind="application/xml")
    site.rule = lambda path, number: ("redirect", "/listing") if path == "/" else None
    arguments = (
        "fetch",
        "openneuro",
        "ds000001",
        "--out",
        tmp_path / "out",
        "--mirror",
        site.url,
        "--retries",
        1,
    )
    refuses(*arguments, words=(words,))


def test_keys_that_lead_out_are_not_written(run, site, dataset, tmp_path, content_of):
    for key in ("ds000001/sub-01/anat/../../../../x.nii.gz", "ds000001/sub-../anat/x\\..\\..\\y.nii.gz"):
        site.put(f"/{key}", b"evil")
    site.put("/ds000001/sub-04/anat/..\\..\\..\\y.nii.gz", b"evil")
    assert run().returncode == 0
    assert content_of(tmp_path / "out") == dataset.expected
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_addresses_are_quoted_and_single_part_tags_are_checksums():
    from pathlib import PurePosixPath

    listed = Listed(PurePosixPath("sub-01/anat/sub-01_acq-a+b ü_T1w.nii.gz"), 5, "0" * 32)
    remote = listed.remote("https://s3.example/", "ds000001")
    assert remote.url == "https://s3.example/ds000001/sub-01/anat/sub-01_acq-a%2Bb%20%C3%BC_T1w.nii.gz"
    assert (remote.bytes, remote.md5) == (5, "0" * 32)
    assert Listed(PurePosixPath("a"), 5, "0" * 32 + "-7").remote("b/", "d").md5 is None


@pytest.mark.parametrize("text", ["{", "[]", '{"License": 3}', "{}", '"x"', "[" * 99_999])
def test_a_description_without_a_licence(tmp_path, text):
    (tmp_path / "d.json").write_text(text)
    assert licence_of(tmp_path / "d.json") is None
    assert licence_of(tmp_path / "none.json") is None
