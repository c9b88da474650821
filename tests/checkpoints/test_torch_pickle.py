"""The torch reader admits tensors and nothing else. The files are written here, opcode by opcode where needed."""

import os
import pickle
import struct
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mri_transfer.checkpoints.imagenet import packaged_weights
from mri_transfer.checkpoints.torch_pickle import MAGIC, PROTOCOL, read_state_dict
from mri_transfer.errors import UserError

SYSTEM = {
    "protocol_version": PROTOCOL,
    "little_endian": True,
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}


def as_pickle(build: bytes) -> bytes:
    return b"\x80\x02" + build + b"."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    key: str, kind: str, count: int, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> bytes:
    """`torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, False, OrderedDict())` as opcodes."""
    storage = (
        b"("
        + text("storage")
        + f"ctorch\n{kind}\n".encode()
        + text(key)
        + text("cpu")
        + number(count)
        + b"Nt"
        + b"Q"
    )
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = b"(" + storage + number(offset) + numbers(shape) + numbers(strides) + b"\x89" + hooks + b"t"
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def torch_file(entries: dict[str, bytes], storages: dict[str, np.ndarray]) -> bytes:
    """A legacy torch file with an ordered dict of `entries`."""
    items = b"".join(text(name) + value for name, value in entries.items())
    state = as_pickle(b"ccollections\nOrderedDict\n)R(" + items + b"u")
    content = b"".join(pickle.dumps(value, 2) for value in (MAGIC, PROTOCOL, SYSTEM)) + state
    content += pickle.dumps(list(storages), 2)
    return content + b"".join(struct.pack("<q", array.size) + array.tobytes() for array in storages.values())


def written(path, content: bytes):
    (path / "weights.pth").write_bytes(content)
    return path / "weights.pth"


def test_tensors_are_views_of_storages_with_offset_and_strides(tmp_path):
    floats, longs = np.arange(24, dtype="<f4"), np.array([7], "<i8")
    entries = {
        "plain": tensor("1", "FloatStorage", 24, 0, (4, 6), (6, 1)),
        "transposed": tensor("1", "FloatStorage", 24, 0, (6, 4), (1, 6)),
        "shifted": tensor("1", "FloatStorage", 24, 10, (3,), (2,)),
        "scalar": tensor("2", "LongStorage", 1, 0, (), ()),
        "empty": tensor("1", "FloatStorage", 24, 0, (0, 3), (3, 1)),
    }
    state = read_state_dict(written(tmp_path, torch_file(entries, {"1": floats, "2": longs})))
    np.testing.assert_array_equal(state["plain"], floats.reshape(4, 6))
    np.testing.assert_array_equal(state["transposed"], floats.reshape(4, 6).T)
    np.testing.assert_array_equal(state["shifted"], [10, 12, 14])
    assert state["scalar"] == 7
    assert state["scalar"].dtype == np.int64
    assert state["empty"].shape == (0, 3)


def test_the_published_file_is_read_completely():
    state = read_state_dict(packaged_weights())
    assert len(state) == 296
    assert (
        sum(array.size for name, array in state.items() if not name.endswith("num_batches_tracked"))
        == 4_694_024
    )
    assert state["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert all(np.isfinite(array).all() for array in state.values())


class Attack:
    """What pickle.load would run."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("place", ["state", "magic", "keys"])
def test_a_pickle_that_calls_the_system_is_refused_and_not_run(tmp_path, protocol, place):
    trace = tmp_path / "it-ran"
    attack = pickle.dumps(Attack(os.system, f"touch {trace}"), protocol)
    parts = {
        "magic": pickle.dumps(MAGIC, 2),
        "protocol": pickle.dumps(PROTOCOL, 2),
        "system": pickle.dumps(SYSTEM, 2),
    }
    parts |= {"state": pickle.dumps(OrderedDict(), 2), "keys": pickle.dumps([], 2)}
    parts[place] = attack
    path = written(tmp_path, b"".join(parts.values()))
    with pytest.raises(UserError, match=r"weights\.pth: refused as a torch weights file: .* no weights need"):
        read_state_dict(path)
    assert not trace.exists()
    pickle.loads(attack)
    assert trace.exists(), "the attack itself works, so refusing it means something"


@pytest.mark.parametrize(
    ("module", "name"),
    [("builtins", "eval"), ("builtins", "getattr"), ("os", "system"), ("torch", "load"),
     ("torch.storage", "FloatStorage"),
     ("collections", "defaultdict"), ("numpy", "load"), ("torch", "DoubleStorage")],
)  # fmt: skip
def test_every_other_name_is_refused(tmp_path, module, name):
    entries = {"x": f"c{module}\n{name}\n".encode()}
    with pytest.raises(UserError, match=rf"asks for {module}\.{name}"):
        read_state_dict(written(tmp_path, torch_file(entries, {})))


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (25,), (1,)), (1, (24,), (1,)), (-1, (2,), (1,)), (0, (2,), (-1,)), (0, (3, 3), (1,)),
     (0, (2**30, 2**30), (0, 0)),
     (0, (2,), (24,)), (0, (1,) * 40, (1,) * 40)],
)  # fmt: skip
def test_a_view_beyond_its_storage_is_refused(tmp_path, offset, shape, strides):
    entries = {"x": tensor("1", "FloatStorage", 24, offset, shape, strides)}
    with pytest.raises(UserError, match="reaches beyond its storage"):
        read_state_dict(written(tmp_path, torch_file(entries, {"1": np.zeros(24, "<f4")})))


def test_other_contents_are_refused_in_one_line(tmp_path):
    good = torch_file({"x": tensor("1", "FloatStorage", 4, 0, (4,), (1,))}, {"1": np.zeros(4, "<f4")})
    cases = {
        b"": "damaged",
        b"PK\x03\x04 a zip, torch's newer format": "refused",
        pickle.dumps(5, 2) * 5: "not a legacy torch file",
        good[:-1]: "ends too early",
        torch_file({"x": number(3)}, {}): "something other than named tensors",
        torch_file({"x": b"r" + struct.pack("<I", 2**31 - 1)}, {}): "memo index",
        good.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"): "little endian",
    }
    for content, message in cases.items():
        with pytest.raises(UserError, match=message) as error:
            read_state_dict(written(tmp_path, content))
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="can't be read"):
        read_state_dict(tmp_path / "none.pth")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_anywhere_gives_tensors_or_one_clear_error(tmp_path, data):
    content = bytearray(
        torch_file({"x": tensor("1", "FloatStorage", 4, 0, (2, 2), (2, 1))}, {"1": np.zeros(4, "<f4")})
    )
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        state = read_state_dict(written(tmp_path, bytes(content)))
    except UserError:
        return
    assert all(isinstance(array, np.ndarray) for array in state.values())
