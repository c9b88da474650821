"""What `mkdocs build` adds to the pages here: commands, pages from elsewhere in the repository, those of a demo.

The reference is made from the parser, so it can't differ from `--help`. The sample pages are those of `mri-transfer
demo` in the checkout (or in the folder that MRI_TRANSFER_DEMO names); without them a line says how to get them.
"""

from __future__ import annotations

import argparse
import html
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from mri_transfer.cli import COMMANDS, build_parser

# Pages of the repository, by what they are called here.
ELSEWHERE = {
    "RESULTS.md": "findings.md",
    "benchmarks/README.md": "benchmarks.md",
    "CHANGELOG.md": "changes.md",
    "notebooks/kaggle.ipynb": "kaggle.ipynb",
}
REFERENCE = "commands.md"
SAMPLES = (
    "index.html",
    "store/summary.html",
    "audit/audit.html",
    "imagenet-mri/run.html",
    "report/report.html",
)
NOT_HERE = "<p>This page is made by <code>mri-transfer demo</code>, which was not run before the pages were built.</p>"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by mkdocs once it knows the files of the folder."""
    root = Path(config.config_file_path).parent
    files.append(File.generated(config, REFERENCE, content=reference()))
    for path, name in ELSEWHERE.items():
        files.append(File.generated(config, name, content=(root / path).read_text(encoding="utf-8")))
    demo = Path(os.environ.get("MRI_TRANSFER_DEMO", root / "demo"))
    for name in SAMPLES:
        page = demo / name
        content = page.read_text(encoding="utf-8") if page.is_file() else NOT_HERE
        files.append(File.generated(config, f"demo/{name}", content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called for each page: links between the repository's folders become links between pages."""
    for path, name in ELSEWHERE.items():
        markdown = re.sub(rf"\]\((\.\./)?{re.escape(path)}", f"]({name}", markdown)
    return markdown.replace("](docs/", "](").replace("](../docs/", "](")


def reference() -> str:
    """All commands with all options, as Markdown."""
    parts = ["# All commands and options\n", "The same as `mri-transfer COMMAND --help`.\n"]
    shared: list[str] = []
    for name in COMMANDS:
        parser = _parser(name)
        usage = parser.format_usage().removeprefix("usage: ").strip()
        parts += [f"## {name}\n", f"{parser.description}\n", f"```text\n{usage}\n```\n"]
        for group in parser._action_groups:
            rows = [row for action in group._group_actions if (row := _row(parser, action))]
            if group.title == "shared options":
                shared = max(shared, rows, key=len)
            elif rows:
                parts += [f"| {group.title} | |\n|---|---|", *rows, ""]
        if parser.epilog:
            parts += [f"```text\n{parser.epilog.strip()}\n```\n"]
    return "\n".join([*parts, "## Of every command\n", "| | |\n|---|---|", *shared, ""])


def _parser(name: str) -> argparse.ArgumentParser:
    commands = next(
        action for action in build_parser(name)._actions if isinstance(action, argparse._SubParsersAction)
    )
    return commands.choices[name]


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> str | None:
    if isinstance(action, argparse._HelpAction):
        return None
    formatter = parser._get_formatter()
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups)
    invocation = formatter._format_action_invocation(action)
    help = formatter._expand_help(action) if action.help else ""
    return f"| {_code(invocation)} | {_escaped(help)} |"


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"


def _escaped(text: str) -> str:
    """Text that Markdown and HTML leave alone; what stands between backticks stays code."""
    parts = " ".join(text.split()).split("`")
    for place in range(0, len(parts), 2):
        parts[place] = re.sub(r"([\\*_\[\]])", r"\\\1", html.escape(parts[place], quote=False))
    return "`".join(parts).replace("|", "\\|")
