# SPDX-License-Identifier: Apache-2.0
"""The file lists of BARLSegmentation/CMakeLists.txt: read them, compare them with the folder, write them anew.

Slicer's package holds exactly the files that are listed; a script that is missing from the list works from the source
tree and fails on the user's machine. Run with ``--write`` (or ``make cmake-lists``) after adding or removing a file.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

MODULE = Path(__file__).resolve().parents[1] / "BARLSegmentation"
CMAKE = MODULE / "CMakeLists.txt"
SCRIPTS = "MODULE_PYTHON_SCRIPTS"
RESOURCES = "MODULE_PYTHON_RESOURCES"
# What only researchers use, from a checkout or from pip; it needs libraries that Slicer does not install.
NOT_INSTALLED = (
    "barl/benchmark/",
    "barl/cli/benchmark_commands.py",
    "barl/cli/simulate_command.py",
    "barl/cli/report_commands.py",
    "barl/demo/",
    "barl/methods/peers/",
    "barl/report/",
)


def listed(variable: str, module: Path = MODULE) -> list[str]:
    """Paths listed in ``set(variable ...)``, relative to the module's folder, ``${MODULE_NAME}`` filled in."""
    text = (module / "CMakeLists.txt").read_text(encoding="utf-8")
    return [line.replace("${MODULE_NAME}", MODULE.name) for line in _block(variable, text).group(1).split()]


def present(variable: str, module: Path = MODULE) -> list[str]:
    """Paths that belong into ``variable``, found in the module's folder, sorted; ``NOT_INSTALLED`` is left out."""
    files = [path.relative_to(module) for path in module.rglob("*") if path.is_file()]
    files = [path for path in files if not any("egg-info" in part or part == "__pycache__" for part in path.parts)]
    if variable == SCRIPTS:
        chosen = [path for path in files if path.suffix == ".py"]
    else:  # everything in Resources/, and the data files that lie beside the scripts (JSON schemas)
        chosen = [path for path in files if path.parts[0] == "Resources" or path.suffix == ".json"]
        chosen = [path for path in chosen if path.suffix != ".py"]
    return sorted(path.as_posix() for path in chosen if not path.as_posix().startswith(NOT_INSTALLED))


def write(module: Path = MODULE) -> None:
    """Replace both lists by what lies in the folder."""
    text = (module / "CMakeLists.txt").read_text(encoding="utf-8")
    for variable in (SCRIPTS, RESOURCES):
        start, end = _block(variable, text).span(1)
        lines = "".join(f"  {name}\n" for name in present(variable, module))
        text = text[:start] + "\n" + lines + "  " + text[end:]
    (module / "CMakeLists.txt").write_text(text, encoding="utf-8", newline="\n")


def _block(variable: str, text: str) -> re.Match[str]:
    found = re.search(rf"set\({variable}\b([^)]*)\)", text)
    if not found:
        raise SystemExit(f"BARLSegmentation/CMakeLists.txt has no set({variable} ...).")
    return found


def main() -> int:
    if "--write" in sys.argv[1:]:
        write()
        return 0
    wrong = [name for name in (SCRIPTS, RESOURCES) if sorted(listed(name)) != present(name)]
    for name in wrong:
        print(f"{name} differs from the folder: run `make cmake-lists`.")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main())
