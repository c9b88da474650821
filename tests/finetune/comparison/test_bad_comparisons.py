"""What a user may get wrong with `compare`: one line that names it and the remedy, before any work."""

import shutil

import pytest

from mri_transfer.cli import main

PIXELS = ("--arm", "pixels", "--arm", "figures")
SMALL = (*PIXELS, "--mode", "nearest", "--size", 48, "--seeds", 1, "--draws", 50, "--workers", 1)


@pytest.fixture(scope="module")
def folder(write_patients, tmp_path_factory):
    return write_patients(tmp_path_factory.mktemp("bad") / "set", patients=32, images=2, signal=0.3)


@pytest.mark.parametrize("command", ["compare", "finetune", "audit"])
@pytest.mark.parametrize("within", ["report", "Training/a/report"])
def test_output_among_the_images(folder, refuses, tmp_path, command, within):
    """Its pictures would count as images the next time."""
    options = {"compare": SMALL, "finetune": ("--init", "random", "--size", 48), "audit": ()}[command]
    out = folder / within
    refuses(command, folder, *options, "--out", out, words=(f"--out {out}", "choose a folder outside"))
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [(("--seed", 2**31), "must be at most 2147483647"), (("--draws", 1), "must be at least 2")],
)
def test_numbers_that_no_library_takes(folder, tmp_path, capsys, options, words):
    with pytest.raises(SystemExit) as end:
        main(["compare", *map(str, (folder, *SMALL, *options)), "--out", str(tmp_path / "o")])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{options[0]}: '{options[1]}': {words}" in line


def test_unreadable_pictures_are_said(folder, cli, tmp_path):
    with_bad = tmp_path / "with bad"
    shutil.copytree(folder, with_bad)
    (with_bad / "Training" / "a" / "empty.png").write_bytes(b"")
    (with_bad / "Training" / "a" / "text.png").write_text("no picture")
    for command in (("compare", *SMALL), ("finetune", "--init", "random", "--size", 48, "--epochs", 0)):
        done = cli(command[0], with_bad, *command[1:], "--out", tmp_path / command[0])
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("left out")]
        assert line.startswith(
            "left out as unreadable: Training/a/empty.png (an empty file), and 1 more picture"
        )


def test_one_group(write_patients, refuses, tmp_path):
    table, folder = (
        tmp_path / "groups.csv",
        write_patients(tmp_path / "set", patients=8, images=1, signal=0.3),
    )
    files = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*/*.png"))
    table.write_text("file,group\n" + "".join(f"{name},all\n" for name in files))
    words = ("one group holds 2 of the 2 images of a", "--force-groups")
    refuses("compare", folder, *SMALL, "--groups", table, "--out", tmp_path / "o", words=words)
    words = ("1 group(s) of images cannot fill 5 folds", "--folds")
    forced = ("--groups", table, "--force-groups")
    refuses("compare", folder, *SMALL, *forced, "--out", tmp_path / "o", words=words)


def test_a_class_that_does_not_reach_every_fold(folder, refuses, tmp_path):
    few = tmp_path / "few"
    shutil.copytree(folder, few)
    for path in sorted((few / "Training" / "c").iterdir())[4:]:
        path.unlink()
    words = ("class c has", "group(s)", "use fewer --folds or add patients of that class")
    refuses("compare", few, *SMALL, "--folds", 8, "--out", tmp_path / "o", words=words)


def test_labels_that_contradict_are_told_and_nothing_is_lost(folder, cli, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(folder, mixed)
    picture = sorted((mixed / "Training" / "a").iterdir())[0]
    shutil.copy(picture, mixed / "Training" / "d" / "p (9999).png")
    done = cli("compare", mixed, *SMALL, "--folds", 2, "--scored", "all", "--out", tmp_path / "o")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "two labels" in line]
    assert picture.relative_to(mixed).as_posix() in line
    assert "p (9999).png" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("--arm", "pixels", "--mode", "finetune"),
            ("--arm pixels", "no network to fine-tune", "--mode probe"),
        ),
        (
            ("--backbone", "mobilenet", "--backbone", "vgg16", "--imagenet-weights", "w.h5"),
            ("w.h5", "--backbone"),
        ),
        (("--external", "nowhere"), ("nowhere: no such folder",)),
        (("--external", ".", "--fractions", "0.1,0.5"), ("--external", "all labels", "add 1 to --fractions")),
        (("--arm", "control=scaled:random"), ("scaled:random", "a run")),
        (("--arm", "target=runs/{seed}-{fold}"), ("runs/0-0: no such folder", "15 of 15", "--target-stores")),
        (("--arm", "target=runs/{fold}"), ("folds differ between seeds", "{seed}", "--seeds 1")),
    ],
)
def test_options_that_do_not_go_together(folder, refuses, tmp_path, options, words):
    refuses("compare", folder, *options, "--out", tmp_path / "o", words=words)
    assert not (tmp_path / "o").exists()


def test_one_start_alone_is_refused_before_the_work(folder, refuses, tmp_path):
    words = ("one start alone", "by --mode finetune")
    arms = ("--arm", "imagenet", "--arm", "pixels", "--mode", "both")
    refuses("compare", folder, *arms, "--out", tmp_path / "o", words=words)
    assert not (tmp_path / "o").exists()


def test_starts_of_the_same_weights_are_refused_before_the_work(folder, encoder_folder, refuses, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(encoder_folder, copy)
    words = ("--arm b: has the same weights as a", "leave one of them out")
    refuses(
        *("compare", folder, "--arm", f"a={encoder_folder}", "--arm", f"b={copy}"),
        *("--out", tmp_path / "o"),
        words=words,
    )
    words = ("--arm y: has the same weights as x",)
    refuses(
        *("compare", folder, "--arm", "x=scaled:imagenet", "--arm", "y=scaled:imagenet"),
        *("--out", tmp_path / "o"),
        words=words,
    )
    assert not (tmp_path / "o").exists()
