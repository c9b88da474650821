# PYTHON_ARGCOMPLETE_OK
"""The command line: parse, run one stage, turn errors into one line."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import importlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from mri_transfer import __version__, progress, settings
from mri_transfer.errors import UserError
from mri_transfer.options import add_options, did_you_mean, from_arguments


@dataclasses.dataclass(frozen=True)
class Command:
    """One subcommand: its configuration, and the function that takes it and returns a summary."""

    help: str
    config: str  # "module:Class"
    run: str  # "module:function"


COMMANDS = {
    "demo": Command(
        "run the whole job in minutes on generated heads, without a download",
        "mri_transfer.demo:DemoConfig",
        "mri_transfer.demo:demo",
    ),
    "doctor": Command(
        "describe this machine, what it can train, and what to fix before spending a night on it",
        "mri_transfer.doctor:DoctorConfig",
        "mri_transfer.doctor:doctor",
    ),
    "fetch": Command(
        "download public volumes or the tumour set: resumable, verified, with their terms",
        "mri_transfer.datasets.fetch.config:FetchConfig",
        "mri_transfer.datasets.fetch.fetch:fetch",
    ),
    "slices": Command(
        "cut MRI volumes (files, folders, BIDS trees) into a store of 2-D slices",
        "mri_transfer.datasets.extraction.extract:SlicesConfig",
        "mri_transfer.datasets.extraction.extract:extract",
    ),
    "audit": Command(
        "find copies, near-copies, neighbouring slices and leaks between splits in a folder of labelled images",
        "mri_transfer.datasets.audit.audit:AuditConfig",
        "mri_transfer.datasets.audit.audit:audit",
    ),
    "pretrain": Command(
        "train an encoder on a slice store without labels, for a fixed time or number of steps",
        "mri_transfer.pretrain.config:PretrainConfig",
        "mri_transfer.pretrain.pretrain:pretrain",
    ),
    "finetune": Command(
        "turn an encoder into a classifier of the classes in a folder",
        "mri_transfer.finetune.config:FinetuneConfig",
        "mri_transfer.finetune.finetune:finetune",
    ),
    "compare": Command(
        "compare starting weights on the same leak-free folds, with intervals and a report",
        "mri_transfer.finetune.config:CompareConfig",
        "mri_transfer.finetune.compare:compare",
    ),
    "predict": Command(
        "classify images and volumes, with class activation maps",
        "mri_transfer.finetune.config:PredictConfig",
        "mri_transfer.finetune.prediction.predict:predict",
    ),
    "encoders": Command(
        "list the encoders that come with this program, for `--init NAME`, with their cards",
        "mri_transfer.encoders:EncodersConfig",
        "mri_transfer.encoders:encoders",
    ),
    "verify": Command(
        "check that stores, runs, encoders, classifiers and comparisons are as they were written",
        "mri_transfer.verify:VerifyConfig",
        "mri_transfer.verify:verify",
    ),
    "export": Command(
        "write a trained network, or a training for an old board, for machines that can't run this program",
        "mri_transfer.export:ExportConfig",
        "mri_transfer.export:export",
    ),
    "import-graph": Command(
        "turn what a board trained from an exported graph into an ordinary run",
        "mri_transfer.pretrain.graph.importing:ImportConfig",
        "mri_transfer.pretrain.graph.importing:import_graph",
    ),
}


def load(reference: str) -> Any:
    """The object named by "module:name"."""
    module, name = reference.split(":")
    return getattr(importlib.import_module(module), name)


PATIENCE = 5.0  # seconds of clean-up before another Ctrl-C ends the program at once

# Names of these options in other programs.
ELSEWHERE = {
    "--batch-size": "--batch",
    "--batch_size": "--batch",
    "--epochs": "--hours",
    "--image-size": "--size",
    "--img-size": "--size",
    "--k": "--folds",
    "--lr": "--learning-rate",
    "--model": "--backbone",
    "--n-folds": "--folds",
    "--num-workers": "--workers",
    "--output": "--out",
    "--output-dir": "--out",
    "--pretrained": "--init",
    "--splits": "--folds",
    "--time": "--hours",
    "--weights": "--init",
    "-j": "--workers",
    "-o": "--out",
}


class Parser(argparse.ArgumentParser):
    """A parser with one-line errors that suggest the closest valid word."""

    def parse_known_args(self, args=None, namespace=None):
        """Like argparse, but a command's own parser reports unknown options, and does so before missing ones."""
        required = [action for action in self._actions if action.required]
        try:
            for action in required:
                action.required = False
            _, unknown = super().parse_known_args(
                args, argparse.Namespace(**vars(namespace) if namespace else {})
            )
        finally:
            for action in required:
                action.required = True
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print the error and where to look; exit with 2."""
        unknown = re.match(r"unrecognized arguments: (.*)", message, re.DOTALL)
        if unknown:
            word = unknown[1].split()[0]
            message = f"{' '.join(unknown[1].split())}: not understood"
            if word.startswith("-"):
                options = [name for action in self._actions for name in action.option_strings]
                aliases = {name: ours for name, ours in ELSEWHERE.items() if ours in options}
                message = f"{word}: no such option{did_you_mean(word.split('=')[0], options, aliases)}"
        elif message.startswith("the following arguments are required: "):
            message = f"{message.removeprefix('the following arguments are required: ')} must be given"
        else:
            message = message.removeprefix("argument ")
        line = progress.visible(" ".join(message.split())).rstrip(".")
        self.exit(2, f"{self.prog}: {line}; see {self.prog} --help\n")


def build_parser(
    command: str | None = None, defaults: dict[str, Any] | None = None
) -> argparse.ArgumentParser:
    """The parser. Only the named command's options are added, so `--help` needs no TensorFlow.

    Args:
        command: the command about to run.
        defaults: for its options, overriding the declared ones.
    """
    parser = Parser(
        prog="mri-transfer",
        description="Pretrain an encoder on unlabeled MRI, turn it into a classifier, and find out honestly "
        "whether that beats ImageNet.",
        epilog="Interrupt any command at any moment; run it again and it continues.",
    )
    parser.add_argument("--version", action="version", version=f"mri-transfer {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, entry in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=entry.help,
            description=entry.help[0].upper() + entry.help[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == command:
            config = load(entry.config)
            sub.epilog = getattr(config, "EXAMPLE", None)
            add_options(sub, config)
            sub.set_defaults(**(defaults or {}))
        shared = sub.add_argument_group("shared options")
        shared.add_argument(
            "--json", type=Path, metavar="FILE", help="also write the summary here (- for standard output)"
        )
        if name in settings.COMMANDS:
            shared.add_argument("--config", type=Path, metavar="FILE", help=settings.HELP)
        shared.add_argument("--quiet", action="store_true", help="print nothing but errors")
        shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f"{error.filename}: " if error.filename else ""
        return (
            f"{place}no space left on the device; free some space and run the same command again to continue"
        )
    if isinstance(error, PermissionError):
        return f"{error.filename}: permission denied; choose a folder you may write to"
    return " ".join(str(error).split())


def _write_summary(target: Path | None, summary: dict[str, Any]) -> None:
    from mri_transfer.storage.files import to_json, write_json
    from mri_transfer.storage.locks import clear_parts

    if target == Path("-"):
        print(
            json.dumps(json.loads(to_json(summary)), indent=2)
        )  # ASCII: no file name can send control codes to a terminal
    elif target:
        clear_parts(target.parent, target.name)
        write_json(target, summary)


def _write_failure(
    parsed: argparse.Namespace, error: str, started: float, cause: BaseException | None = None
) -> None:
    """`--json` output of a failed command: the printed line, and the error's details."""
    details = cause.details if isinstance(cause, UserError) else {}
    seconds = round(time.monotonic() - started, 2)
    summary = {"command": parsed.command, "error": error, **details, "seconds": seconds}
    with contextlib.suppress(OSError, UserError):  # perhaps writing is what failed
        _write_summary(parsed.json, summary)


