# SPDX-License-Identifier: Apache-2.0
"""The last step of `make demo`: one review round in the module's window, with pictures in the demo's report.

    python -m barldriver.review [--output demo-output]

It works on a copy of the demo's project: the stroke is drawn by this script to show the window, not by a reader.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path

from slicerhost import display

REMEDY = (
    "Pictures of the module's window are left out: 'make test' installs what they need (1 GB more), then try again."
)
READER = "demonstration"
BEGIN, END = "<!-- review round -->", "<!-- end of the review round -->"
CAPTIONS = {
    "next": "The case that the module proposed, as predicted; beside the button what it would propose next.",
    "review": "The first hot-spot: all views show the place where the model is least sure. Blue to yellow: unsure.",
    "correct": "A stroke with the brush, possible only where the model was unsure.",
    "accepted": "Accepted: stored as a new revision; the journal tells who changed how much.",
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="barldriver.review", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="the demo's folder")
    options, _of_the_demo = parser.parse_known_args(arguments)
    if any(importlib.util.find_spec(library) is None for library in ("slicer", "PySide6")):
        print(REMEDY)
        return 0
    display.goOffscreen()
    with tempfile.TemporaryDirectory(prefix="barldriver-review-") as folder:
        copy = Path(folder) / "project"
        shutil.copytree(options.output / "project", copy, ignore=shutil.ignore_patterns("runs"))
        pictures, story = goRound(copy)
    embed(options.output / "report.html", pictures, story)
    print(f"One review round in the module's window: {len(pictures)} pictures in {options.output / 'report.html'}")
    return 0


def goRound(project: Path) -> tuple[dict[str, bytes], str]:
    """Review the proposed case of a project.

    Returns:
        PNG of the window by the name of its moment, and what happened in a sentence.
    """
    import slicerhost

    display.hushQt()
    slicerhost.install()
    from slicerhost.clicks import click, waitUntil
    from slicerhost.host import Host

    from .loop import Loop

    pictures: dict[str, bytes] = {}
    host = Host()
    try:
        host.window.show()
        loop = Loop(host, moment=lambda name: name in CAPTIONS and pictures.__setitem__(name, display.picture(host)))
        loop.session.openProject(project)
        waitUntil(lambda: loop.panels["Cases"].isIdle)
        reason = loop.openNext()
        case = loop.session.case()
        if loop.panels["Review"].hotspots.hotspots.spots:  # else the model was sure everywhere
            spot = loop.nextHotspot()
            checkBox = loop.section("Review").onlyWhereUnsureCheckBox
            if not checkBox.checked:
                click(checkBox)
            loop.settle()
            x, y, z = spot.position
            name = spot.label or loop.session.project.labels[0].name
            loop.paint(name, (x, y, z), (x + 2, y, z), diameter=4.0)
        loop.accept(READER)
        correction = loop.session.project.revisions.newest(case.id, ("accepted",)).details["correction"]
        changed = sum(label["added_ml"] + label["removed_ml"] for label in correction["labels"])
        loop.session.closeProject()
        return pictures, f"{reason} The script corrected it with one brush stroke: {changed:.3f} ml changed."
    finally:
        host.close()


def embed(report: Path, pictures: dict[str, bytes], story: str) -> None:
    """Put the pictures into a report, in the place of those of an earlier round."""
    from html import escape

    figures = "".join(
        f"<figure><img alt='{escape(CAPTIONS[name], quote=True)}' "
        f"src='data:image/png;base64,{base64.b64encode(pictures[name]).decode()}'>"
        f"<figcaption>{escape(CAPTIONS[name])}</figcaption></figure>"
        for name in CAPTIONS
        if name in pictures
    )
    section = (
        f"{BEGIN}<h2>In the module's window</h2><p>{escape(story)}</p>"
        "<p class='small'>Drawn by the unmodified module in a test host on Slicer's own scene and view classes; not "
        f"3D Slicer itself. On a copy: the project of this report is as it was.</p>{figures}{END}"
    )
    text = report.read_text(encoding="utf-8")
    before, found, rest = text.partition(BEGIN)
    text = before + rest.partition(END)[2] if found else text
    head, body, tail = text.rpartition("</body>")
    report.write_text(head + section + body + tail, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
