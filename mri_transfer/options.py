"""A stage's configuration is one frozen dataclass, from which the command line is generated.

Each field is declared with :func:`option` or :func:`argument`, which carry the help text. The same dataclass
is stored as JSON in the run folder and in checkpoints, so every default has one place.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import os
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mri_transfer.errors import UserError

Config = TypeVar("Config")

SMALLEST_SIDE, LARGEST_SIDE = 16, 1024  # of an image, pixels
LARGEST_SEED = 2**31 - 1  # further seeds, of folds or processes, count on from it


def option(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    choices: Collection[str] | None = None,
    metavar: str | None = None,
    repeat: bool = False,
    parse: Callable[[str], Any] | None = None,
    aliases: Mapping[str, str] | None = None,
) -> Any:
    """A dataclass field that becomes `--its-name`.

    Args:
        default: without it the option is required.
        help: one sentence, with the unit; the default is appended.
        choices: the only accepted values.
        aliases: names of some of them elsewhere, for hints.
        metavar: the value's name in `--help`.
        repeat: the option may be given several times; the field is then a tuple.
        parse: turns the text into the value and raises ValueError with a remedy; else the field's type does.
    """
    metadata: dict[str, Any] = {"help": help, "choices": choices, "metavar": metavar, "repeat": repeat}
    metadata |= {"parse": parse, "aliases": aliases or {}}
    return dataclasses.field(default=default, metadata=metadata)


def argument(
    *,
    help: str,
    metavar: str,
    many: bool = False,
    default: Any = dataclasses.MISSING,
    parse: Callable[[str], Any] | None = None,
) -> Any:
    """A dataclass field that becomes a positional argument; with `many`, one or more of them (a tuple).

    With a default it is optional; `parse` is as in :func:`option`.
    """
    metadata = {"help": help, "metavar": metavar, "positional": True, "many": many, "parse": parse}
    return dataclasses.field(default=default, metadata=metadata)


def same_as(config: type, name: str, **changes: Any) -> Any:
    """Another configuration's option of this name, so that it is declared only once.

    Args:
        changes: a different `default`, or any other argument of :func:`option`.
    """
    field = next(candidate for candidate in dataclasses.fields(config) if candidate.name == name)
    default = changes.pop("default", field.default)
    return dataclasses.field(default=default, metadata={**field.metadata, **changes})


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("must be a whole number") from None


def _number(text: str) -> float:
    """A number; 10% is 0.1."""
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise ValueError("must be a number") from None


def positive_int(text: str) -> int:
    """A whole number of at least one."""
    value = _integer(text)
    if value < 1:
        raise ValueError("must be at least 1")
    return value


def side(text: str) -> int:
    """Side of an image in pixels."""
    value = positive_int(text)
    if not SMALLEST_SIDE <= value <= LARGEST_SIDE:
        raise ValueError(f"must be between {SMALLEST_SIDE} and {LARGEST_SIDE} pixels")
    return value


def time_in(unit: str) -> Callable[[str], float]:
    """A finite time above zero, in `unit` (h or min) by default: for h, 8, 8h and 480min are the same."""
    seconds = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "hours": 3600, "hour": 3600, "minutes": 60}

    def parse(text: str) -> float:
        match = re.fullmatch(r"\s*([^\sa-zA-Z]+)\s*([a-zA-Z]*)\s*", text)
        if not match or (match[2] and match[2].lower() not in seconds):
            raise ValueError("must be a time, such as 8h, 90min or a number alone")
        return positive_float(match[1]) * (seconds[match[2].lower() or unit] / seconds[unit])

    return parse


def positive_float(text: str) -> float:
    """A finite number above zero."""
    value = _number(text)
    if not 0 < value < float("inf"):
        raise ValueError("must be a number above 0")
    return value


def whole(text: str) -> int:
    """A whole number of at least zero."""
    value = _integer(text)
    if value < 0:
        raise ValueError("must be at least 0")
    return value


def at_least(least: int, why: str = "") -> Callable[[str], int]:
    """A whole number of at least so many; `why` ends the message."""

    def parse(text: str) -> int:
        value = whole(text)
        if value < least:
            raise ValueError(f"must be at least {least}{why}")
        return value

    return parse


def seed_number(text: str) -> int:
    """A seed that NumPy, scikit-learn and Keras all take."""
    value = whole(text)
    if value > LARGEST_SEED:
        raise ValueError(f"must be at most {LARGEST_SEED}")
    return value


def non_negative_float(text: str) -> float:
    """A finite number of at least zero."""
    value = _number(text)
    if not 0 <= value < float("inf"):
        raise ValueError("must be a number of at least 0")
    return value


def share(text: str) -> float:
    """A number from 0 to 1, or a percentage."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise ValueError("must lie between 0 and 1")
    return value


