"""Named arrays survive the disk bit for bit, and nothing else is accepted."""

import copy
import hashlib
import io
import pickle
import tracemalloc
import zipfile

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mri_transfer.errors import UserError
from mri_transfer.storage.arrays import (
    check_shapes,
    differences,
    load_npz,
    read_arrays,
    save_npz,
    write_arrays,
)
from mri_transfer.storage.files import sha256

NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12).filter(
    lambda name: "\\" not in name and name.isprintable()
)
DTYPES = st.sampled_from(
    ["bool", "uint8", "int32", "int64", "uint32", ">u2", "float16", "float32", "float64"]
)
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3))
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        NAMES | st.sampled_from(["a/b", "a/b.npy", "file", "a//", "../x", "/x", "ü/1"]), ARRAYS, max_size=5
    )
)
def test_any_numbers_under_any_names_come_back_bit_for_bit(tmp_path, arrays):
    digest = write_arrays(tmp_path / "a.npz", arrays)
    back = read_arrays(tmp_path / "a.npz", digest)
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()


def test_numpy_opens_the_file_and_equal_arrays_are_equal_bytes(tmp_path):
    arrays = {"stem/kernel": np.arange(6.0).reshape(2, 3), "fortran": np.asfortranarray(np.eye(3)[:, :2])}
    write_arrays(tmp_path / "a.npz", arrays)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["stem/kernel"], arrays["stem/kernel"])
        np.testing.assert_array_equal(file["fortran"], arrays["fortran"])
    assert (
        write_arrays(tmp_path / "b.npz", dict(arrays))
        == sha256(tmp_path / "a.npz")
        == sha256(tmp_path / "b.npz")
    )


@pytest.mark.parametrize(
    "array", [np.array([{}], object), np.array(["text"]), np.zeros(2, "V2"), np.zeros(1, "M8[s]")]
)
def test_what_is_no_number_is_refused_and_nothing_is_written(tmp_path, array):
    with pytest.raises(ValueError, match="can't be stored"):
        write_arrays(tmp_path / "a.npz", {"x": array})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "a\0b", "a\\b", "line\nbreak"])
def test_names_that_a_zip_would_change_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="can't be the name"):
        write_arrays(tmp_path / "a.npz", {name: np.zeros(1)})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**9), st.integers(1, 255))
def test_every_flipped_byte_is_found(tmp_path, position, flip):
    digest = write_arrays(tmp_path / "a.npz", {"x": np.arange(50), "y/z": np.ones((3, 4), "float32")})
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[position % len(content)] ^= flip
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.npz: is damaged .*; copy it again"):
        read_arrays(tmp_path / "a.npz", digest, "copy it again")


class _Marker:
    def __reduce__(self):
        return exec, ("raise SystemExit('the file ran code')",)


def test_a_pickle_inside_is_not_executed(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([_Marker()], object))
    (tmp_path / "a.npz").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="holds no arrays"):
        read_arrays(tmp_path / "a.npz", hashlib.sha256(buffer.getvalue()).hexdigest())
    with pytest.raises(SystemExit):  # the file is as hostile as the test needs it to be
        pickle.loads(pickle.dumps(_Marker()))


def test_differences_name_the_first_few_and_count_the_rest():
    shapes = {f"layer{i}/kernel": (3, 3) for i in range(6)}
    actual = {"layer0/kernel": np.zeros((3, 4)), "other": np.zeros(1)}
    text = differences(shapes, actual)
    assert "5 missing: layer1/kernel, layer2/kernel, layer3/kernel and 2 more" in text
    assert "1 unexpected: other" in text
    assert "1 of another shape: layer0/kernel (3, 4) instead of (3, 3)" in text
    assert differences(shapes, {name: np.zeros((3, 3)) for name in shapes}) == ""


@pytest.mark.parametrize(
    "damage", ["missing", "empty", "cut", "text", "npy", "compressed", "pickled", "name"]
)
def test_of_arrays_that_can_be_made_again_any_damage_is_one_error(tmp_path, damage):
    path = tmp_path / "kept" / "a.npz"
    arrays = {"x": np.arange(6.0).reshape(2, 3), "text": np.array("é")}
    save_npz(path, arrays)
    result = load_npz(path)
    assert result.keys() == arrays.keys()
    assert (result["x"] == arrays["x"]).all()
    assert str(result["text"]) == "é"
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "npy":
        with path.open("wb") as file:
            np.save(file, arrays["x"])
    elif damage == "compressed":  # a bomb would be
        np.savez_compressed(path, x=np.zeros(100_000))
    elif damage == "pickled":
        np.savez(path, x=np.array([print], dtype=object))
    else:
        spoiled = {"empty": b"", "cut": content[: len(content) // 2], "text": b"text"}
        path.write_bytes(spoiled.get(damage, content.replace(b"NUMPY", b"NUMPX", 1)))
    with pytest.raises(ValueError, match=r"\w"):
        load_npz(path)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("a", np.zeros((3, 8))),
        ("a", np.zeros(3, int)),
        ("b", np.zeros(2, int)),
        ("b", np.zeros((3, 1), int)),
        ("b", np.zeros(3)),
        ("b", None),
    ],
)
def test_lengths_that_belong_together_are_compared(name, array):
    arrays = {"a": np.zeros((3, 7)), "b": np.zeros(3, int), "other": np.zeros(1)}
    check_shapes(arrays, {"a": ("f", ("n", 7)), "b": ("iu", ("n",))})
    arrays = {key: value for key, value in (arrays | {name: array}).items() if value is not None}
    with pytest.raises(ValueError, match=rf"^{name} (is missing or of the wrong kind|has the wrong length)$"):
        check_shapes(arrays, {"a": ("f", ("n", 7)), "b": ("iu", ("n",))})


@pytest.mark.parametrize("bomb", ["compressed", "promise", "twice"])
def test_what_promises_more_than_it_holds_is_refused_before_it_takes_memory(tmp_path, bomb):
    path = tmp_path / "a.npz"
    if bomb == "compressed":
        np.savez_compressed(path, x=np.zeros(1 << 26, np.uint8))
    elif bomb == "promise":  # of a terabyte; the members' sums fit
        member = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            member, {"descr": "|u1", "fortran_order": False, "shape": (10**12,)}
        )
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", member.getvalue())
    else:  # two names of the same bytes
        with zipfile.ZipFile(path, "w") as archive:
            with archive.open("x.npy", "w") as file:
                np.lib.format.write_array(file, np.zeros(1 << 20, np.uint8))
            duplicate = copy.copy(archive.filelist[0])
            duplicate.filename = "y.npy"
            archive.filelist.append(duplicate)
    content = path.read_bytes()
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"promises|[Oo]verlap"):
            read_arrays(path, hashlib.sha256(content).hexdigest())
        with pytest.raises(ValueError, match=r"promises|[Oo]verlap"):
            load_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
