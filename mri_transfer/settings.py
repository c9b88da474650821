"""The settings of an earlier run, reused: `--config FILE`, or `api.settings(FOLDER)` in Python."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mri_transfer.errors import UserError
from mri_transfer.options import configure, did_you_mean
from mri_transfer.storage.files import read_object

Config = TypeVar("Config")

FILES = ("config.json", "report.json")
COMMANDS = ("pretrain", "finetune", "compare")
HELP = "take the settings of an earlier run: its folder or config.json; options on the command line take precedence"


def settings_of(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings of an earlier run of `pretrain` or `finetune`, or of a comparison, for reuse.

    Parameters
    ----------
    path : path
        Its folder, its `config.json`, or the `report.json` of a comparison; or a JSON file of options alone.

    Returns
    -------
    dict
        Options by name.

    Raises
    ------
    UserError
        There is no such file, or it holds no settings.

    Examples
    --------
    >>> api.pretrain(**api.settings("runs/mri") | {"out": "runs/second", "seed": 1})
    """
    path = Path(path)
    if path.is_dir():
        file = next((path / name for name in FILES if (path / name).is_file()), None)
        if file is None:
            raise UserError(f"{path}: holds no settings ({' or '.join(FILES)}); name a run or a comparison")
        path = file
    content: Any = read_object(path)
    report = content.get("settings")
    for config in (content.get("config"), report.get("options") if isinstance(report, Mapping) else None):
        if isinstance(config, Mapping):
            content = config
            break
    else:
        if "format" in content or "kind" in content:
            raise UserError(f"{path}: holds no settings; name the config.json of a run")
    return {str(name): value for name, value in content.items() if name != "banner"}


def merged(config: type[Config], parsed: argparse.Namespace) -> Config:
    """The configuration of a command line with `--config`: what it says itself wins; of several budgets one is enough.

    Args:
        parsed: from :func:`given_in`.

    Raises:
        UserError: the file can't be read, or a setting doesn't belong to this command.
    """
    names = {field.name: field for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    options = {
        name: value for name, value in vars(parsed).items() if name in names and value not in (None, [])
    }
    settings = settings_of(parsed.config)
    if unknown := next((name for name in settings if name not in names), None):
        command = parsed.command
        if hint := did_you_mean(unknown, names):
            raise UserError(f"{parsed.config}: {unknown}: no such option{hint}; remove it")
        raise UserError(
            f"{parsed.config}: {unknown} is not an option of `{command}`; name a run of `{command}`, or remove it"
        )
    for group in getattr(config, "ONE_OF", ()):
        if any(name in options for name in group):
            settings = {name: value for name, value in settings.items() if name not in group}
    return configure(config, (), settings | options)


def asked_for(arguments: Sequence[str]) -> bool:
    """Whether a command line refers to an earlier run's settings."""
    return any(word == "--config" or word.startswith("--config=") for word in arguments)


def given_in(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The options a command line gives itself: nothing is required, and defaults are left out.

    Args:
        parser: with only the command's own subparser filled in; modified.
    """
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    command = commands.choices[next(word.lower() for word in arguments if word.lower() in COMMANDS)]
    shared = {"json": None, "quiet": False, "debug": False}
    for action in command._actions:
        action.required = False
        if not action.option_strings:
            action.default, action.nargs = None, "?" if action.nargs in (None, "?") else "*"
        elif action.dest not in shared:
            action.default = argparse.SUPPRESS
    return parser.parse_args(arguments)
