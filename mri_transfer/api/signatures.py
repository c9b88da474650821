"""Signatures and docstrings of the API, made from the same configurations as the command line.

Running functions carry them (`help`, notebooks); editors and type checkers read them from `__init__.pyi`, written by
`python -m mri_transfer.api` and tested against the configurations.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from mri_transfer.cli import COMMANDS, load

Function = TypeVar("Function", bound=Callable[..., Any])

# Parameters without a command-line option: name, annotation, default, description.
QUIET = ("quiet", "bool", "False", "Say nothing and draw no bars.")
EXECUTOR = (
    "executor",
    "Executor | None",
    "None",
    "Of `concurrent.futures`' kind, which does the work instead of processes that are started for it.",
)
CALLBACKS = (
    "callbacks",
    "Sequence[Callback]",
    "()",
    "Objects to notify as training proceeds; see `Callback`.",
)
ARMS = (
    "The starts to compare: text as on the command line ('imagenet', 'mri=runs/mri', 'mine=net.keras', "
    "'dinov3=features:table.npz'), (name, start) pairs, or {name: start}. A start is text, a path, a `keras.Model`, or "
    "features as (files, array)."
)
SPECIAL = {("compare", "arm"): ("Arms", ARMS), ("slices", "subject"): ("str | None", "")}


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a function: its name, annotation and default as text, and its description."""

    name: str
    annotation: str
    default: str | None
    about: str
    kind: Any = inspect.Parameter.KEYWORD_ONLY


def config_of(command: str) -> type:
    """The configuration of a command."""
    return load(COMMANDS[command].config)


def parameters_of(command: str, more: tuple[tuple[str, str, str, str], ...] = ()) -> list[Parameter]:
    """The parameters of a command's function: its positional arguments, its options, and `more`."""
    config = config_of(command)
    hints = typing.get_type_hints(config)
    parameters = []
    for field in dataclasses.fields(config):
        metadata = field.metadata
        if "help" not in metadata:
            continue
        annotation, text = SPECIAL.get((command, field.name), ("", ""))
        kind: Any = inspect.Parameter.KEYWORD_ONLY
        if metadata.get("positional"):
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        if metadata.get("positional") and metadata.get("many"):
            kind, annotation = inspect.Parameter.VAR_POSITIONAL, "FilePath"
        default = None
        if field.default is not dataclasses.MISSING and kind is not inspect.Parameter.VAR_POSITIONAL:
            default = repr(str(field.default)) if isinstance(field.default, Path) else repr(field.default)
        annotation = annotation or _annotation(hints[field.name], metadata)
        parameters.append(
            Parameter(field.name, annotation, default, text or _sentence(metadata["help"]), kind)
        )
    parameters.sort(key=lambda parameter: (parameter.kind, parameter.default is not None))  # stable
    return parameters + [Parameter(*columns) for columns in (*more, QUIET)]


def _annotation(hint: Any, metadata: Any) -> str:
    """The type a function accepts where the configuration has `hint`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (inner,) = (member for member in typing.get_args(hint) if member is not type(None))
        return f"{_annotation(inner, metadata)} | None"
    if typing.get_origin(hint) is tuple:
        inner = _annotation(typing.get_args(hint)[0], {})
        plain = "str | Sequence[str]" if inner == "str" else f"{inner} | Sequence[{inner}]"
        return plain if metadata.get("repeat") or inner == "str" else f"str | {plain}"
    if choices := metadata.get("choices"):
        literal = f"Literal[{', '.join(repr(name) for name in choices)}]"
        return f"{literal} | str" if isinstance(choices, dict) else literal  # users may add their own methods
    if hint is float and metadata.get("parse"):
        return "float | str"  # "8h", "10%"
    return {Path: "FilePath"}.get(hint, hint.__name__)


def _sentence(text: str) -> str:
    text = re.sub(r"--([a-z][a-z-]*)", lambda match: f"`{match[1].replace('-', '_')}`", text)
    return text[:1].upper() + text[1:].rstrip(".") + "."


def from_command(
    command: str, *more: tuple[str, str, str, str], returns: type
) -> Callable[[Function], Function]:
    """Give a function the signature of a command and the description of its options, when it is first imported."""

    def decorate(function: Function) -> Function:
        parameters = parameters_of(command, more)
        function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(
                    parameter.name,
                    parameter.kind,
                    default=inspect.Parameter.empty
                    if parameter.default is None
                    else _Shown(parameter.default),
                    annotation=_Shown(parameter.annotation),
                )
                for parameter in parameters
            ],
            return_annotation=_Shown(returns.__name__),
        )
        function.__doc__ = docstring(inspect.cleandoc(function.__doc__ or ""), parameters, returns)
        function.__made_of__ = (command, more, returns)  # type: ignore[attr-defined]
        return function

    return decorate


class _Shown(str):
    """Text that a signature shows verbatim."""

    def __repr__(self) -> str:
        return str(self)


def docstring(text: str, parameters: list[Parameter], returns: type) -> str:
    """A NumPy-style docstring: the text, with its examples moved last, and every parameter."""
    text, _, examples = text.partition("\n\nExamples\n")
    lines = [text, "", "Parameters", "----------"]
    for parameter in parameters:
        star = "*" if parameter.kind is inspect.Parameter.VAR_POSITIONAL else ""
        default = (
            f", default {parameter.default}" if parameter.default not in (None, "None", "()", "''") else ""
        )
        lines += [f"{star}{parameter.name} : {parameter.annotation}{default}", f"    {parameter.about}"]
    summary = inspect.cleandoc(returns.__doc__ or "").splitlines()[0]
    lines += ["", "Returns", "-------", returns.__name__, f"    {summary}"]
    lines += [
        "",
        "Raises",
        "------",
        "UserError",
        "    For every error that the command line reports in one line.",
    ]
    return "\n".join(lines) + (f"\n\nExamples\n{examples}" if examples else "")


def stub() -> str:
    """The text of `__init__.pyi`."""
    from mri_transfer import api

    lines = [
        "# Written by `python -m mri_transfer.api` from the configurations; don't edit.",
        "import os",
        "from collections.abc import Mapping, Sequence",
        "from concurrent.futures import Executor",
        "from typing import Any, Literal",
        "",
    ]
    functions: list[Any] = [
        function for function in map(api.__dict__.get, api.__all__) if hasattr(function, "__made_of__")
    ]
    modules: dict[str, list[str]] = {}
    for name in api.__all__:
        value = getattr(api, name)
        if value not in functions:
            modules.setdefault(value.__module__, []).append(f"{value.__name__} as {name}")
    lines += [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(modules.items())]
    lines += [
        "",
        "FilePath = str | os.PathLike[str]",
        "Arms = str | Sequence[Any] | Mapping[str, Any]",
        f"__all__ = [{', '.join(repr(name) for name in api.__all__)}]",
        "",
    ]
    for function in functions:
        command, more, returns = function.__made_of__
        lines.append(f"def {function.__name__}(")
        star = False
        for parameter in parameters_of(command, more):
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                star = True
            elif parameter.kind is inspect.Parameter.KEYWORD_ONLY and not star:
                star = True
                lines.append("    *,")
            name = (
                f"*{parameter.name}" if parameter.kind is inspect.Parameter.VAR_POSITIONAL else parameter.name
            )
            default = "" if parameter.default is None else f" = {parameter.default}"
            lines.append(f"    {name}: {parameter.annotation}{default},")
        lines.append(f") -> {returns.__name__}: ...")
    return "\n".join(lines) + "\n"
