"""Training states: everything a training needs to resume as if it had never stopped, in two generations.

    FOLDER/state-12.npz   weights, optimizer, seed generators (uncompressed)
    FOLDER/state-12.json  its SHA-256 and whatever the training wants to keep; readable
    FOLDER/state-11.*     the generation before, kept in case a byte of the newest one is lost

The arrays are complete on disk before the JSON file that vouches for them appears, and only then is the third-newest
generation removed. Only one process at a time may save into a folder.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mri_transfer import progress
from mri_transfer.errors import UserError
from mri_transfer.storage.arrays import differences, read_arrays, write_arrays
from mri_transfer.storage.files import NewerFormat, read_object, to_json, write_card

if TYPE_CHECKING:
    import keras

FORMAT = 1
KEPT = 2
CARD_NAME = re.compile(r"state-(\d+)\.json")
FILE_NAME = re.compile(r"state-(\d+)\.(json|npz)(\.[0-9a-f]+\.part)?")
REMEDY = "delete the folder to start over"


def _generations(folder: Path) -> list[int]:
    """Numbers of complete generations, newest first."""
    matches = (CARD_NAME.fullmatch(path.name) for path in folder.iterdir()) if folder.is_dir() else ()
    return sorted((int(match[1]) for match in matches if match), reverse=True)


def _info_sha256(info: dict[str, Any]) -> str:
    """Digest of the information as JSON without blanks, to detect a flipped digit in the readable file."""
    return hashlib.sha256(to_json(info, indent=None).encode()).hexdigest()


def save_state(folder: Path, arrays: dict[str, np.ndarray], info: dict[str, Any]) -> None:
    """Save a new generation; the one before it is kept, older ones are removed.

    Args:
        folder: created if missing.
        arrays: from :func:`model_arrays`, or any numbers by name.
        info: JSON values, such as step, elapsed seconds and data position; numbers must be finite.

    Raises:
        OSError: the disk is full or read-only; existing generations still load.
        ValueError: an array or value that can't be stored.
    """
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    before = _generations(folder)
    _remove_others(folder, before[:KEPT])  # half-written files of a killed process take up space
    new = before[0] + 1 if before else 0
    digest = write_arrays(folder / f"state-{new}.npz", arrays)
    card = {"format": FORMAT, "sha256": digest, "info_sha256": _info_sha256(info), "info": info}
    write_card(folder / f"state-{new}.json", card)
    _remove_others(folder, [new, *before[: KEPT - 1]])


def _remove_others(folder: Path, numbers: list[int]) -> None:
    """Remove generations not in `numbers`, card first, and files that belong to no generation."""
    names = {f"state-{number}.{suffix}" for number in numbers for suffix in ("json", "npz")}
    for path in sorted(folder.iterdir()):  # .json sorts before .npz
        if FILE_NAME.fullmatch(path.name) and path.name not in names:
            path.unlink(missing_ok=True)


def load_state(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """The newest intact generation, every byte verified, or None if nothing was saved yet.

    A damaged generation is set aside (as damaged.npz and damaged.json) and reported.

    Raises:
        UserError: no existing generation is intact, or a newer program wrote them.
    """
    folder = Path(folder)
    problems = []
    for number in _generations(folder):
        try:
            state = _load(folder, number)
        except NewerFormat:
            raise
        except UserError as error:
            problems.append((number, str(error)))
            continue
        for damaged, problem in problems:
            progress.say(f"{problem}; continuing from the state saved before it")
            _set_aside(folder, damaged)
        return state
    if problems:
        raise UserError(f"{problems[0][1]}, and no older state can be read; {REMEDY}")
    return None


def keep_newest(folder: Path) -> bool:
    """Make room: remove all but the newest generation, provided that one is intact.

    Returns:
        Whether anything was removed.
    """
    folder = Path(folder)
    generations = _generations(folder)
    if len(generations) < 2:
        return False
    try:
        _load(folder, generations[0])
    except UserError:
        return False
    _remove_others(folder, generations[:1])
    return True


def _load(folder: Path, number: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    path = folder / f"state-{number}.json"
    card = read_object(path, {"info": dict, "info_sha256": str, "sha256": str}, newest=FORMAT)
    if _info_sha256(card["info"]) != card["info_sha256"]:
        raise UserError(f"{path}: is damaged (its SHA-256 is not the recorded one)")
    return read_arrays(folder / f"state-{number}.npz", card["sha256"]), card["info"]


def _set_aside(folder: Path, number: int) -> None:
    """Keep a damaged generation for inspection, no longer counted as a generation."""
    for suffix in ("json", "npz"):
        path = folder / f"state-{number}.{suffix}"
        try:
            path.replace(folder / f"damaged.{suffix}")
        except OSError:  # missing, or the disk became read-only: it will be skipped again
            continue


def named_variables(
    model: keras.Model, optimizer: keras.optimizers.Optimizer | None = None
) -> dict[str, Any]:
    """Every variable by a name that does not depend on how Keras numbered layers in this process."""
    by_name = {}
    groups = {"model": model.variables}
    if optimizer is not None:
        if not optimizer.built:
            raise ValueError("build the optimizer before its state is collected or restored")
        groups["optimizer"] = optimizer.variables
    for group, variables in groups.items():
        for index, variable in enumerate(variables):
            kind = re.sub(r"_\d+$", "", variable.path.rpartition("/")[2])
            if group == "optimizer":  # "adam/stem_conv_kernel_momentum": the layer's name may be numbered
                kind = kind.rpartition("_")[2]
            by_name[f"{group}/{index:04d}/{kind}"] = variable
    return by_name


def model_arrays(
    model: keras.Model, optimizer: keras.optimizers.Optimizer | None = None
) -> dict[str, np.ndarray]:
    """Everything that changes while a model trains: weights, moving statistics, seed generators, optimizer.

    Names are "model/0012/kernel" or "optimizer/0003/momentum": only the position matters, as Keras may number the same
    layer differently in another process. bfloat16 is widened to float32, which is exact; other types are kept. The
    arrays are copies, so training can continue while they are written.

    Raises:
        ValueError: the optimizer is not built yet.
    """
    from keras import ops

    arrays = {}
    for name, variable in named_variables(model, optimizer).items():
        array = np.array(ops.convert_to_numpy(variable))
        arrays[name] = array.astype("float32") if array.dtype.name == "bfloat16" else array
    return arrays


def assign_arrays(
    arrays: dict[str, np.ndarray], model: keras.Model, optimizer: keras.optimizers.Optimizer | None = None
) -> None:
    """Restore what :func:`model_arrays` collected; nothing is set unless everything fits.

    Raises:
        UserError: the arrays belong to another model or optimizer; the message says what differs.
        ValueError: the optimizer is not built yet.
    """
    from keras import ops

    variables = named_variables(model, optimizer)
    differ = differences({name: tuple(variable.shape) for name, variable in variables.items()}, arrays)
    if differ:
        raise UserError(f"the saved training state is from another model or optimizer ({differ}); {REMEDY}")
    for name, variable in variables.items():
        dtype, stored_dtype = str(variable.dtype), arrays[name].dtype.name
        if stored_dtype != dtype and (dtype, stored_dtype) != ("bfloat16", "float32"):
            raise UserError(
                f"the saved training state has {name} in {stored_dtype}, not in {dtype}; {REMEDY}"
            )
    for name, variable in variables.items():
        variable.assign(ops.convert_to_tensor(arrays[name], dtype=variable.dtype))
