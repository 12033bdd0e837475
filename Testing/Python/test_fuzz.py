# SPDX-License-Identifier: Apache-2.0
"""Damaged files by the thousand: nothing unforeseen, no crash, no endless loop, nothing taken for what it is not."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="alarms and forks are POSIX")


def fuzz(repository, tries: int, seed: int) -> dict:
    command = [
        sys.executable,
        str(repository / "Testing" / "Fuzz" / "loop.py"),
        "--tries",
        str(tries),
        "--seed",
        str(seed),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def assert_sound(results: dict) -> None:
    for kind, result in results.items():
        assert result["unforeseen"] == [], kind
        assert result["wrong"] == [], kind


def test_a_few_damaged_files_of_every_kind(repository):
    results = fuzz(repository, 150, 1)
    assert_sound(results)
    assert sum(result["taken"] for result in results.values()) > 10
    assert sum(result["refused"] for result in results.values()) > 40


@pytest.mark.slow
def test_two_thousand_damaged_files(repository):
    results = fuzz(repository, 2000, 0)
    assert_sound(results)
    assert sum(result["tries"] for result in results.values()) >= 1900
