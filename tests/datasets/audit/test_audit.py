"""The command `audit`, through the command line: what it says, writes, finds in a slice store, and refuses."""

import csv
import html.parser
import io
import json
import shutil
import subprocess

import h5py
import numpy as np
import pytest
from PIL import Image

from mri_transfer.cli import main
from mri_transfer.datasets.audit.leaks import leaks_between
from mri_transfer.datasets.extraction.extract import SlicesConfig, extract
from mri_transfer.datasets.image_files import read_grey
from mri_transfer.datasets.synthetic.generate import write_tumors, write_volumes
from mri_transfer.datasets.tumors.tumors import load_tumors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tumors")
    write_tumors(folder, per_class=8, seed=1)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    place = tmp_path_factory.mktemp("volumes")
    write_volumes(place / "volumes", subjects=2, seed=0, spacing=4.0)
    extract(SlicesConfig(paths=(place / "volumes",), out=place / "store", size=128, workers=1))
    return place / "store"


class Slices:
    """As much of a slice store as the comparison uses."""

    def __init__(self, images):
        self._images = images
        names = ("subject", "sequence", "plane", "source")
        self.table = {name: np.array([name] * len(images)) for name in names}
        self.table["position_mm"] = np.arange(len(images), dtype=float)

    def __len__(self):
        return len(self._images)

    def images(self, indices):
        return self._images[indices]


def test_audit_says_what_it_found_and_writes_it(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["audit", str(folder), "--out", str(out), "--json", str(tmp_path / "a.json")]) == 0
    output = capsys.readouterr().out
    assert "40 files, 36 distinct images" in output
    assert "identical to a training image: 4 of 16" in output
    assert "score on folds of whole groups" in output
    summary = json.loads((tmp_path / "a.json").read_text())
    assert summary["command"] == "audit"
    assert summary["test_near_duplicate"] == 8
    assert json.loads((out / "summary.json").read_text())["fingerprint"] == summary["fingerprint"]
    assert json.loads((out / "audit.json").read_text())["label_conflicts"] == summary["label_conflicts"]
    assert len(summary["copies"]) == 4
    assert all(copy["across"] for copy in summary["copies"])
    rows = list(csv.DictReader((out / "groups.csv").open(encoding="utf-8")))
    tumors = load_tumors(folder, 32)
    assert [(row["file"], int(row["group"])) for row in rows] == list(
        zip(tumors.paths, tumors.groups.tolist(), strict=True)
    )


def test_a_store_of_other_heads_holds_no_leak(folder, store, tmp_path, capsys):
    assert main(["audit", str(folder), "--against", str(store), "--out", str(tmp_path)]) == 0
    assert "slices of" in capsys.readouterr().out
    against = json.loads((tmp_path / "audit.json").read_text())["against"]
    assert against["leaks"] == []
    assert len(against["closest"]) == 12
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert page.count("Closest, not the same") == 6


def test_planted_leaks_are_found_exactly(folder, store):
    from mri_transfer.datasets.store.store import SliceStore

    tumors = load_tumors(folder, 128)
    honest = SliceStore.open(store)
    slices = honest.images(slice(0, len(honest))).copy()
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(tumors), 10, replace=False)
    rows = rng.choice(len(slices), 10, replace=False)
    for n, (image, row) in enumerate(zip(chosen, rows, strict=True)):
        copy = Image.fromarray(tumors.images[image])
        if n % 3 == 0:
            copy = copy.crop((4, 3, 124, 126))
        if n % 3 == 1:
            copy = copy.transpose(Image.Transpose(n % 7))
        content = io.BytesIO()
        copy.resize((128, 128), Image.Resampling.BILINEAR).save(content, "JPEG", quality=75)
        slices[row] = np.asarray(Image.open(content))
    leaks = leaks_between(tumors, Slices(slices))
    # Planted near-duplicates within the tumour set may answer to the same slice: every finding must be right.
    assert all(finding["correlation"] >= tumors.calibration.threshold for finding in leaks)
    direct = {(tumors.paths[image], int(row)) for image, row in zip(chosen, rows, strict=True)}
    # An image with a near-copy of itself in the set may be as like to that one's slice as to its own.
    assert {finding["image"] for finding in leaks} >= {image for image, _ in direct}
    assert {finding["slice"] for finding in leaks} <= {row for _, row in direct}
    extra = {finding["image"] for finding in leaks} - {tumors.paths[image] for image in chosen}
    assert all(tumors.groups[tumors.paths.index(image)] in tumors.groups[chosen] for image in extra)