def fraction(text: str) -> float:
    """A number above 0 and at most 1, or a percentage."""
    value = _number(text)
    if not 0 < value <= 1:
        raise ValueError("must be above 0 and at most 1")
    return value


def fractions(text: str) -> tuple[float, ...]:
    """Comma-separated fractions, such as 0.05,0.25,1 or 5%,25%,100%."""
    return tuple(sorted({fraction(word) for word in text.split(",")}))


def _base_type(annotation: Any) -> Any:
    """`int` for `int | None` and for `tuple[int, ...]`; the annotation itself otherwise."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        annotation = next(member for member in typing.get_args(annotation) if member is not type(None))
    if typing.get_origin(annotation) is tuple:
        annotation = typing.get_args(annotation)[0]
    return annotation


def _explained(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """argparse hides a ValueError's text; this keeps it."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None

    return convert


def did_you_mean(text: str, choices: Iterable[str], aliases: Mapping[str, str] | None = None) -> str:
    """ "; did you mean simclr?" for a word close to one of the choices, or an alias of one."""
    names = {name.lower(): name for name in choices} | {
        key.lower(): name for key, name in (aliases or {}).items()
    }
    close = difflib.get_close_matches(text.lower(), names, n=1, cutoff=0.7)
    return f"; did you mean {names[close[0]]}?" if close else ""


def _choice_parser(choices: Collection[str], aliases: Mapping[str, str]) -> Callable[[str], str]:
    """One of the choices, ignoring case."""

    def parse(text: str) -> str:
        choice = {name.lower(): name for name in choices}.get(text.lower())
        if choice is None:
            hint = did_you_mean(text, choices, aliases)
            raise ValueError(f"must be one of {', '.join(choices)}{hint}")
        return choice

    return parse


def _value_text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _path(text: Any) -> Path:
    """A path that a file can have."""
    if not isinstance(text, (str, os.PathLike)):
        raise ValueError("must be a path")
    if not (name := os.fspath(text)) or "\0" in name:
        raise ValueError("no file has that name")
    return Path(text)


_PLAIN: dict[type, Callable[[str], Any]] = {int: _integer, float: _number, Path: _path}


def add_options(parser: argparse.ArgumentParser, config: type) -> None:
    """Add every field of the dataclass `config` to `parser`, under its `HEADINGS`, if any.

    `HEADINGS` is {heading: names of fields, separated by spaces}; other fields come first.
    """
    annotations = typing.get_type_hints(config)
    parser.usage = _usage(config)
    places: dict[str, Any] = {}
    for heading, names in getattr(config, "HEADINGS", {}).items():
        places |= dict.fromkeys(names.split(), parser.add_argument_group(heading))
    for field in dataclasses.fields(config):
        metadata = field.metadata
        if "help" not in metadata:
            continue
        base = _base_type(annotations[field.name])
        has_default = field.default is not dataclasses.MISSING
        if metadata.get("positional"):
            arity = ("*" if has_default else "+") if metadata["many"] else ("?" if has_default else None)
            kind = _explained(metadata.get("parse") or _PLAIN.get(base, base))
            parser.add_argument(
                field.name, type=kind, metavar=metadata["metavar"], help=metadata["help"], nargs=arity
            )
            continue
        flag = "--" + field.name.rstrip("_").replace("_", "-")  # `for_` is --for, which can't be a field name
        text = metadata["help"].replace("%", "%%")
        place = places.get(field.name, parser)
        if base is bool:
            place.add_argument(flag, dest=field.name, action="store_true", default=field.default, help=text)
            continue
        default: Any = field.default if has_default else None
        if metadata["repeat"]:
            default = list(default or ())  # argparse appends to a copy, which can't be a tuple
        if has_default and field.default not in (None, (), ""):
            text += f" (default: {_value_text(field.default)})"
        place.add_argument(
            flag,
            dest=field.name,
            type=_explained(
                metadata["parse"]
                or (
                    _choice_parser(metadata["choices"], metadata["aliases"])
                    if metadata["choices"]
                    else _PLAIN.get(base, base)
                )
            ),
            default=default,
            required=not has_default,
            metavar=metadata["metavar"]
            or (f"{{{','.join(metadata['choices'])}}}" if metadata["choices"] else None),
            action="append" if metadata["repeat"] else "store",
            help=text,
        )


