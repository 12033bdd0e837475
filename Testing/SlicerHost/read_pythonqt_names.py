# SPDX-License-Identifier: Apache-2.0
"""Writes slicerhost/unwrapped.json: what PySide6 offers of Qt and PythonQt, Slicer's way from Python to Qt, does not.

    python Testing/SlicerHost/read_pythonqt_names.py generated_cpp_515

The argument is the folder of wrappers for Qt 5.15 in a checkout of PythonQt. A method counts as offered if a wrapper
has it, or if it is a slot, signal, property or enum of Qt's own meta object.
"""

from __future__ import annotations

import enum
import json
import re
import sys
from pathlib import Path

TARGET = Path(__file__).parent / "slicerhost" / "unwrapped.json"
# Offered to each object by PythonQt itself (PythonQtStdDecorators.h), by the stand-in's patches, or by another name.
ELSEWHERE = set(re.findall(r"\w+", """
    connect disconnect metaObject parent setParent children findChild findChildren setProperty property tr singleShot
    className delete emit exec exec_ inherits name raise_ staticMetaObject
"""))  # fmt: skip
# C++ calls these virtual functions of Python subclasses: PySide6 must be able to look them up.
VIRTUAL = {"clone", "connectNotify", "disconnectNotify", "multiData", "resolveInterface"}
OWN = {"Signal", "SignalInstance", "Slot", "Property", "ClassInfo"}  # of PySide6; PythonQt has some of them, too


def wrappers(folder: Path) -> dict[str, set[str]]:
    """Class -> names of the methods and enums that its wrapper offers; bases are not looked into."""
    found: dict[str, set[str]] = {}
    for header in folder.glob("*/*.h"):
        text = header.read_text(encoding="utf-8", errors="replace")
        for wrapper in re.finditer(r"^class PythonQtWrapper_(\w+) : public.*?^\};", text, re.DOTALL | re.MULTILINE):
            cls, body = wrapper[1], wrapper[0]
            names = found.setdefault(cls, set())
            for line in body.splitlines():
                if method := re.match(r"\s+.*?(\w+)\([^{]*\)\s*(const)?\s*(\{.*|;)\s*$", line):
                    names.add(method[1].removeprefix("py_q_").removeprefix(f"static_{cls}_"))
            for name, members in re.findall(r"enum (\w+)\s*\{(.*?)\};", body, re.DOTALL):
                names |= {name, *(member.partition("=")[0].strip() for member in members.split(","))}
    return found


def _ofQt(cls: type) -> set[str]:
    """What Qt's meta object of a class offers to PythonQt."""
    meta = getattr(cls, "staticMetaObject", None)
    if meta is None:
        return set()
    names = {meta.method(n).name().data().decode() for n in range(meta.methodCount())}
    return names | {meta.property(n).name() for n in range(meta.propertyCount())}


def main(folder: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    import slicerhost

    slicerhost.install()
    import qt
    from slicerhost import calls

    wrapped, result = wrappers(folder), {}
    for name, cls in sorted(vars(qt).items()):
        if not isinstance(cls, type) or not cls.__module__.startswith("PySide6") or issubclass(cls, enum.Enum):
            continue
        if name not in wrapped:
            if name not in OWN and hasattr(cls, "__init__"):
                result[name] = None
            continue
        offered = set().union(_ofQt(cls), ELSEWHERE, VIRTUAL, *(wrapped.get(base.__name__, ()) for base in cls.__mro__))
        missing = [
            member
            for member, value in vars(cls).items()
            if isinstance(value, (calls.Method, calls.Static)) and member not in offered and member[0] != "_"
        ]
        if missing:
            result[name] = sorted(missing)
    lines = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(result.items())]
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
