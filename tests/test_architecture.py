"""What keeps the code in order: who may import whom, when, and how long things may be."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY, PIPELINES = ROOT / "ccrl_wsi", ROOT / "pipelines"
FILES = sorted([*LIBRARY.rglob("*.py"), *PIPELINES.rglob("*.py")])
FOLDERS = sorted({file.parent for file in FILES})
LIBRARY_FILES = [f for f in FILES if f.is_relative_to(LIBRARY)]

STAGES = {"slides", "tiles", "nuclei", "crops", "embeddings", "clusters", "outputs"}
STAGES |= {"cohort", "datasets", "training", "evaluation", "baselines"}
STAGE_FILES = [f for f in LIBRARY_FILES if f.relative_to(LIBRARY).parts[0] in STAGES]
VOCABULARY_FILES = [f for f in LIBRARY_FILES if f not in STAGE_FILES]

ORCHESTRATION = {"pipelines", "dask", "distributed", "dask_jobqueue", "typer", "rich"}
SLOW = {"torch", "torchvision", "tiatoolbox", "dask", "distributed"}
LOADED_LATE = {"sklearn.cluster", "sklearn.metrics", "scipy.stats", "bokeh", "matplotlib", "torch"}
"""By the functions that need them: each takes half a second of processor time or more."""
TIATOOLBOX_ADAPTERS = {
    "ccrl_wsi/nuclei/compact_modelabc.py",
    "ccrl_wsi/nuclei/hovernet.py",
    "ccrl_wsi/nuclei/modelabc.py",
    "ccrl_wsi/outputs/tiaviz.py",
}
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc"}
IS_ITSELF_TIATOOLBOXS = "ccrl_wsi.nuclei.compact_modelabc"
"""A subclass of one of its classes, for its engines; the package does without it."""
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 450
HELP_SECONDS = 1.0


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@cache
def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imported(file: Path, *, at_load: bool = False) -> set[str]:
    """Dotted names a file imports; ``at_load``: only those paid for by importing the file."""
    nodes = loaded_nodes(parse(file)) if at_load else ast.walk(parse(file))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package_of(file))
            names |= {f"{origin}.{alias.name}" for alias in node.names}
    return names


def package_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).parent.parts)


def loaded_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported: no function bodies, nothing for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from loaded_nodes(child)


def stage_of(file: Path) -> str:
    return file.relative_to(LIBRARY).parts[0]


def stages_known_to(file: Path) -> set[str]:
    library = {n.split(".")[1] for n in imported(file) if n.startswith("ccrl_wsi.")}
    return library & STAGES


def offenders(files: list[Path], breach: Callable[[Path], set[str]]) -> dict[str, set[str]]:
    """Files that break a rule, with what they should not have."""
    return {name_of(file): found for file in files if (found := breach(file))}


def roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(parse(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def n_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    total = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function) is None:
        return total
    docstring = function.body[0]
    return total - ((docstring.end_lineno or 0) - docstring.lineno + 1)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )


def test_the_library_knows_nothing_of_orchestration():
    assert not offenders(LIBRARY_FILES, lambda f: roots(imported(f)) & ORCHESTRATION)


def test_a_stage_does_not_know_its_siblings():
    assert not offenders(STAGE_FILES, lambda f: stages_known_to(f) - {stage_of(f)})


def test_the_vocabulary_does_not_know_the_stages():
    # The package's front may hand out public names; what that costs is tested below.
    files = [f for f in VOCABULARY_FILES if f != LIBRARY / "__init__.py"]
    assert not offenders(files, stages_known_to)


def test_tiatoolbox_is_imported_only_by_its_adapters_and_only_when_used():
    others = [f for f in FILES if name_of(f) not in TIATOOLBOX_ADAPTERS]
    assert not offenders(others, lambda f: roots(imported(f)) & {"tiatoolbox"})
    loaded = [f for f in FILES if name_of(f) != IS_ITSELF_TIATOOLBOXS.replace(".", "/") + ".py"]
    assert not offenders(loaded, lambda f: roots(imported(f, at_load=True)) & {"tiatoolbox"})
    known = {n for f in FILES for n in imported(f) if n.startswith(IS_ITSELF_TIATOOLBOXS)}
    assert known == set()


def test_only_the_store_knows_zarr():
    others = [f for f in FILES if not name_of(f).startswith("ccrl_wsi/store")]
    assert not offenders(others, lambda f: roots(imported(f)) & {"zarr"})


def test_only_one_file_knows_fsspec():
    others = [f for f in FILES if name_of(f) != "ccrl_wsi/object_storage.py"]
    assert not offenders(others, lambda f: roots(imported(f)) & {"fsspec", "s3fs", "botocore"})


def test_the_vocabulary_loads_without_the_networks():
    assert not offenders(VOCABULARY_FILES, lambda f: roots(imported(f, at_load=True)) & SLOW)


def test_functions_stay_short():
    def too_long(file: Path) -> set[str]:
        return {f.name for f in functions(file) if n_lines(f) > MAX_FUNCTION_LINES}

    assert not offenders(FILES, too_long)


def test_files_stay_short():
    lines = {name_of(f): len(f.read_text(encoding="utf-8").splitlines()) for f in FILES}
    assert {name: n for name, n in lines.items() if n > MAX_FILE_LINES} == {}


def test_every_name_says_what_is_inside():
    assert {name_of(f) for f in [*FILES, *FOLDERS] if f.stem in NAMES_THAT_SAY_NOTHING} == set()


def test_every_package_says_what_it_is_for():
    assert not [name_of(f) for f in FOLDERS if not ast.get_docstring(parse(f / "__init__.py"))]


def test_no_error_is_raised_without_a_name_of_its_own():
    def nameless(file: Path) -> set[str]:
        raised = [n.exc for n in ast.walk(parse(file)) if isinstance(n, ast.Raise) and n.exc]
        return {ast.unparse(e) for e in raised if ast.unparse(e).startswith("Exception")}

    assert not offenders(FILES, nameless)


@pytest.mark.parametrize("module", ["ccrl_wsi", "pipelines.cli"])
def test_importing_costs_none_of_the_slow_packages(module):
    code = f"import sys, {module}; print(*sorted({SLOW} & sys.modules.keys()))"
    assert run_python(code).stdout.split() == []


@pytest.mark.parametrize(
    "module", ["pipelines.run", "pipelines.export", "pipelines.verify", "pipelines.info"]
)
def test_commands_load_only_what_all_their_work_needs(module):
    code = f"import sys, {module}; print(*sorted({LOADED_LATE} & sys.modules.keys()))"
    assert run_python(code).stdout.split() == []


@pytest.mark.parametrize("module", ["pipelines.train", "pipelines.train_segmenter"])
def test_training_needs_neither_tiatoolbox_nor_openslide(module):
    code = f"import sys, {module}; print(*({{'tiatoolbox', 'openslide'}} & sys.modules.keys()))"
    assert run_python(code).stdout.split() == []


def test_help_answers_in_under_a_second():
    command = Path(sys.executable).with_name("ccrl-wsi")
    # Processor time of the fastest of some calls: other work on the machine does not count.
    assert min(help_seconds(command) for _ in range(3)) < HELP_SECONDS


def help_seconds(command: Path) -> float:
    before, clock = os.times(), time.perf_counter()
    subprocess.run([command, "--help"], capture_output=True, check=True, timeout=120)
    after = os.times()
    if os.name != "posix":
        return time.perf_counter() - clock
    return (after.children_user + after.children_system) - (
        before.children_user + before.children_system
    )


def test_the_rules_would_notice_a_breach():
    source = (
        "import torch\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import dask\n"
        "class A:\n    import zarr\n"
        "def f():\n    import tiatoolbox\n"
    )
    loaded = {
        alias.name
        for node in loaded_nodes(ast.parse(source))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert loaded == {"torch", "zarr"}
