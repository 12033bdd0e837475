# SPDX-License-Identifier: Apache-2.0
"""One version in all places, and documents that name what exists."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
from barl import __version__
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = REPOSITORY / "BARLSegmentation"
DOCUMENTS = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")]


def text_of(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def test_version_and_date_are_the_same_everywhere():
    version, date = re.search(
        r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", text_of("CHANGELOG.md"), re.MULTILINE
    ).groups()
    assert version == __version__
    assert f"\nversion: {version}\n" in text_of("CITATION.cff")
    assert f"\ndate-released: {date}\n" in text_of("CITATION.cff")
    assert 'version = { attr = "barl.__version__" }' in text_of("pyproject.toml")


def test_constraints_pin_each_direct_dependency_once():
    pinned = [Requirement(line) for line in text_of("constraints.txt").splitlines() if line and line[0] != "#"]
    names = [canonicalize_name(pin.name) for pin in pinned]
    assert len(names) == len(set(names)) and all(str(pin.specifier).startswith("==") for pin in pinned)
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(one for name, extra in extras.items() if name != "host" for one in extra)]
    assert {canonicalize_name(Requirement(one).name) for one in wanted} <= set(names), "host pins its own versions"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document):
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target


@pytest.fixture(scope="module")
def tests_there() -> set[str]:
    """Names of all files and functions of tests."""
    places = ("Testing/Python", "Testing/SlicerHost/tests")
    files = [path for place in places for path in (REPOSITORY / place).glob("test_*.py")]
    names = [re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE) for path in files]
    return {name for path in files for name in (path.name, path.stem)}.union(*names)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_tests_that_a_document_names_exist(document, tests_there):
    """docs/fidelity.md says of each fault seen in Slicer which test fails if it comes back."""
    names = set(re.findall(r"`(?:Testing/[\w/]+/)?(test_\w+(?:\.py)?)`", document.read_text(encoding="utf-8")))
    if document.name == "adding-a-panel.md":
        names.remove("test_module_export.py")  # to be written
    assert names <= tests_there, sorted(names - tests_there)
    assert document.name not in ("CONTRIBUTING.md", "fidelity.md") or len(names) > 3


def test_the_walk_of_a_voxel_names_functions_that_exist():
    """From the syntax trees: the files of Slicer's part cannot be imported here."""
    text = text_of("docs/architecture.md")
    walk = text[text.index("## The walk of a voxel") : text.index("## Two processes")]
    names = re.findall(r"`((?:barl|BARLSegmentationLib)\.[\w.]+)`", walk)
    assert len(names) > 20
    for name in names:
        parts = name.split(".")
        length = next(n for n in range(len(parts), 0, -1) if (MODULE / Path(*parts[:n])).with_suffix(".py").is_file())
        body = ast.parse((MODULE / Path(*parts[:length])).with_suffix(".py").read_text(encoding="utf-8")).body
        assert parts[length:], f"{name} is a file, not a function"
        for part in parts[length:]:
            found = [node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part]
            assert found, f"{name}: there is no {part}"
            body = found[0].body
