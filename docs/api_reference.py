"""Writes the page with the reference of the API from its signatures and docstrings, whenever the docs are built.

It is a hook of MkDocs; mkdocs.yml names it.
"""

import inspect
import re
import sys
from pathlib import Path

from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PAGE = "api_reference.md"
TITLE = (
    "# API reference\n\nAll of `from mri_transfer import api`, from its docstrings. "
    "[From Python](python_api.md) shows it at work.\n"
)


def on_files(files, config):
    """Add the page."""
    files.append(File.generated(config, PAGE, content=text()))
    return files


def text() -> str:
    """The page, in Markdown."""
    from mri_transfer import api

    names = sorted(api.__all__, key=lambda name: (inspect.isclass(getattr(api, name)), name))
    return "\n".join([TITLE, *(_entry(name, getattr(api, name)) for name in names)])


def _entry(name, thing) -> str:
    if not inspect.isclass(thing):
        return f"## {name}\n\n```python\n{name}{_signature(thing)}\n```\n\n{_prose(inspect.getdoc(thing))}"
    parts = [f"## {name}\n\n{_prose(inspect.getdoc(thing))}"]
    for member, value in vars(thing).items():
        if member.startswith("_") or not inspect.getdoc(value):
            continue
        if inspect.isfunction(value):
            parts.append(
                f"### {name}.{member}{_signature(value, method=True)}\n\n{_prose(inspect.getdoc(value))}"
            )
        elif isinstance(value, property):
            parts.append(f"### {name}.{member}\n\n{_prose(inspect.getdoc(value))}")
    return "\n".join(parts)


def _signature(function, method: bool = False) -> str:
    """A parameter a line, or all in one where that fits."""
    signature = inspect.signature(function)
    parameters = [
        re.sub(r": '([^']*)'", r": \1", str(parameter)) for parameter in signature.parameters.values()
    ][method:]
    kinds = [parameter.kind for parameter in signature.parameters.values()][method:]
    keyword = [kind is inspect.Parameter.KEYWORD_ONLY for kind in kinds]
    if any(keyword) and inspect.Parameter.VAR_POSITIONAL not in kinds:
        parameters.insert(keyword.index(True), "*")
    if method:
        return f"({', '.join(re.split('[:=]', text)[0].strip() for text in parameters)})"
    inside = ", ".join(parameters)
    return f"({inside})" if len(inside) < 80 else "(\n    " + ",\n    ".join(parameters) + ",\n)"


def _prose(docstring) -> str:
    """NumPy's sections as Markdown: a heading in bold, and a list of what is named in it."""
    out, section = [], ""
    lines = (docstring or "").splitlines()
    for number, line in enumerate(lines):
        following = lines[number + 1] if number + 1 < len(lines) else ""
        if following and set(following) == {"-"}:
            section = line
            out += [f"**{line}**", ""]
        elif line and set(line) == {"-"}:
            continue
        elif section == "Examples":
            out.append(f"    {line}")
        elif section and line and not line.startswith(" "):
            name, _, kind = line.partition(" : ")
            out.append(f"- `{name}`{f' (`{kind}`)' if kind else ''}")
        elif section and line.startswith(":class:"):
            out.append(line)
        else:
            out.append(line.strip() if not section else f"  {line.strip()}" if line else "")
    return re.sub(r":(?:class|func|attr):`[~.]*([^`]*)`", r"`\1`", "\n".join(out)) + "\n"
