# SPDX-License-Identifier: Apache-2.0
"""How quickly the section of the cases answers with 10,000 of them. Prints one line of JSON: processor time, ms.

The aim: 200 ms to list them, to filter them and to sort them.

python Testing/Benchmarks/case_list.py --cases 10000
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
if sys.platform == "linux":
    os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "BARLSegmentation"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "SlicerHost"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Driver"))

from barldriver import MODULE
from barldriver.large_project import largeProject

NAME = 0  # column of the table


def milliseconds(action, repeats: int = 3) -> float:
    """The quickest of some turns."""
    times = []
    for _ in range(repeats):
        gc.collect()
        started = time.process_time()
        action()
        times.append(time.process_time() - started)
    return round(1000 * min(times))


def measure(cases: int) -> dict[str, float]:
    import slicerhost

    slicerhost.install()
    from slicerhost.host import Host

    host = Host(testing=True)
    host.window.show()
    module = host.loadModule(MODULE)
    panel = module.panels["Cases"]

    def type_filter():
        panel.ui.filterLineEdit.text = "case 77"
        panel.ui.filterLineEdit.text = ""

    with tempfile.TemporaryDirectory() as folder:
        module.session.openProject(largeProject(Path(folder) / "project", cases))
        host.processEvents(0.2)
        found = {
            "list_ms": milliseconds(panel.update),
            "filter_ms": milliseconds(type_filter) / 2,
            "sort_ms": milliseconds(lambda: panel.onHeader(NAME)),
        }
        module.session.closeProject()
    host.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    options, _others = parser.parse_known_args()
    print(json.dumps({"cases": options.cases, **measure(options.cases)}))


if __name__ == "__main__":
    main()
