# SPDX-License-Identifier: Apache-2.0
"""The demo's last step: a review round in the module's window, with its pictures in the report."""

from __future__ import annotations

import base64
import importlib.util
import os
import re
import subprocess
import sys

import pytest
from barl.project.store import Project
from barldriver import review

REPORT = "<!doctype html><html><body><h1>Report</h1></body></html>\n"


@pytest.mark.host
def test_review_round_puts_its_pictures_into_the_report_and_leaves_the_project(a_predicted_project, repository):
    for library in ("slicer", "PySide6"):
        pytest.importorskip(library, reason=f"{library} is not installed (the host extra)")
    output = a_predicted_project.parent
    report = output / "report.html"
    report.write_text(REPORT, encoding="utf-8")
    testing = repository / "Testing"
    paths = [str(testing / "SlicerHost"), str(testing / "Driver"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "barldriver.review", "--data", "auto", "--output", str(output)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "4 pictures" in done.stdout
    page = report.read_text(encoding="utf-8")
    found = [base64.b64decode(data) for data in re.findall(r"src='data:image/png;base64,([^']+)'", page)]
    assert len(found) == 4 and all(png.startswith(b"\x89PNG") and len(png) > 20_000 for png in found)
    assert "not 3D Slicer itself" in page and re.search(r"0\.\d+ ml changed", page)
    assert page.endswith("</body></html>\n") and page.count("</body>") == 1
    with Project.open(a_predicted_project, read_only=True) as project:
        assert [case.state for case in project.cases.all()] == ["predicted", "new"]
        assert not [entry for entry in project.journal.entries() if entry.facts.get("author") == review.READER]


def test_a_second_round_takes_the_place_of_the_first(tmp_path):
    report = tmp_path / "report.html"
    report.write_text(REPORT, encoding="utf-8")
    for story in ("first <round>", "second"):
        review.embed(report, {"next": b"png"}, story)
    page = report.read_text(encoding="utf-8")
    assert "second" in page and "first" not in page and page.count("<figure>") == 1


def test_without_the_libraries_one_line_tells_how_to_get_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert review.main(["--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out == review.REMEDY + "\n" and "make test" in review.REMEDY
