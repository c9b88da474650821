"""Draws docs/architecture.svg from the imports of the checkout: `python docs/draw_architecture.py`.

A room is a folder with an `__init__.py`. An arrow says that some module of one room imports from another, wherever in
the file the import stands; what is imported for type checkers alone doesn't count. Arrows that follow from others (A
to C, where A to B and B to C exist) are left out.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("datasets", "checkpoints", "pretrain", "finetune")
SHARED_ROOMS = ("evaluation", "machine", "pages", "processes", "storage")
SHARED_MODULES = ("errors", "options", "progress", "words")
SHARED, PROGRAMS = "shared", "programs"
TALL = 2.6  # of a room, in the drawing


def modules() -> dict[str, Path]:
    """Every module by its installed name; scripts that run on boards import nothing of it and are left out."""
    paths = {}
    for folder in ("mri_transfer", *STAGES):
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT)
            if inside.parts[:2] in {("mri_transfer", stage) for stage in STAGES} or "board" in inside.parts:
                continue
            words = [*inside.with_suffix("").parts]
            words = words[:-1] if words[-1] == "__init__" else words
            paths[".".join(words if folder == "mri_transfer" else ["mri_transfer", *words])] = path
    return paths


def imports(path: Path, paths: dict[str, Path]) -> set[str]:
    """The modules of ours that a file imports when it runs, at its top or inside a function."""
    names = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names} & paths.keys()
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in paths else node.module)
    return {name for name in names if name in paths and name != "mri_transfer"}


def room(name: str) -> str:
    """Where a module stands: a room with all rooms inside it, or a module that lies in no room.

    Of `mri_transfer/` itself, what every stage uses is `shared`, and what uses the stages is `programs`.
    """
    stage, *rest = name.split(".")[1:] or [PROGRAMS]
    if stage == "checkpoints" or stage in SHARED_ROOMS:
        return stage
    if stage in STAGES:
        return ".".join([stage, *rest[:1]])
    return SHARED if stage in SHARED_MODULES else PROGRAMS


def arrows() -> dict[str, set[str]]:
    """For every room, the other rooms that it imports from."""
    paths = modules()
    graph: dict[str, set[str]] = defaultdict(set)
    for name, path in paths.items():
        source = room(name)
        graph[source] |= {room(other) for other in imports(path, paths)} - {source}
    return dict(graph)


def reduced(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same graph without arrows that follow from others."""

    def beyond(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for other in graph.get(waiting.pop(), set()) - seen:
                seen.add(other)
                waiting.append(other)
        return seen

    reach = {name: beyond(name) for name in graph}
    return {
        name: {target for target in others if not any(target in reach[other] for other in others - {target})}
        for name, others in graph.items()
    }


def levels(graph: dict[str, set[str]]) -> list[list[str]]:
    """Rooms from those that need no other to those that need most, rooms of one level side by side."""
    height: dict[str, int] = {}

    def measure(name: str, above: tuple[str, ...] = ()) -> int:
        if name not in height:
            height[name] = 1 + max(
                (measure(other, (*above, name)) for other in graph[name] - {*above, name}), default=-1
            )
        return height[name]

    for name in graph:
        measure(name)
    return [
        sorted(name for name in graph if height[name] == level) for level in range(1 + max(height.values()))
    ]


def draw(path: Path) -> None:
    """Draw all stages, each with its rooms, the ones that others rest on at the bottom."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "architecture", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    graph = arrows()
    figure, axes = pyplot.subplots(figsize=(11, 8.2))
    axes.set(xlim=(0, 110), ylim=(0, 84))
    axes.axis("off")

    def box(x: float, y: float, width: float, height: float, text: str, face: str, size: float = 9) -> None:
        style = "round,pad=0,rounding_size=0.8"
        axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, fc=face, ec="#7a8699", lw=0.8))
        axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", size=size)

    def stage(name: str, x: float, y: float, width: float, height: float) -> None:
        box(x, y, width, height, "", "#f4f6fa")
        axes.text(x + 1.5, y + height - 2.4, name, weight="bold", size=11)
        inside = {
            room: {other for other in others if other.startswith(name + ".")}
            for room, others in graph.items()
            if room.startswith(name + ".")
        }
        if not inside:
            return
        rows = levels(inside)
        step = (height - 5) / len(rows)
        place = {}
        for level, rooms in enumerate(rows):
            # Each room near the ones it rests on, so that few arrows cross.
            rooms.sort(
                key=lambda node: [place[other][0] for other in sorted(inside[node]) if other in place] or [x]
            )
            wide = min(17.0, (width - 2) / len(rooms) - 1)
            for number, node in enumerate(rooms):
                left = x + width * (number + 0.5) / len(rooms) - wide / 2
                low = y + 1.5 + step * level
                box(left, low, wide, TALL, node.removeprefix(name + "."), "white", 8)
                place[node] = left + wide / 2, low
        for node, others in reduced(inside).items():
            for other in others:
                start, end = place[node], (place[other][0], place[other][1] + TALL)
                axes.add_patch(
                    FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=7, color="#5b6b84", lw=0.8)
                )

    box(1, 78.5, 108, 4.5, "programs: command line, Python API, demo, doctor, export", "#e8edf6")
    stage("pretrain", 1, 41, 52, 35)
    stage("finetune", 57, 41, 52, 35)
    stage("datasets", 1, 9, 80, 29)
    stage("checkpoints", 85, 9, 24, 29)
    axes.text(97, 22, "what passes from\npretrain to finetune", ha="center", size=8.5)
    box(1, 1, 108, 5, "shared: " + ", ".join((*SHARED_MODULES, *SHARED_ROOMS)), "#e8edf6")
    for start, end in (
        ((27, 41), (27, 38)),
        ((47, 41), (88, 38)),
        ((67, 41), (67, 38)),
        ((97, 41), (97, 38)),
    ):
        axes.add_patch(
            FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color="#33415c", lw=1.4)
        )
    figure.tight_layout(pad=0.3)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    draw(ROOT / "docs" / "architecture.svg")
