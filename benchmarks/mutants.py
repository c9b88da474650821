"""Would the tests notice? Makes small changes ("mutants") to a module and checks whether its fast tests fail.

    python benchmarks/mutants.py finetune/comparison/verdict.py [--tests FILE ...] [--mutants 30] [--preload keras ...]

The changes are cosmic-ray's: another operator or comparison, a number one larger or smaller, a loop that never runs, a
negated condition. At most one is drawn per place in the code; unevaluated annotations are skipped. A mutant replaces
the module in a forked process before the tests are imported, so no file is touched and nothing is left behind. It
prints survivors as diffs: each needs a test, or a reason why it is equivalent. By default the tests are those at the
same path, tests/finetune/comparison/test_verdict.py. Needs the extra `[tools]`.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import importlib.util
import multiprocessing
import os
import random
import resource
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ |= dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), "1"
)  # before NumPy

import hypothesis
import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

PRELOAD = [
    "scipy.stats",
    "sklearn.model_selection",
    "skimage.transform",
    "nibabel",
    "pydicom",
    "requests",
    "tqdm",
]
SECONDS, TIMEOUT = 40, 300  # CPU and wall-clock limits for the tests
FORK = multiprocessing.get_context("fork")
# Every mutant gets the same few examples, without shrinking failures.
FEW = hypothesis.settings(derandomize=True, database=None, max_examples=20, deadline=None)
hypothesis.settings.register_profile("mutants", FEW, phases=list(hypothesis.Phase)[:3])


def annotated(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Start and end of annotations, as (line, column)."""
    walk = ast.walk(ast.parse(source))
    hints = [hint for node in walk for key in ("annotation", "returns") if (hint := getattr(node, key, None))]
    return [((hint.lineno, hint.col_offset), (hint.end_lineno, hint.end_col_offset)) for hint in hints]


def mutants(source: str, how_many: int, seed: int) -> Iterator[tuple[str, str]]:
    """Names of mutations, and each mutated source."""
    spans, tree, places = annotated(source), get_ast(source), []
    for name in operator_names():
        if not get_operator(name).arguments():
            starts = [p[0] for node in ast_nodes(tree) for p in get_operator(name)().mutation_positions(node)]
            places += [(start, name, occurrence) for occurrence, start in enumerate(starts)]
    places = [place for place in places if not any(first <= place[0] <= last for first, last in spans)]
    random.Random(seed).shuffle(places)
    sample = list({start: (name, occurrence) for start, name, occurrence in places}.items())
    for (line, _), (name, occurrence) in sample[:how_many]:
        if mutated := mutate_code(source, get_operator(name)(), occurrence):
            yield f"line {line}, {name.removeprefix('core/')}", mutated


def run_tests(path: str, source: str, tests: list[str]) -> None:
    """In a separate process: exits with 0 if the tests pass with the module at `path` made from `source`."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))  # regardless of other load
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1), os.dup2(nowhere, 2)
    sys.path.insert(0, str(Path.cwd()))
    name = ".".join(["mri_transfer", *Path(path.removeprefix("mri_transfer/")).with_suffix("").parts])
    with contextlib.suppress(BaseException):  # a module that can't be imported also fails its tests
        module = importlib.util.module_from_spec(importlib.util.find_spec(name))  # type: ignore[arg-type]
        sys.modules[name] = module
        exec(compile(source, path, "exec"), module.__dict__)
        setattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], module)
        options = ["-xq", "-n0", "-pno:cacheprovider", "--hypothesis-profile=mutants"]
        os._exit(int(pytest.main([*options, *tests])))
    os._exit(1)


def survives(path: str, source: str, tests: list[str]) -> bool:
    """Whether the tests pass; those that hang fail."""
    process = FORK.Process(target=run_tests, args=(path, source, tests))
    process.start()
    process.join(TIMEOUT)
    process.kill()
    process.join()
    return process.exitcode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("module")
    parser.add_argument("--tests", nargs="+")
    parser.add_argument("--preload", nargs="*", default=PRELOAD, help="packages to import before forking")
    for option, usual in (("--mutants", 30), ("--seed", 0), ("--jobs", 1)):
        parser.add_argument(option, type=int, default=usual)
    a = parser.parse_args()
    tests = a.tests or [f"tests/{Path(a.module).parent}/test_{Path(a.module).name}"]
    source = Path(a.module).read_text(encoding="utf-8")
    for package in a.preload:
        importlib.import_module(package)
    if not survives(a.module, source, tests):
        sys.exit(f"{' '.join(tests)}: the tests fail without any change")
    trials, killed = list(mutants(source, a.mutants, a.seed)), 0
    with ThreadPoolExecutor(a.jobs) as pool:
        alive = pool.map(lambda mutant: survives(a.module, mutant[1], tests), trials)
        for (name, mutated), lives in zip(trials, alive, strict=True):
            killed += not lives
            if lives:
                lines = difflib.unified_diff(source.splitlines(), mutated.splitlines(), n=0, lineterm="")
                print(name, *list(lines)[3:], sep="\n    ", flush=True)
    print(f"{a.module}: {killed} of {len(trials)} killed")


if __name__ == "__main__":
    main()
