# SPDX-License-Identifier: Apache-2.0
"""Opens BARL's panel on a project, in a window; where there is no display, writes pictures of it instead.

    python -m barldriver [PROJECT] [--output FOLDER] [--pictures]

This is a test host and a preview: 3D Slicer's scene and views with stand-ins for its widgets, and not 3D Slicer.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from slicerhost import display

SECTIONS = ("project", "cases", "review", "train", "predict", "setup")
SIMULATED = 4  # cases of the small project, half of them outlined


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="barldriver", description=__doc__.splitlines()[0])
    parser.add_argument("project", nargs="?", help="default: demo-output/project if there is one, else a simulated one")
    parser.add_argument("--output", default="app-output", help="folder of the pictures (app-output)")
    parser.add_argument("--pictures", action="store_true", help="write pictures also where there is a display")
    options = parser.parse_args(arguments)
    project = Path(options.project or "demo-output/project")
    if options.project and not (project / "project.db").is_file():
        print(f"{project} is no BARL project: name the folder with its project.db", file=sys.stderr)
        return 2
    pictures = options.pictures or not display.works()
    if pictures:
        display.goOffscreen()
    with tempfile.TemporaryDirectory(prefix="barldriver-project-") as folder:
        if not (project / "project.db").is_file():
            print(f"No project at {project} (make demo makes one): simulating {SIMULATED} cases")
            project = simulatedProject(Path(folder) / "simulated lesions")
        return run(project.resolve(), Path(options.output) if pictures else None)


def simulatedProject(folder: Path) -> Path:
    """A project of a few simulated scans with lesions, half of them outlined."""
    from barl.demo.simulate import LESION, simulate_cases
    from barl.images.reading import read_image
    from barl.project.labels import Channel, Label
    from barl.project.store import Project

    labels = [Label(LESION, "lesion", (230, 159, 0))]
    with (
        tempfile.TemporaryDirectory() as scans,
        Project.create(folder, "Simulated lesions", labels, [Channel("T1")]) as project,
    ):
        for number, (image, label) in enumerate(simulate_cases(Path(scans), SIMULATED, seed=1)):
            outline = read_image(label) if number < SIMULATED // 2 else None
            project.cases.add(f"simulated {number + 1}", [read_image(image)], label=outline)
    return folder


def run(project: Path, pictures: Path | None) -> int:
    import slicerhost

    display.hushQt()
    slicerhost.install()
    from slicerhost.host import Host

    from . import MODULE

    host = Host()
    try:
        host.window.show()
        widget = host.loadModule(MODULE)
        with widget.session.reporting():
            widget.session.openProject(project)
        if widget.session.project is None:
            print(widget.ui.statusLabel.text, file=sys.stderr)
            return 1
        if pictures is None:
            return int(host.app.exec() or 0)
        takePictures(host, widget, pictures)
        return 0
    finally:
        host.close()


def takePictures(host, widget, folder: Path) -> None:
    """One picture of the window per section, with a case open."""
    import qt
    import slicer

    folder.mkdir(parents=True, exist_ok=True)
    # What tells most: a case in which the model was unsure; else an outlined one.
    cases = widget.session.cases()
    cases.sort(key=lambda case: (case.uncertainty is None, -(case.uncertainty or 0), case.state != "accepted"))
    if cases:
        with widget.session.reporting():
            widget.session.openCase(cases[0].id)
        segmentation = widget.session.loaded and widget.session.loaded.segmentation
        if segmentation is not None:
            segmentation.CreateClosedSurfaceRepresentation()
            slicer.util.resetThreeDViews()
    for number, section in enumerate(SECTIONS, start=1):
        widget.steps.show(section.capitalize())
        bar = host.window.findChild(qt.QScrollArea, "ScrollArea").verticalScrollBar()
        for place in ("", "-below"):
            host.processEvents(0.5)
            if place and not bar.maximum:
                break
            bar.value = bar.maximum if place else 0
            host.processEvents(0.5)
            path = folder / f"{number}-{section}{place}.png"
            host.window.grab().save(str(path))
            print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(main())
