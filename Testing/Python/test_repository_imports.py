# SPDX-License-Identifier: Apache-2.0
"""The rules of docs/architecture.md that a machine can check: import directions, sizes, names, nothing unsafe."""

from __future__ import annotations

import ast
import re
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import barl
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = REPOSITORY / "BARLSegmentation"
ENGINE = MODULE / "barl"

RANKS = {
    **dict.fromkeys(("blas", "errors", "json_text", "openmp", "torch_support"), 0),
    **dict.fromkeys(("progress", "images"), 1),
    **dict.fromkeys(("project", "fill", "networks", "losses"), 2),
    **dict.fromkeys(("hippocampus", "methods", "models"), 3),
    "evaluation": 4,
    "inference": 5,
    "training": 6,
    "jobs": 7,
    "report": 8,
    **dict.fromkeys(("api", "benchmark", "demo", "worker"), 9),
    "remote": 10,
    "cli": 11,
}
# Slicer's own process imports these rooms, and of the worker what needs the standard library only.
SLICER_SIDE_ROOMS = (
    "errors",
    "json_text",
    "openmp",
    "torch_support",
    "progress",
    "images",
    "project",
    "fill",
    "hippocampus",
)
SLICER_SIDE_FILES = ("barl.worker.client", "barl.worker.messages", "barl.worker.process_tree")
SLICER_SIDE_LIBRARIES = {"numpy", "scipy", "SimpleITK", "pydicom", "barl"} | sys.stdlib_module_names
APPLICATION = {"slicer", "qt", "ctk", "vtk", "PythonQt", "PySide6"}
HEAVY = {"torch", "monai"}


