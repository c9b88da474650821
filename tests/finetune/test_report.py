"""The page: complete, self-contained, safe against names, the same bytes every time, and seen in a browser."""

import html.parser
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.image import imread

from mri_transfer.figures import class_label, short
from mri_transfer.finetune.looks import looks
from mri_transfer.finetune.report import write_report
from mri_transfer.finetune.results import Predictions, summarise

CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
BANNER = "generated heads, no evidence"
HOSTILE = "<script>alert('x')</script>&\"$\\frac{1}"
VOID = {"meta", "img", "br", "link", "hr", "input"}


def predictions(arms=("random", "imagenet", "mri"), classes=CLASSES, seeds=2, fractions=(0.25, 1.0)):
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 4)
    labels = (np.arange(40) % 4)[groups]

    def predict(truth):
        odds = np.exp(generator.normal(size=(seeds, truth.size, 4)) + 1.5 * np.eye(4)[truth])
        return (odds / odds.sum(-1, keepdims=True)).astype(np.float32)

    probabilities = {
        (arm, mode, fraction): predict(labels)
        for arm in arms
        for mode in ("probe", "finetune")
        for fraction in fractions
    }
    truth = np.arange(50) % 4
    published = {(arm, "probe"): predict(truth) for arm in arms}
    leaked = np.arange(50) < 32
    return Predictions(
        tuple(arms),
        tuple(classes),
        labels,
        groups,
        tuple(range(seeds)),
        probabilities,
        published,
        truth,
        leaked,
    )


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(256, size=(160, 32, 32), dtype=np.uint8)


def extras(arms):
    """What `compare` adds to the summary."""
    return {
        "audit": {
            "files": 200,
            "distinct": 160,
            "skipped": [{"file": "bad.jpg", "reason": "truncated"}],
            "test_files": 50,
            "test_identical": 32,
            "label_conflicts": [{"first": "a.jpg", "second": "b.jpg", "correlation": 1.0, "identical": True}],
            "groups": {"number": 40, "largest": [4, 4]},
        },
        "settings": {
            "command": "mri-transfer compare tumors --seeds 2",
            "folds": 5,
            "recipe": {"rate": 0.0003},
        },
        "arms": [
            {
                "name": arm,
                "init": arm,
                "sha256": "ab" * 32,
                "backbone": "efficientnet_lite0",
                "hours": 7.5,
                "provenance": {"method": "simclr", "data": {"slices": 9000, "subjects": 85}},
            }
            for arm in arms
        ],
        "versions": {"keras": "3.15"},
        "leaks_with_pretraining": {"compared": 9000, "found": 0},
        "paths": [f"Training/x/image({i}).jpg" for i in range(160)],
    }


def page(folder, images, given=None, banner=None, title="Which start is better?", **more):
    given = given or predictions()
    report = {**summarise(given, draws=40), **more}
    return write_report(folder, report, given, images, title, banner).read_text(encoding="utf-8")


