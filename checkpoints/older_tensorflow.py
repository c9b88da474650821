"""Make a SavedModel loadable by an older TensorFlow: remove what newer releases added, or refuse it.

TensorFlow reads graphs of newer releases as long as they use nothing added since; but newer releases add attributes to
old operations, and operations around every variable, mostly hints. `operations.txt`, made from the releases themselves,
lists what each release knows; a graph is checked against it before anyone copies it to a board.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from mri_transfer.errors import UserError
from mri_transfer.storage.files import atomic_write

OPERATIONS = Path(__file__).with_name("operations.txt")
# Releases by their `--for` name. A board's release comes with its JetPack: 2.7 with JetPack 4.6, 2.12 with 5.1.
TARGETS = {"tf2.6": "2.6", "tf2.7": "2.7", "tf2.12": "2.12"}

# Operations that are only hints and have no outputs; they occur in the code that saves variables.
HINTS = {"DisableCopyOnRead"}
# Attributes that never affect results: which operand of a product is a gradient, whether an assignment rechecks its
# shape, a variable's name in messages.
HINT_ATTRIBUTES = {"grad_a", "grad_b", "grad_x", "grad_y", "validate_shape", "debug_name"}
# Names the gradient function of a node. Only Python code that builds further gradients needs it, and none are built
# from a graph that contains its own.
CUSTOM_GRADIENT = "_gradient_op_type"
# Which generator a stateless random operation uses. "Choose" was new in 2.7 and picks this one on CPUs and GPUs:
# https://www.tensorflow.org/api_docs/python/tf/random/Algorithm
CHOOSE, PHILOX = 3, 1


@cache
def known_operations(version: str) -> dict[str, frozenset[str]]:
    """Attributes of every operation known to a release, by operation name.

    Args:
        version: one of the values of TARGETS.
    """
    operations, target = {}, _numbers(version)
    for line in OPERATIONS.read_text(encoding="ascii").splitlines():
        if not line.startswith("#"):
            release, name, *attributes = line.split()
            if _numbers(release) <= target:  # later lines are from later releases and win
                operations[name] = frozenset(attributes)
    return operations


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def make_loadable(folder: Path, version: str) -> None:
    """Change a SavedModel in place so that a release of TensorFlow loads it; its numbers stay the same.

    Args:
        folder: the SavedModel's.
        version: one of the values of TARGETS.

    Raises:
        UserError: the graph uses what that release doesn't know.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    path = Path(folder) / "saved_model.pb"
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString(path.read_bytes())
    known_ops = known_operations(version)
    unknown: set[str] = set()
    for meta in saved.meta_graphs:
        library = meta.graph_def.library
        functions = {function.signature.name for function in library.function}
        _convert(meta.graph_def.node, known_ops, functions, unknown)
        for function in library.function:
            hints = _convert(function.node_def, known_ops, functions, unknown)
            for name in [key for key, node in function.control_ret.items() if node in hints]:
                del function.control_ret[name]
                function.signature.control_output.remove(name)
        operations = [
            operation for operation in meta.meta_info_def.stripped_op_list.op if operation.name in known_ops
        ]
        del meta.meta_info_def.stripped_op_list.op[:]
        meta.meta_info_def.stripped_op_list.op.extend(operations)
    if unknown:
        raise UserError(
            f"--for tf{version}: that TensorFlow doesn't know {', '.join(sorted(unknown))}, which this graph needs; "
            "choose another --method or --backbone, or a newer TensorFlow"
        )
    with atomic_write(path, "wb") as file:
        file.write(saved.SerializeToString())
    (Path(folder) / "fingerprint.pb").unlink(missing_ok=True)  # of what it was


def _convert(
    nodes: Any, operations: dict[str, frozenset[str]], functions: set[str], unknown: set[str]
) -> set[str]:
    """Convert the nodes of one graph in place, adding what can't be converted to `unknown`.

    Returns:
        Names of the nodes that were removed.
    """
    hints = {node.name for node in nodes if node.op in HINTS and node.op not in operations}
    remaining = [node for node in nodes if node.name not in hints]
    by_name = {node.name: node for node in remaining}
    for node in remaining:
        inputs = [source for source in node.input if source.removeprefix("^") not in hints]
        if len(inputs) != len(node.input):
            del node.input[:]
            node.input.extend(inputs)
        node.attr.pop(CUSTOM_GRADIENT, None)
        if node.op in functions:
            continue
        if node.op not in operations:
            unknown.add(node.op)
            continue
        for name in [key for key in node.attr if not key.startswith("_") and key not in operations[node.op]]:
            if name not in HINT_ATTRIBUTES and node.attr[name] != _default(node.op, name):
                unknown.add(f"{node.op}'s {name}")
            del node.attr[name]
        for source in _algorithms(node):
            constant = by_name.get(source)
            if constant is not None and constant.op == "Const":
                tensor = constant.attr["value"].tensor
                if list(tensor.int_val) == [CHOOSE]:
                    tensor.int_val[:] = [PHILOX]
    if hints:
        copies = [type(node).FromString(node.SerializeToString()) for node in remaining]
        del nodes[:]
        nodes.extend(copies)
    return hints


def _definition(operation: str) -> Any:
    """As this TensorFlow defines it."""
    from tensorflow.python.framework import op_def_registry

    return op_def_registry.get(operation)


def _default(operation: str, attribute: str) -> Any:
    defined: Iterable[Any] = _definition(operation).attr
    return next((definition.default_value for definition in defined if definition.name == attribute), None)


def _algorithms(node: Any) -> Iterator[str]:
    """Names of the nodes that choose a random operation's generator."""
    definition = _definition(node.op) if node.op.startswith("Stateless") else None
    for argument, source in zip(definition.input_arg if definition else (), node.input, strict=False):
        if argument.name == "alg":
            yield source.partition(":")[0]