def python_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def module_name(path: Path) -> str:
    parts = path.relative_to(MODULE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


ENGINE_FILES = {module_name(path): path for path in python_files(ENGINE)}
SLICER_FILES = [MODULE / "BARLSegmentation.py", *python_files(MODULE / "BARLSegmentationLib")]


def imports(path: Path, *, at_file_scope_only: bool = False) -> set[str]:
    """Full names of everything a file imports, except what is for type checkers or may be missing."""
    names: set[str] = set()
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                visit(other)
            return
        if at_file_scope_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return
        if isinstance(node, ast.Try) and any("ImportError" in ast.unparse(h.type) for h in node.handlers if h.type):
            return  # a library that may be missing
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            names.update(f"{origin}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return names


def engine_module(name: str) -> str | None:
    """The file of the engine that ``import name`` or ``from ... import ...`` reads; None for other libraries."""
    while name:
        if name in ENGINE_FILES:
            return name
        name = name.rpartition(".")[0]
    return None


def room(name: str) -> str:
    return [*name.split("."), ""][1]


def top(name: str) -> str:
    return name.partition(".")[0]


def test_every_room_has_a_rank():
    rooms = {room(name) for name in ENGINE_FILES} - {""}
    assert rooms <= set(RANKS), f"give these a rank here and in docs/architecture.md: {sorted(rooms - set(RANKS))}"


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_documents_give_the_ranks(document):
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    found = {
        room: int(rank)
        for rank, names in re.findall(r"^\| (\d+) \| (.*?) \|", text, re.MULTILINE)
        for room in re.findall(r"`(\w+)`", names)
    }
    assert {room: rank for room, rank in found.items() if room in RANKS} == RANKS
    if document == "CONTRIBUTING.md":
        starred = set(re.findall(r"`(\w+)`\*", text))
        assert starred == {name.removeprefix("barl.worker.") for name in (*SLICER_SIDE_ROOMS, *SLICER_SIDE_FILES)}


def test_rooms_import_only_rooms_of_lower_rank():
    wrong = []
    for name, path in ENGINE_FILES.items():
        if not room(name):
            continue
        for target in filter(None, map(engine_module, imports(path))):
            other = room(target)
            if other and other != room(name) and RANKS[other] >= RANKS[room(name)]:
                wrong.append(f"{name} imports {target}")
    assert not wrong, wrong


def test_imports_are_absolute_and_constants_have_their_comment_above():
    for path in [*ENGINE_FILES.values(), *SLICER_FILES]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level], path
        assert not re.search(r"^\s*#:", path.read_text(encoding="utf-8"), re.MULTILINE), path


def test_no_import_cycle_between_files():
    graph = {
        name: {target for target in map(engine_module, imports(path)) if target and target != name}
        for name, path in ENGINE_FILES.items()
    }
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_engine_knows_no_application():
    wrong = [
        (name, found) for name, path in ENGINE_FILES.items() if (found := APPLICATION & set(map(top, imports(path))))
    ]
    assert not wrong, wrong


def test_slicer_side_rooms_use_only_what_slicer_has():
    wrong = []
    for name, path in ENGINE_FILES.items():
        if room(name) in SLICER_SIDE_ROOMS:
            extra = set(map(top, imports(path))) - SLICER_SIDE_LIBRARIES
            wrong += [(name, sorted(extra))] if extra else []
    assert not wrong, wrong


def test_the_process_border_needs_only_the_standard_library():
    reached, waiting = set(), list(SLICER_SIDE_FILES)
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        found = imports(ENGINE_FILES[name])
        outside = set(map(top, found)) - sys.stdlib_module_names - {"barl"}
        assert not outside, f"{name}, which Slicer's process needs, imports {sorted(outside)}"
        waiting += filter(None, map(engine_module, found))
    assert {room(name) for name in reached} <= {"", "errors", "json_text", "openmp", "worker"}, sorted(reached)


def test_slicer_part_reads_the_engine_late_and_never_torch():
    for path in SLICER_FILES:
        everything = imports(path)
        assert not HEAVY & set(map(top, everything)), path
        assert "barl" not in set(map(top, imports(path, at_file_scope_only=True))), f"{path}: import barl in a function"
        for name in everything:
            target = engine_module(name)
            if target == "barl":  # its other names load the functions for researchers, and with them PyTorch
                assert name in ("barl", "barl.__version__"), f"{path} imports {name}"
            elif target:
                allowed = room(target) in SLICER_SIDE_ROOMS or target in SLICER_SIDE_FILES
                assert allowed, f"{path} imports {target}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "barl":
                assert node.attr not in barl.__all__, f"{path}:{node.lineno} uses barl.{node.attr}"


def test_logic_knows_no_qt():
    for path in python_files(MODULE / "BARLSegmentationLib" / "logic"):
        assert not {"qt", "ctk", "PySide6"} & set(map(top, imports(path))), path


OWN_FILES = sorted(
    path
    for folder in (MODULE, REPOSITORY / "Testing", REPOSITORY / "Resources", REPOSITORY / "docs")
    for path in python_files(folder)
)


def test_files_are_short_and_licensed():
    for path in OWN_FILES:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) < 500, f"{path}: {len(lines)} lines"
        assert lines and lines[0] == "# SPDX-License-Identifier: Apache-2.0", f"{path}: first line"


def test_names_say_what_is_inside():
    for path in OWN_FILES:
        words = set(path.relative_to(REPOSITORY).with_suffix("").as_posix().lower().replace("/", "_").split("_"))
        assert not words & {"utils", "util", "helpers", "helper", "manager", "misc"}, path


def test_nothing_is_unpickled():
    for path in OWN_FILES:
        if path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8")
        for word in ("import pickle", "from pickle", "allow_pickle=True", "weights_only=False"):
            assert word not in text, f"{path}: {word}"


def test_texts_name_no_private_place():
    """Neither the machine it was written on nor the address of a package index."""
    words = [
        "/work/" + "main",
        "/work/" + "tmp",
        "/work/" + "shared",
        "/home/" + "user",
        "/ro" + "ot/",
        "py" + "pi.org",
    ]
    suffixes = {".py", ".md", ".toml", ".txt", ".json", ".yml", ".ui", ".cmake", ".s4ext", ""}
    skipped = {".git", ".venv", "demo-output", "benchmark-output", "build", "__pycache__"}
    for path in REPOSITORY.rglob("*"):
        relative = path.relative_to(REPOSITORY)
        hidden = any(part in skipped or (part.startswith(".") and part != ".ci") for part in relative.parts)
        if hidden or not path.is_file() or path.suffix not in suffixes:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found = [word for word in words if word in text]
        assert not found, f"{relative}: {found}"