def test_a_corrupt_jpeg_is_counted_or_fatal_if_strict(folder, tmp_path, capsys):
    import shutil

    copy = tmp_path / "tumors"
    shutil.copytree(folder, copy)
    bad = copy / "Training" / "glioma_tumor" / "gg (1).jpg"
    bad.write_bytes(bad.read_bytes()[:900])
    (copy / "Testing" / "no_tumor" / "image(99).jpg").write_text("a text")
    assert main(["audit", str(copy), "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    assert "Unreadable, left out: 2" in output
    assert "gg (1).jpg" in output
    assert "not an image" in output
    assert main(["audit", str(copy), "--strict", "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "gg (1).jpg" in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["empty"], "two or more classes"),
        (["tumors", "--against", "nowhere"], "nowhere: no such folder"),
        (["tumors", "--against", "empty"], "slice store is needed"),
        (["tumors", "--out", "full"], "holds something else"),
        (["tumors", "--figshare", "nowhere"], "nowhere: no such folder"),
        (["tumors", "--groups", "nowhere.csv"], "nowhere.csv: no such file"),
        (["tumors", "--groups", "full/letter.txt"], "columns file and group"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, says, folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    (tmp_path / "tumors").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    assert main(["audit", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


class Outline(html.parser.HTMLParser):
    """What a page links to, and whether its tags are closed."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.images = [], [], 0

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.sources += [values[key] for key in ("src", "href") if values.get(key)]
        if tag == "img":
            self.images += 1
            assert values["alt"]
        if tag not in {"meta", "img", "br", "link", "hr", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_holds_everything_and_escapes_names(tmp_path, capsys):
    folder = tmp_path / "a & b"
    write_tumors(folder, per_class=8, seed=2)
    for split in ("Training", "Testing"):
        (folder / split / "glioma_tumor").rename(folder / split / "<b>x")
    hostile = folder / "Training" / "<b>x" / "<script>alert(1)</script> (3).jpg".replace("/", "_")
    next((folder / "Training" / "<b>x").iterdir()).rename(hostile)
    assert main(["audit", str(folder), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert "<script" not in page
    assert "<b>x" not in page
    assert all(source.startswith(("data:image/jpeg;base64,", "#")) for source in outline.sources)
    assert outline.images > 20
    for words in ("can be answered from memory", "Where copies begin", "What must stay together"):
        assert words in page


def test_a_corrected_table_of_groups_is_used_and_copies_stay_together(folder, tmp_path, capsys):
    assert main(["audit", str(folder), "--out", str(tmp_path / "first")]) == 0
    table = tmp_path / "first" / "groups.csv"
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    tumors = load_tumors(folder, 32)
    assert load_tumors(folder, 32, groups_from=table).fingerprint == tumors.fingerprint

    for number, row in enumerate(rows):
        row["group"] = f"patient {number}"  # every image a patient of its own
    corrected = tmp_path / "corrected.csv"
    with corrected.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    parted = load_tumors(folder, 32, groups_from=corrected)
    assert np.all(parted.groups[tumors.near.first] == parted.groups[tumors.near.second])
    assert len(tumors.near) > 0
    assert len(np.unique(parted.groups)) == len(tumors) - len(connected_pairs(tumors.near))
    assert main(["audit", str(folder), "--groups", str(corrected), "--out", str(tmp_path / "second")]) == 0
    assert "Groups come from" in (tmp_path / "second" / "audit.html").read_text(encoding="utf-8")

    corrected.write_text("\n".join(corrected.read_text(encoding="utf-8").splitlines()[:-2]), encoding="utf-8")
    capsys.readouterr()
    assert main(["audit", str(folder), "--groups", str(corrected), "--out", str(tmp_path / "third")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "gives no group to 2 of 36 images" in line


def connected_pairs(near) -> set[int]:
    """The later image of every pair: each takes one group away, if pairs do not chain."""
    assert len(set(near.first) | set(near.second)) == 2 * len(near)
    return set(near.second.tolist())


def test_patients_of_the_originals_are_groups(folder, tmp_path, capsys):
    tumors = load_tumors(folder, 32)
    # Two images of different groups, and one patient who is both of them.
    first = int(np.flatnonzero(tumors.groups == 0)[0])
    second = int(np.flatnonzero(tumors.groups == tumors.groups.max())[0])
    originals = tmp_path / "figshare"
    originals.mkdir()
    for number, image in enumerate((first, second)):
        with h5py.File(originals / f"{number}.mat", "w", userblock_size=512) as file:
            record = file.create_group("cjdata")
            record["image"] = read_grey(folder / tumors.paths[image]).T.astype(np.int16) * 7
            record["PID"] = np.array([[ord(letter)] for letter in "100360"], np.uint16)
            record["label"] = np.array([[2.0]])
    out = tmp_path / "out"
    assert main(["audit", str(folder), "--figshare", str(originals), "--out", str(out)]) == 0
    assert "They show 1 person." in capsys.readouterr().out
    rows = {row["file"]: row for row in csv.DictReader((out / "groups.csv").open(encoding="utf-8"))}
    joined = [rows[tumors.paths[image]] for image in (first, second)]
    assert {row["patient"] for row in joined} == {"100360"}
    assert joined[0]["group"] == joined[1]["group"]
    # What was guessed of the other images still holds among them; nobody is joined to the patient by a guess.
    with_patient = {name for name, row in rows.items() if row["patient"]}
    alike = tumors.near.first.tolist() + tumors.near.second.tolist()
    assert all(tumors.paths.index(name) in (first, second, *alike) for name in with_patient)
    assert {name for name, row in rows.items() if row["group"] == joined[0]["group"]} == with_patient


@pytest.mark.browser
def test_the_page_is_drawn(folder, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on the PATH")
    assert main(["audit", str(folder), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    for width in (1200, 400):
        shot = tmp_path / f"{width}.png"
        done = subprocess.run(
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
                *("--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}"),
                *(f"--window-size={width},2400", f"file://{tmp_path / 'out' / 'audit.html'}"),
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert shot.is_file(), done.stderr
        pixels = np.asarray(Image.open(shot).convert("L"))
        assert pixels.shape == (2400, width)
        assert (pixels < 60).mean() > 0.05  # text and pictures
        assert (pixels[:, -3:] > 200).all()  # nothing sticks out at the right
