"""What a new user gets wrong: one line each, with a remedy, exit code 2, and nothing written."""

import shlex
import shutil

import pytest

from mri_transfer.cli import main

MISTAKES = [
    ("slice volumes --out x", "did you mean slices?"),
    ("slices nowhere --out x", "no such file or folder"),
    ("slices volumes", "--out must be given"),
    ("slices tumors --out x", "--images"),
    ("slices notes.txt --out x", "not a volume; expected .nii.gz"),
    ("slices empty --out x", "no volumes"),
    ("slices scan.nii.gz --out x", "not a volume in a known format"),
    ("slices volumes --out store --size 64", "use the same settings (--size 48) or another --out"),
    ("slices volumes --out tumors", "choose a new or empty folder"),
    ("slices volumes --out x --size 0", "at least 1"),
    ("slices volumes --out x --size 64px", "must be a whole number"),
    ("slices volumes --out x --subject {person}", "{subject}"),
    ("slices volumes --out notes.txt", "is a file"),
    ("pretrain volumes --out r --hours 1", "`mri-transfer slices` makes one"),
    ("pretrain store --out r", "give exactly one of --hours"),
    ("pretrain store --out r --hours eight", "such as 8h"),
    ("pretrain store --out r --hours 1 --minutes 5", "give exactly one of"),
    ("pretrain store --out r --steps 5 --init image-net", "random, imagenet"),
    ("pretrain store --out r --steps 5 --method simclr2", "did you mean simclr?"),
    ("pretrain store --out r --steps 5 --backbone resnet", "did you mean resnet50"),
    ("pretrain store --out r --steps 5 --batch 1", "--batch 2 or more"),
    ("pretrain store --out r --steps 5 --size 3", "between 16 and 1024 pixels"),
    ("pretrain store --out r --steps 5 --size 32 --first-size 48", "choose a smaller one"),
    ("pretrain store --out r --preview nowhere/v.png", "there is no folder nowhere; make it first"),
    ("pretrain store --out r --steps 5 --json nowhere/x.json", "there is no folder nowhere; make it first"),
    ("encoders --json empty", "--json empty: is a folder; name a file"),
    ("compare tumors --out r --folds three", "must be a whole number"),
    ("verify nowhere", "name a store, a run"),
    ("pretrain store --out r --steps 5 --lr 0.1", "did you mean --learning-rate?"),
    ("pretrain store --out store --steps 5", "choose another --out"),
    ("pretrain --out r --steps 5", "STORE must be given"),
    ("audit nowhere", "no such folder"),
    ("audit volumes --out a", "`mri-transfer slices` reads those"),
    ("audit empty --out a", "two or more classes"),
    ("audit tumors --out a --against volumes", "`mri-transfer slices` makes one"),
    ("finetune tumors --init mir --out c", "mir"),
    ("finetune tumors --init volumes --out c", "name a run of `mri-transfer pretrain`"),
    ("finetune store --init random --out c", "two or more classes"),
    ("finetune tumors --init random --out c --seeds 3", "did you mean --seed?"),
    ("compare tumors --arm random --out r", "name another --arm"),
    ("compare tumors --arm random --arm mri=nowhere --out r", "a start is random, imagenet, "),
    ("compare tumors --arm random --arm random --out r", "a name of its own"),
    ("compare tumors --arm random --arm imagenet --out r --fractions 5", "at most 1"),
    ("compare tumors --arm random --arm imagenet --out r --fractions 10%,half", "must be a number"),
    ("compare tumors --arm random --arm imagenet --out r --mode tune", "choose among probe"),
    ("compare tumors --arm random --arm imagenet --out r --folds 1", "at least 2"),
    ("compare tumors --arm random --arm imagenet --out r --groups nowhere.csv", "nowhere.csv"),
    ("compare volumes --arm random --arm imagenet --out r", "`mri-transfer slices` reads those"),
    ("predict nowhere scan.nii.gz", "`mri-transfer finetune` makes"),
    ("predict store scan.nii.gz", "`mri-transfer finetune` makes"),
    ("predict", "RUN, IMAGE must be given"),
    ("export nowhere --format onnx --out x", "no such folder"),
    ("export store --format tflite --out x", "did you mean litert?"),
    ("fetch IXI2 --out x", "choose one of ixi"),
    ("fetch openneuro --out x", "such as ds000001"),
    ("doctor --frobnicate", "no such option; see mri-transfer doctor --help"),
    ("demo --minutes 0", "above 0"),
    ("demo --size 99999", "between 16 and 1024 pixels"),
    ("import-graph nowhere --out x", "training-graph"),
    ("pretrain store -o r --steps 5", "did you mean --out?"),
    ("fetch ixi --outt x", "did you mean --out?"),
    ("--help-me", "did you mean --help?"),
    ("pretrain store --out r --steps 5 --positives adjacnt", "did you mean adjacent?"),
]


@pytest.fixture(scope="module")
def desk(small_volumes, small_store, tmp_path_factory):
    """A folder with what a newcomer has in it."""
    from mri_transfer.datasets.synthetic.generate import write_tumors

    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(small_volumes, folder / "volumes")
    shutil.copytree(small_store, folder / "store")
    write_tumors(folder / "tumors", per_class=4, seed=0)
    (folder / "empty").mkdir()
    (folder / "notes.txt").write_text("hello")
    (folder / "scan.nii.gz").write_text("hello")
    return folder


@pytest.mark.parametrize(("words", "remedy"), MISTAKES)
def test_one_line_with_a_remedy(words, remedy, desk, capfd, monkeypatch):
    monkeypatch.chdir(desk)
    before = sorted(path for path in desk.rglob("*") if path.is_file())
    capfd.readouterr()
    try:
        code = main(shlex.split(words))
    except SystemExit as stop:  # argparse's way
        code = stop.code
    output = capfd.readouterr().err
    lines = output.strip().splitlines()
    assert code == 2, output
    assert remedy in lines[-1]
    assert lines[-1].startswith("mri-transfer")
    assert len(lines) == 1, output
    assert len(lines[0]) < 400
    files = {path for path in desk.rglob("*") if path.is_file()} - set(before)
    assert {path.relative_to(desk).parts[0] for path in files} <= {"a", "c", "r", "x"}


def test_without_arguments_it_shows_its_help(cli):
    done = cli()
    assert done.returncode == 0
    assert "pretrain" in done.stdout


@pytest.mark.parametrize(
    ("text", "hours"), [("8", 8), ("8h", 8), ("0.5h", 0.5), ("90min", 1.5), ("90 m", 1.5), ("7200s", 2)]
)
def test_times_are_understood(text, hours):
    from mri_transfer.options import time_in

    assert time_in("h")(text) == pytest.approx(hours)
    assert time_in("min")(text) == pytest.approx(hours * (60 if any(c.isalpha() for c in text) else 1))


def test_percentages_and_capitals_are_understood():
    from mri_transfer.cli import build_parser
    from mri_transfer.options import fractions

    assert fractions("5%,25%,1") == (0.05, 0.25, 1.0)
    words = ["pretrain", "s", "--out", "r", "--method", "SimCLR", "--init", "ImageNet"]
    parsed = build_parser("pretrain").parse_args(words)
    assert (parsed.method, parsed.init) == ("simclr", "imagenet")
    assert (
        build_parser("compare").parse_args(["compare", "t", "--out", "r", "--mode", "Probe"]).mode == "probe"
    )
    assert build_parser("fetch").parse_args(["fetch", "IXI", "--out", "x"]).source == "ixi"