class Structure(html.parser.HTMLParser):
    """Tags that close in the order they were opened, addresses, ids and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.problems, self.addresses, self.ids, self.tags = [], [], [], [], []
        self.headings: list[int] = []
        self.feed(text)
        self.close()
        self.problems += self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for key, value in attributes:
            if key in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
                self.addresses.append(value)
            if key == "id":
                self.ids.append(value)
            if key.startswith("on"):
                self.problems.append(f"{tag} {key}")
            if key == "style":
                self.addresses += re.findall(r"url\(([^)]*)\)", value)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "img" and not dict(attributes).get("alt"):
            self.problems.append("img without alt")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}>")


def check(text):
    found = Structure(text)
    assert found.problems == []
    assert len(set(found.ids)) == len(found.ids)
    assert "script" not in found.tags
    assert "link" not in found.tags
    for address in found.addresses:
        assert address.startswith(("#", "data:image/")), address
    for address in [each for each in found.addresses if each.startswith("#")]:
        assert address[1:] in found.ids, address
    for address in re.findall(r"url\(([^)]*)\)", text):
        assert address.strip("'\"")[1:] in found.ids, address
    assert "@import" not in text
    assert found.headings[0] == 1
    assert found.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(found.headings, found.headings[1:], strict=False))
    return found


def test_the_page_is_well_formed_and_fetches_nothing(tmp_path, images):
    text = page(tmp_path, images, **extras(("random", "imagenet", "mri")))
    found = check(text)
    assert found.tags.count("figure") > 10
    assert found.tags.count("img") >= 8


def test_the_verdict_comes_first(tmp_path, images):
    given = predictions()
    report = summarise(given, draws=40)
    text = page(tmp_path, images, given)
    body = text[text.index("<body>") :]
    assert body.index(report["verdict"]["short"]) < body.index("<svg")
    assert report["verdict"]["reason"].split(" (")[0] in body


def test_figures_from_the_data_are_on_the_page(tmp_path, images):
    text = page(tmp_path, images, **extras(("random", "imagenet", "mri")))
    assert "64% of the published test images are in the training set" in text  # 32 of 50
    assert "32 of the 50" in " ".join(text.split())
    assert "mri-transfer compare tumors --seeds 2" in text
    assert "9,000" in text
    assert ">39<" in text  # 200 files, 160 distinct, 1 unreadable: 39 copies
    assert "abababababababab" in text
    assert "not a medical device" in text


def test_the_cost_of_an_encoder_includes_those_it_started_from(tmp_path, images):
    first = {"method": "simclr", "seconds": 5400, "start": {"init": "imagenet"}}
    second = {"method": "byol", "seconds": 9000, "start": {"init": "encoder", "provenance": first}}
    arm = {"name": "mri", "sha256": ["12" * 32, "34" * 32], "provenance": second, "trial_hours": 0.25}
    text = page(tmp_path, images, arms=[arm])
    check(text)
    assert "<dd>4.0 h</dd>" in text
    assert "<dd>15 min</dd>" in text
    assert "2, one for each seed" in text


def test_missing_parts_leave_their_sections_out(tmp_path, images):
    text = page(tmp_path, images)
    check(text)
    assert "Where the starts come from" not in text
    assert "What was removed" not in text
    assert "Do it again" not in text
    nothing = page(tmp_path, images, audit={}, settings={}, arms=[], versions={}, leaks_with_pretraining=None)
    assert nothing == text
    check(page(tmp_path, images, audit={"files": 10}, arms=[{"name": "elsewhere"}], settings={"folds": 2}))


@pytest.mark.parametrize(
    "arms", [("imagenet",), ("imagenet", "mri"), ("a", "b", "c", "d", "e", "f", "g", "h")]
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_any_number_of_arms_and_seeds(tmp_path, images, arms, seeds):
    text = page(tmp_path, images, predictions(arms, seeds=seeds, fractions=(1.0,)))
    check(text)
    assert ("One random seed" in text) == (seeds == 1)


def test_the_banner_is_everywhere(tmp_path, images):
    text = page(tmp_path, images, banner=BANNER, **extras(("random", "imagenet", "mri")))
    check(text)
    assert f"<title>[{BANNER}]" in text
    assert text.index(BANNER, text.index("<body>")) < text.index("<h1>")
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text, re.S)
    assert len(captions) > 10
    assert all(BANNER in caption for caption in captions)
    assert BANNER not in page(tmp_path, images)


def test_names_can_not_do_harm(tmp_path, images):
    arms = ("imagenet", HOSTILE, "\x00bell\x07 漢字 " * 9)
    classes = (HOSTILE, "</style><img src=http://x.test/>", "</svg>", "d")
    given = predictions(arms, classes)
    more = extras(arms)
    more["settings"]["command"] = HOSTILE
    more["paths"] = [HOSTILE] * 160
    text = page(tmp_path, images, given, banner="</style>" + HOSTILE, title="</title>" + HOSTILE, **more)
    found = check(text)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert found.tags.count("style") == 1
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", text)
    for figure in (tmp_path / "figures").glob("*.svg"):
        ElementTree.parse(figure)


def test_the_same_report_is_the_same_bytes(tmp_path, images):
    (tmp_path / "b").mkdir()
    first, second = page(tmp_path, images), page(tmp_path / "b", images)
    assert first == second
    for figure in (tmp_path / "figures").glob("*.svg"):
        assert figure.read_bytes() == (tmp_path / "b" / "figures" / figure.name).read_bytes()


def test_figures_are_files_too(tmp_path, images):
    page(tmp_path, images)
    files = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert "headline.svg" in files
    assert {"scores-probe.svg", "labels-finetune.svg", "confusion-0.svg", "published-probe.svg"} <= set(files)
    root = ElementTree.parse(tmp_path / "figures" / "headline.svg").getroot()
    written = " ".join(element.text or "" for element in root.iter())
    assert "difference of macro-F1" in written
    assert not list(tmp_path.rglob("*.part"))


def test_looks_and_labels():
    found = looks(["random", "imagenet", *"abcdefgh"])
    assert len({(each.colour, each.marker) for each in found.values()}) == 10
    assert class_label("glioma_tumor") == "glioma"
    assert class_label("no_tumor") == "no tumor"
    assert short("x" * 40 + "yz", 10).endswith("yz")
    assert len(short("x" * 40, 10)) == 10


def chromium(tmp_path, *arguments):
    """Run a Chromium without a window; skips the test where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next((path for path in map(shutil.which, names) if path), None)
    if program is None:
        pytest.skip("no Chromium on the PATH")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    )
    flags += " --disable-component-update --disable-sync --hide-scrollbars --disable-dev-shm-usage"
    profile = tmp_path / "profile"
    command = [program, *flags.split(), f"--user-data-dir={profile}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_drawn_without_sideways_scrolling(tmp_path, images, width):
    arms = ("random", "imagenet", "mri-of-a-very-long-name+imagenet")
    text = page(tmp_path, images, predictions(arms), banner=BANNER, **extras(arms))
    picture = tmp_path / "page.png"
    address = (tmp_path / "report.html").as_uri()
    chromium(tmp_path, f"--window-size={width},900", f"--screenshot={picture}", address)
    drawn = imread(picture)[..., :3]
    assert drawn.shape[:2] == (900, width)
    dark = (drawn.mean(-1) < 0.45).mean()
    assert 0.01 < dark < 0.5  # text and marks, and not a black page
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 100

    # The page itself holds no script; a copy with one tells the page around it how wide it is. A frame is used
    # because a browser's window may be kept from being as narrow as a phone.
    tell = (
        "<script>parent.postMessage([innerWidth, document.documentElement.scrollWidth], '*')</script></body>"
    )
    (tmp_path / "probe.html").write_text(text.replace("</body>", tell), encoding="utf-8")
    around = tmp_path / "around.html"
    around.write_text(
        "<!DOCTYPE html><title>?</title><script>onmessage = e => document.title = e.data.join('/')</script>"
        f"<iframe src='probe.html' width='{width}' height='900' style='border:0'></iframe>"
    )
    dom = chromium(tmp_path, "--virtual-time-budget=4000", "--dump-dom", around.as_uri())
    found = re.search(r"<title>(\d+)/(\d+)</title>", dom)
    assert found, dom[:200]
    assert int(found[1]) == width
    assert int(found[2]) <= width