def _complete() -> None:
    """Answer a shell's completion request if argcomplete is installed (extra `[completion]`), and exit."""
    import argcomplete

    typed = os.environ.get("COMP_LINE", "").split()
    argcomplete.autocomplete(build_parser(next((word for word in typed[1:] if word in COMMANDS), None)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when it finished, 2 for a user's mistake or a bad file, 130 when interrupted from the keyboard.
    """
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        _end_quietly()
        if "--debug" in (arguments or sys.argv):
            raise
        print("\ninterrupted; run the same command again to continue", file=sys.stderr)
        return 130


def _end_quietly() -> None:
    """Ignore a second Ctrl-C during clean-up, which would print tracebacks, unless clean-up takes many seconds."""
    began = time.monotonic()

    def asked_again(*_: object) -> None:
        if time.monotonic() - began > PATIENCE:
            os._exit(130)

    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, asked_again)


def _run(arguments: list[str]) -> int:
    if "_ARGCOMPLETE" in os.environ:  # a shell asks for completions
        _complete()
    if not arguments:
        build_parser().print_help()
        return 0
    place = next((place for place, word in enumerate(arguments) if not word.startswith("-")), None)
    command = None if place is None else arguments[place].lower()
    if place is not None and command not in COMMANDS:
        hint = did_you_mean(arguments[place], COMMANDS)
        word = progress.visible(arguments[place])
        print(f"mri-transfer: {word}: no such command{hint}; see mri-transfer --help", file=sys.stderr)
        return 2
    if place is not None:
        arguments[place] = str(command)
    parser = build_parser(command)
    earlier = settings.asked_for(arguments) if command in settings.COMMANDS else None
    parsed = settings.given_in(parser, arguments) if earlier else parser.parse_args(arguments)
    entry = COMMANDS[parsed.command]
    preset = getattr(load(entry.config), "preset", None)
    if not earlier and preset and (extra := preset(vars(parsed))):  # given options override these
        parsed = build_parser(command, extra).parse_args(arguments)
    progress.set_quiet(parsed.quiet, stdout_taken=parsed.json == Path("-"))
    started = time.monotonic()
    try:
        if parsed.json not in (None, Path("-")):
            from mri_transfer.storage.files import require_place

            require_place(parsed.json, "--json")
        kind = load(entry.config)
        config = settings.merged(kind, parsed) if earlier else from_arguments(kind, parsed)
        summary = load(entry.run)(config)
        summary = {"command": parsed.command, **summary, "seconds": round(time.monotonic() - started, 2)}
        _write_summary(parsed.json, summary)
    except KeyboardInterrupt:
        _write_failure(parsed, "interrupted", started)
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UserError, OSError) as error:
        _write_failure(parsed, _one_line(error), started, error)
        if parsed.debug:
            raise
        print(f"mri-transfer {parsed.command}: {progress.visible(_one_line(error))}", file=sys.stderr)
        return 2
    return 0
