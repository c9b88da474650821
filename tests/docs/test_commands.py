"""Every command that the documentation shows is one that the program understands."""

import re
import shlex
from pathlib import Path

import pytest

from mri_transfer.cli import COMMANDS, build_parser, load
from mri_transfer.options import from_arguments

ROOT = Path(__file__).resolve().parents[2]
MADE = ("commands.md", "demo/", "api_reference.md")  # by hooks in docs/, when the pages are built
PAGES = [ROOT / "README.md", ROOT / "RESULTS.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                for piece in re.split(r"&&|;|\|", line.partition(" #")[0]):
                    words = shlex.split(piece)
                    if words and Path(words[0]).name == "mri-transfer":
                        yield page.name, words[1:]


@pytest.mark.parametrize(("page", "words"), list(commands()), ids=lambda value: " ".join(value)[:60])
def test_a_command_is_understood(page, words):
    assert words[0] in COMMANDS, page
    parsed = build_parser(words[0]).parse_args([word for word in words if word != "..."])
    from_arguments(load(COMMANDS[words[0]].config), parsed)


def test_every_command_is_shown_somewhere():
    assert set(COMMANDS) <= {words[0] for _, words in commands()}


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not link.startswith(("https://", "http://", *MADE)):
                assert (page.parent / link).exists(), f"{page.name}: {link}"