def _usage(config: type) -> str:
    """Usage with required arguments only; the options are listed below, and there are too many for one line."""
    required, words = [], []
    for field in dataclasses.fields(config):
        metadata, has_default = field.metadata, field.default is not dataclasses.MISSING
        if metadata.get("positional"):
            word = (
                f"{metadata['metavar']} [{metadata['metavar']} ...]"
                if metadata["many"]
                else metadata["metavar"]
            )
            words.append(f"[{word}]" if has_default else word)
        elif "help" in metadata and not has_default:
            required.append(f"--{field.name.replace('_', '-')} {metadata['metavar'] or field.name.upper()}")
    return " ".join(["%(prog)s", *words, *required, "[options]"])


def from_arguments(config: type[Config], arguments: argparse.Namespace) -> Config:
    """The dataclass filled from parsed arguments; lists become tuples so that it stays hashable."""
    values = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(arguments, field.name, field.default)
        if isinstance(field.default, tuple) and isinstance(value, list) and field.metadata.get("repeat"):
            value = (
                value[len(field.default) :] if value[: len(field.default)] == list(field.default) else value
            )
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return config(**values)


def configure(config: type[Config], arguments: Sequence[Any], options: dict[str, Any]) -> Config:
    """The dataclass filled from a Python call: paths may be text, repeated values any sequence.

    Args:
        config: declared with :func:`argument` and :func:`option`.
        arguments: values of the positional fields, in order.
        options: values of the others, by name.

    Raises:
        UserError: a name is unknown, a required one is missing, or an option rejects its value.
    """
    fields = {field.name: field for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    annotations = typing.get_type_hints(config)
    positional = [name for name, field in fields.items() if field.metadata.get("positional")]
    values = dict(zip(positional, arguments, strict=False)) | options
    for name in values:
        if name not in fields:
            raise UserError(f"{name}: no such option{did_you_mean(name, fields)}")
    values = {name: _accepted(fields[name], annotations[name], value) for name, value in values.items()}
    if preset := getattr(config, "preset", None):
        defaults = {name: field.default for name, field in fields.items()}
        values = preset(defaults | values) | values
    for name, field in fields.items():
        if field.default is dataclasses.MISSING and values.get(name) in (None, ()):
            raise UserError(f"{name}: is required")
    return config(**values)


def _accepted(field: dataclasses.Field, annotation: Any, value: Any) -> Any:
    """A value as the command line would have parsed it."""
    metadata, base = field.metadata, _base_type(annotation)
    if "help" not in metadata:
        return value
    if value is None:
        return None if field.default is dataclasses.MISSING else field.default
    if field.default == () and isinstance(value, (list, tuple)) and not value:
        return ()
    choices = metadata.get("choices")
    if choices and value not in tuple(choices):  # of any type, even one without a hash
        raise UserError(f"{field.name}={value!r}: must be one of {', '.join(choices)}")
    if base is bool and value not in (True, False):
        raise UserError(f"{field.name}={value!r}: must be true or false")

    def accept(item: Any) -> Any:
        if base is str and isinstance(item, (int, float, dict)):  # from a file of settings; paths are fine
            raise ValueError("must be text")
        if metadata.get("parse"):
            parsed = metadata["parse"](_value_text(item))
            return parsed if isinstance(item, str) else item  # a number converted to text has lost digits
        if base in (int, float) and not isinstance(item, (int, float)):
            raise ValueError("must be a number")
        return _path(item) if base is Path else item

    try:
        if metadata.get("repeat") or metadata.get("many"):
            items = (value,) if isinstance(value, (str, Path)) else value
            nested = (item if isinstance(item, (list, tuple)) else (item,) for item in items)
            return tuple(accept(item) for several in nested for item in several)
        several = typing.get_origin(annotation) is tuple
        if several and isinstance(value, (int, float)):
            value = (value,)
        elif isinstance(value, (list, tuple)) and not several:
            if base is not str:
                raise ValueError("takes one value")
            value = ",".join(map(str, value))
        accepted = accept(tuple(value) if isinstance(value, list) else value)
    except (ValueError, TypeError) as error:
        raise UserError(f"{field.name}={shortened(repr(value))}: {error}") from None
    return accepted


def shortened(text: str, most: int = 200) -> str:
    """One line of at most so many characters, for messages."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def as_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain JSON values, for run folders and provenance."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return {field.name: plain(getattr(config, field.name)) for field in dataclasses.fields(config)}
