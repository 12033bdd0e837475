# SPDX-License-Identifier: Apache-2.0
"""Opens a scripted module of 3D Slicer in a window that stands in for Slicer's; this is not 3D Slicer.

python -m slicerhost MyModule/MyModule.py [--picture FILE.png]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import display


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="slicerhost", description=__doc__.splitlines()[0])
    parser.add_argument("module", type=Path, help="the module's Python file")
    parser.add_argument("--picture", type=Path, help="write a picture of the window to this file and end")
    options = parser.parse_args(arguments)
    if not options.module.is_file():
        print(f"{options.module} is no file: name the Python file of a scripted module", file=sys.stderr)
        return 2
    if options.picture is None and not display.works():
        print("Without a display, --picture FILE.png writes a picture of the window.", file=sys.stderr)
        return 2
    if options.picture is not None:
        display.goOffscreen()
    return show(options.module, options.picture)


def show(module: Path, picture: Path | None) -> int:
    """Run the window until it is closed, or write a picture of it."""
    import slicerhost

    display.hushQt()
    slicerhost.install()
    from .host import Host

    host = Host()
    try:
        host.window.show()
        host.loadModule(module)
        if picture is None:
            return int(host.app.exec() or 0)
        picture.write_bytes(display.picture(host))
        return 0
    finally:
        host.close()


if __name__ == "__main__":
    sys.exit(main())
