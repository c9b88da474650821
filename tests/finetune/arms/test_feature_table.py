"""Tables of features: every image finds its row, and a bad table is one line."""

import numpy as np
import pytest

from mri_transfer.errors import UserError
from mri_transfer.finetune.arms.feature_table import FeatureTable

NAMES = [
    ("set/Training/a/1.png", "Training/a/1.png", "f" * 64),
    (
        "set/Training/b/1.png",
        "Training/b/1.png",
        "e" * 64,
        "set/Testing/b/9.png",
        "Testing/b/9.png",
        "d" * 64,
    ),
    ("set/Testing/a/2.png", "Testing/a/2.png", "c" * 64),
]
PATHS = ["Training/a/1.png", "Training/b/1.png", "Testing/a/2.png"]
FEATURES = np.arange(6.0).reshape(3, 2)


def table(folder, files, features=FEATURES, name="t.npz"):
    path = folder / name
    if name.endswith(".npz"):
        np.savez(path, files=files, features=features)
    else:
        lines = [",".join([file, *map(str, row)]) for file, row in zip(files, features, strict=True)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return FeatureTable(path, "--arm x=features:")


@pytest.mark.parametrize("name", ["t.npz", "t.csv"])
@pytest.mark.parametrize(
    "files",
    [
        PATHS,
        [f"/data/any/set/{path}" for path in PATHS],
        [path.replace("/", "\\") for path in PATHS],
        ["f" * 64, "d" * 64, "c" * 64],  # of the second picture, its copy
        [*PATHS[:2], "2.png"],  # a name that only one image has
        [PATHS[0], "Testing/b/9.png", PATHS[2]],
    ],
)
def test_each_image_finds_its_row(tmp_path, files, name):
    order = [2, 0, 1]  # whatever their order in the table
    arm = table(tmp_path, [files[place] for place in order], FEATURES[order], name)
    arm.check([NAMES])
    assert arm.features(np.zeros(0), NAMES).tolist() == FEATURES.tolist()


@pytest.mark.parametrize("between", [",", ";", "\t"])
def test_columns_may_be_separated_as_spreadsheets_do(tmp_path, between):
    path = tmp_path / "t.csv"
    rows = zip(PATHS, FEATURES, strict=True)
    path.write_text("\n".join(between.join([file, *map(str, row)]) for file, row in rows))
    assert FeatureTable(path, "--arm x=features:").features(np.zeros(0), NAMES).tolist() == FEATURES.tolist()


def test_of_two_folders_with_the_same_paths_each_finds_its_own(tmp_path):
    other_names = [
        tuple(name.replace("set/", "other/") for name in names if len(name) < 64) for names in NAMES
    ]
    files = [f"/d/set/{path}" for path in PATHS] + [f"/d/other/{path}" for path in PATHS]
    arm = table(tmp_path, files, np.arange(12.0).reshape(6, 2))
    arm.check([NAMES, other_names])
    assert arm.features(np.zeros(0), other_names)[0].tolist() == [6, 7]


def test_rows_of_no_image_are_told(tmp_path, capfd):
    arm = table(tmp_path, [*PATHS, "Testing/b/9.png", "gone.png"], np.ones((5, 2)))
    arm.check([NAMES])
    assert "1 of 5 rows are of no image here and not used, the first gone.png" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("files", "features", "words"),
    [
        (PATHS[:2], FEATURES[:2], "1 of 3 images have no row, the first set/Testing/a/2.png"),
        (["x/1", "x/2", "x/3"], FEATURES, "3 of 3 images have no row"),
        (["x/1", "x/2", "x/3"], FEATURES, "its rows are named like x/1"),
        ([*PATHS, PATHS[0]], np.ones((4, 2)), "1 files have more than one row, the first Training/a/1.png"),
        ([*PATHS, f"b/{PATHS[0]}"], np.ones((4, 2)), "2 rows are of set/Training/a/1.png"),
        ([PATHS[0], PATHS[1], "1.png"], FEATURES, "no row, the first set/Testing/a/2.png"),
        (PATHS, [[1, 2], [3, np.nan], [5, 6]], "1 rows hold numbers that are not finite"),
        (PATHS, [[1, 2], [3, 1e300], [5, 6]], "not finite, the first that of Training/b/1.png"),
        (PATHS, np.ones((2, 2)), "3 files and features (2, 2)"),
        (PATHS, np.ones((3, 2, 2)), "features (3, 2, 2)"),
        (PATHS, np.ones((3, 0)), "features (3, 0)"),
        (np.array(PATHS, object), FEATURES, "objects are never read"),
        (PATHS, np.array([["a"], ["b"], ["c"]]), "features <U1"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path, files, features, words):
    arm = table(tmp_path, files, np.asarray(features))
    with pytest.raises(UserError) as error:
        arm.check([NAMES])
    assert str(error.value).startswith(f"--arm x=features:{tmp_path}")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (np.array([b"a", b"\xff", b"c"]), "the array files holds bytes that are not text ('utf-8'"),
        (np.array([65, 0x110000, 66], "<u4").view("<U1"), "numbers of no character; a table is"),
        (np.array([65, 0x7FFFFFFF, 66], ">u4").view(">U1"), "numbers of no character; a table is"),
        (np.arange(3), "files are int64 (3,)"),
        (np.zeros(3, "datetime64[s]"), "files are datetime64[s]"),
        (np.array([PATHS]), "files are <U16 (1, 3)"),
    ],
)
def test_names_of_another_kind(tmp_path, files, words):
    with pytest.raises(UserError) as error:
        table(tmp_path, files).check([NAMES])
    assert words in str(error.value)


