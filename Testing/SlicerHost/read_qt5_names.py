# SPDX-License-Identifier: Apache-2.0
"""Writes slicerhost/qt6only.json: what Qt 6's classes have and Qt 5.15's, with which Slicer is released, have not.

    pip download --no-deps types-PySide2 && unzip types_pyside2-*.whl
    python Testing/SlicerHost/read_qt5_names.py PySide2-stubs

The stubs of PySide2 5.15 are compared with the PySide6 that is installed, class by class, for the classes both have.
"""

from __future__ import annotations

import ast
import enum
import importlib
import json
import re
import sys
from pathlib import Path

TARGET = Path(__file__).parent / "slicerhost" / "qt6only.json"
KITS = ("QtCore", "QtGui", "QtWidgets", "QtNetwork")
PYTHON_ONLY = {"staticMetaObject", "connect", "disconnect", "emit", "exec", "exec_"}
# C++ calls these virtual functions of Python subclasses: PySide6 must be able to look them up.
VIRTUAL = set(re.findall(r"\w+", """
    clearItemData clone closeEvent createSourceIndex encodeMetricF handleEditorEvent initViewItemOption isEmpty
    itemDelegateForIndex multiData paintEvent resolveInterface setTimestamp skipData supportedDragActions
"""))  # fmt: skip
IN_QT5_ALL_THE_SAME = {"permission", "permissions", "splitCommand", "takeRow", "push_back", "push_front"}


def oldNames(stubs: Path) -> dict[str, tuple[list[str], set[str]]]:
    """Class name -> (names of its bases, names of its members) in Qt 5.15."""
    found = {}
    for kit in (*KITS, "QtOpenGL"):
        for node in ast.parse((stubs / f"{kit}.pyi").read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.ClassDef):
                continue
            bases = [ast.unparse(b).rsplit(".", 1)[-1] for b in node.bases]
            names = set()
            for member in ast.walk(node):
                if isinstance(member, (ast.FunctionDef, ast.ClassDef)):
                    names.add(member.name)
                elif isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
                    names.add(member.target.id)
                elif isinstance(member, ast.Assign):
                    names |= {t.id for t in member.targets if isinstance(t, ast.Name)}
            found[node.name] = (bases, names)
    return found


def main(stubs: Path) -> None:
    old = oldNames(stubs)

    def known(name: str) -> set[str]:
        bases, names = old.get(name, ([], set()))
        return names.union(*(known(b) for b in bases if b != name))

    result = {}
    for kit in KITS:
        module = importlib.import_module(f"PySide6.{kit}")
        for name in dir(module):
            cls = getattr(module, name)
            if name not in old or not isinstance(cls, type) or issubclass(cls, enum.Enum):
                continue
            new = {
                n
                for c in [
                    cls,
                    *(b for b in cls.__mro__ if b.__module__.startswith("PySide6") and b.__name__ not in old),
                ]
                for n, member in vars(c).items()
                if not n.startswith("_") and not isinstance(member, type)
            } - (PYTHON_ONLY | VIRTUAL | IN_QT5_ALL_THE_SAME)
            if missing := sorted(new - known(name)):
                result[name] = missing
    lines = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(result.items())]
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
