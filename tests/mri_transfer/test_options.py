import argparse
import dataclasses
from pathlib import Path

import pytest

from mri_transfer.errors import UserError
from mri_transfer.options import (
    add_options,
    argument,
    as_dict,
    configure,
    fractions,
    from_arguments,
    option,
    positive_int,
)


@dataclasses.dataclass(frozen=True)
class Config:
    paths: tuple[Path, ...] = argument(help="inputs", metavar="PATH", many=True)
    out: Path = option(help="output")
    size: int = option(160, help="side", parse=positive_int)
    hours: float | None = option(None, help="time")
    arm: tuple[str, ...] = option((), help="arm", repeat=True)
    shares: tuple[float, ...] = option((1.0,), help="100% of it", parse=fractions)
    how: str = option("a", help="choice", choices=("a", "b"))
    strict: bool = option(False, help="flag")
    hidden: str = "kept"


def parse(*words):
    parser = argparse.ArgumentParser()
    add_options(parser, Config)
    return from_arguments(Config, parser.parse_args(words))


def test_defaults_and_types():
    config = parse("a", "b", "--out", "o")
    assert config == Config(paths=(Path("a"), Path("b")), out=Path("o"))
    assert config.hidden == "kept"
    config = parse(
        "a", "--out", "o", "--hours", "1.5", "--arm", "x", "--arm", "y=z", "--shares", "1,0.05", "--strict"
    )
    assert config.hours == 1.5
    assert config.arm == ("x", "y=z")
    assert config.shares == (0.05, 1.0)
    assert config.strict


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a",), "--out"),
        (("a", "--out", "o", "--size", "0"), "must be at least 1"),
        (("a", "--out", "o", "--size", "big"), "--size"),
        (("a", "--out", "o", "--shares", "0.5,2"), "at most 1"),
        (("a", "--out", "o", "--how", "c"), "--how"),
    ],
)
def test_mistakes_name_the_option(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(*words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_help_shows_defaults_and_survives_percent_signs(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = capsys.readouterr().out
    assert "default: 160" in text
    assert "100% of it" in text


def test_a_configuration_becomes_plain_values():
    assert as_dict(parse("a", "--out", "o"))["paths"] == ["a"]
    assert as_dict(parse("a", "--out", "o"))["shares"] == [1.0]


def test_headings_name_options_that_there_are():
    from mri_transfer import cli

    for name, command in cli.COMMANDS.items():
        config = cli.load(command.config)
        fields = {field.name for field in dataclasses.fields(config) if not field.metadata.get("positional")}
        named = " ".join(getattr(config, "HEADINGS", {}).values()).split()
        assert len(set(named)) == len(named), name
        assert set(named) <= fields, name


def test_help_has_headings(capsys):
    from mri_transfer.cli import build_parser

    with pytest.raises(SystemExit):
        build_parser("pretrain").parse_args(["pretrain", "--help"])
    text = capsys.readouterr().out
    assert text.startswith("usage: mri-transfer pretrain STORE --out RUN [options]\n")
    assert text.index("\nhow long:") < text.index("--hours H") < text.index("\noptimizer:")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        *(("how", ["a"], "must be one of a, b"), ("how", {}, "must be one of a, b")),
        *(("arm", [3], "must be text"), ("arm", 3, "")),
        *(("size", {}, "must be a whole number"), ("out", 3, ""), ("hours", [1], "takes one value")),
        *(("strict", "no", "must be true or false"), ("strict", [], "must be true or false")),
    ],
)
def test_values_of_another_kind_in_a_file_of_settings(name, value, words):
    with pytest.raises(UserError, match=f"^{name}=.*{words}"):
        configure(Config, ("a",), {"out": "o", name: value})


def test_paths_are_text():
    assert configure(Config, ("a",), {"out": "o", "arm": [Path("x")]}).arm == (Path("x"),)