def test_names_may_be_bytes_of_utf_8(tmp_path):
    names = [("ä/1.png",), ("b/2.png",), ("c/3.png",)]
    table(tmp_path, np.array([name.encode() for (name,) in names])).check([names])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has 0 files"),
        ("file,a,b\n", "has 0 files"),
        ("Training/a/1.png,1\nTraining/b/1.png,x\n", "line 2: not a file and numbers"),
        ("Training/a/1.png,1\nTraining/b/1.png,1,2\n", "line 2: 2 numbers, 1 in those before"),
    ],
)
def test_bad_csv(tmp_path, text, words):
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        FeatureTable(path).check([NAMES])
    assert words in str(error.value)


def test_headings_may_stand_above(tmp_path):
    path = tmp_path / "t.csv"
    rows = "".join(f"{file},1,2\n" for file in PATHS)
    path.write_text(f"\ufefffile,f0,f1\n{rows}", encoding="utf-8")
    FeatureTable(path).check([NAMES])


def test_other_files(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    for name, words in (("t.parquet", "a table is FILE.npz"), ("none.npz", "no such file")):
        with pytest.raises(UserError, match=words):
            FeatureTable(tmp_path / name).check([NAMES])
    np.savez(tmp_path / "x.npz", keys=PATHS, features=FEATURES)
    with pytest.raises(UserError, match="it holds keys, features"):
        FeatureTable(tmp_path / "x.npz").check([NAMES])
    (tmp_path / "y.npz").write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"y\.npz: "):
        FeatureTable(tmp_path / "y.npz").check([NAMES])


def test_a_compressed_table_is_read_and_one_that_would_fill_memory_is_not(tmp_path):
    path = tmp_path / "t.npz"
    np.savez_compressed(path, files=np.array(PATHS), features=FEATURES)
    FeatureTable(path, "--arm x=features:").check([NAMES])
    np.savez_compressed(path, files=np.array(PATHS), features=np.zeros((3, 20_000_000), np.float32))
    assert path.stat().st_size < 1_000_000
    with pytest.raises(UserError, match=r"compressed too much"):
        FeatureTable(path, "--arm x=features:").check([NAMES])
