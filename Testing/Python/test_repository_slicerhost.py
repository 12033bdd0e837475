# SPDX-License-Identifier: Apache-2.0
"""The stand-in for Slicer's window is a package of its own: without BARL, with the libraries that the tests use."""

from __future__ import annotations

import re
import tomllib


def test_it_has_no_word_of_barl(repository):
    folder = repository / "Testing" / "SlicerHost"
    for path in [folder / "README.md", folder / "pyproject.toml", *folder.rglob("*.py")]:
        assert not re.search(r"\bbarl|BARL", path.read_text(encoding="utf-8")), path


def test_its_pins_are_those_of_the_host_extra(repository):
    ours = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    its = tomllib.loads((repository / "Testing" / "SlicerHost" / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(ours["project"]["optional-dependencies"]["host"]) <= set(its["project"]["dependencies"])
