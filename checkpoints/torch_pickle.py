"""Read a state dict from a legacy torch file (before the zip format of torch 1.6), without torch.

Such a file is a chain of pickles (magic number, protocol, byte order, the state dict with its tensors left
out, the list of storage keys), followed by each storage: its length as int64, then its numbers, little
endian. A pickle can call any function by name, so this reader rejects every opcode, then every name, that a state dict
does not need. torch is never imported, and nothing from the file is ever called.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer.errors import UserError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STORAGES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
# fmt: off
OPCODES = frozenset((
    "PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD", "BINPERSID", "NONE", "NEWTRUE", "NEWFALSE",
    "BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE",
    "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND", "APPENDS", "SETITEM", "SETITEMS",
    "BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT",
))
# fmt: on
MEMO_LIMIT = 1_000_000  # the unpickler allocates as many slots as the largest index in the file


class _Refused(Exception):
    """What is wrong; the caller adds the file name."""


class _StateDict(OrderedDict):
    """Replaces `OrderedDict`; torch attaches version notes to it, which are dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


@dataclass(frozen=True)
class _Storage:
    """A storage that the pickle refers to; its numbers come later in the file."""

    key: str
    dtype: np.dtype
    count: int


@dataclass(frozen=True)
class _Tensor:
    """A tensor as a view of a storage; all fields count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def fits(self) -> bool:
        """Whether every element lies within the storage (a view past its end would read foreign memory)."""
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or len(self.shape) > 8:
            return False
        if not all(type(number) is int and 0 <= number < 2**40 for number in numbers):
            return False
        if 0 in self.shape:
            return True
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return self.offset + last < self.storage.count and math.prod(self.shape) <= self.storage.count

    def read(self, storage: np.ndarray) -> np.ndarray:
        steps = tuple(stride * storage.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(storage[self.offset :], self.shape, steps).copy()


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *unused: Any) -> _Tensor:
    """Replaces `torch._utils._rebuild_tensor_v2`; gradients and hooks are ignored."""
    if not (isinstance(storage, _Storage) and isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise _Refused("a tensor is not described by a storage, a shape and strides")
    tensor = _Tensor(storage, offset, shape, strides)
    if not tensor.fits():
        raise _Refused("a tensor reaches beyond its storage")
    return tensor


class _Unpickler(pickle.Unpickler):
    """Allows only the four names that a state dict uses."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _StateDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise _Refused(f"it asks for {module}.{name}, which no weights need")

    def persistent_load(self, reference: Any) -> _Storage:
        match reference:
            case ("storage", np.dtype() as dtype, str(key), str(), int(count), None) if count >= 0:
                return _Storage(key, dtype, count)
        raise _Refused("a storage is described in an unknown way")


def _load_next(file: io.BytesIO) -> Any:
    """The next pickle of the chain, after checking that all its opcodes are harmless."""
    start = file.tell()
    for opcode, value, _ in pickletools.genops(file):
        if opcode.name not in OPCODES:
            raise _Refused(f"it uses the pickle opcode {opcode.name}, which no weights need")
        if opcode.name == "LONG_BINPUT" and int(value or 0) > MEMO_LIMIT:
            raise _Refused("its pickle names an absurd memo index")
    file.seek(start)
    return _Unpickler(file, encoding="utf-8").load()


def _read(file: io.BytesIO) -> dict[str, np.ndarray]:
    if _load_next(file) != MAGIC or _load_next(file) != PROTOCOL:
        raise _Refused("it is not a legacy torch file")
    system = _load_next(file)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _Refused("its numbers are not little endian")
    state = _load_next(file)
    if not isinstance(state, dict):
        raise _Refused("it holds no state dict")
    tensors = {name: value for name, value in state.items() if isinstance(value, _Tensor)}
    if len(tensors) != len(state) or not all(isinstance(name, str) for name in state):
        raise _Refused("its state dict holds something other than named tensors")
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    keys = _load_next(file)
    if not isinstance(keys, list) or sorted(keys) != sorted(storages):
        raise _Refused("its list of storages is not the one its tensors need")
    numbers = {}
    for key in keys:
        storage = storages[key]
        count = int.from_bytes(file.read(8), "little")
        data = file.read(storage.count * storage.dtype.itemsize)
        if count != storage.count or len(data) != storage.count * storage.dtype.itemsize:
            raise _Refused("it ends too early")
        numbers[key] = np.frombuffer(data, storage.dtype)
    if any(tensor.storage != storages[tensor.storage.key] for tensor in tensors.values()):
        raise _Refused("two tensors disagree about the storage they share")
    return {name: tensor.read(numbers[tensor.storage.key]) for name, tensor in tensors.items()}


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The named tensors of a legacy torch weights file, as float32 and int64 arrays of the tensors' shapes.

    Raises:
        UserError: the file is missing, damaged, another format, or asks for anything but tensors.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: can't be read ({error.strerror}); give the path of a weights file"
        ) from None
    try:
        return _read(io.BytesIO(content))
    except Exception as error:  # a hostile or truncated pickle may raise anything
        problem = str(error) if isinstance(error, _Refused) else "its pickle is damaged"
        raise UserError(f"{path}: refused as a torch weights file: {problem}; get the file again") from None
