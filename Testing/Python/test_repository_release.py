# SPDX-License-Identifier: Apache-2.0
"""One version in all places, and documents that name what exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from barl import __version__

REPOSITORY = Path(__file__).resolve().parents[2]
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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document):
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_contributing_names_tests_that_exist():
    names = re.findall(r"`(test_\w+\.py)`", text_of("CONTRIBUTING.md"))
    assert len(names) > 5
    for name in names:
        assert (REPOSITORY / "Testing" / "Python" / name).is_file(), name
