# SPDX-License-Identifier: Apache-2.0
"""Writes slicerhost/overloads.json: overloads of Qt's functions that PySide6 offers and PythonQt does not.

    python Testing/SlicerHost/read_pythonqt_overloads.py generated_cpp_515

The argument is the folder of wrappers for Qt 5.15 in a checkout of PythonQt. The file names, for class and member, the
parameters as `calls.signaturesOf` writes them, and the smallest and largest number of arguments that PythonQt takes, or
null if it has no such overload. Parameters are compared by kind: text, bytes, number, list, callable, class of Qt.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import typing
from pathlib import Path

from read_pythonqt_names import ELSEWHERE

TARGET = Path(__file__).parent / "slicerhost" / "overloads.json"
_TEXTS = {"QString", "QStringRef", "QStringView", "QLatin1String", "QChar", "QByteArray", "bytes"}
_TEXTS |= {"char*", "uchar*", "void*"}
_LISTS = ("QStringList", "QList", "QVector", "QSet", "QPair", "QHash", "QMap", "QModelIndexList", "QVariantMap")


def _split(text: str) -> list[str]:
    """Parts of a list of parameters; commas in brackets do not count."""
    parts, depth, part = [], 0, ""
    for letter in text:
        depth += (letter in "(<{") - (letter in ")>}")
        if letter == "," and not depth:
            parts.append(part)
            part = ""
        else:
            part += letter
    return [p.strip() for p in [*parts, part] if p.strip()]


def _kind(type_: str) -> str:
    """Kind of a parameter of a wrapper or a slot, by the text of its type."""
    text = re.sub(r"\bconst\b|&|PythonQt\w+<", "", type_).replace(" *", "*").strip()
    bare = text.rstrip("*> ")
    if bare in _TEXTS or text in _TEXTS:
        return "text"
    if bare == "QVariant":
        return "any"
    if bare.startswith("PyObject"):
        return "callable"
    if bare.partition("<")[0] in _LISTS:
        return "list"
    return bare if bare.startswith("Q") and "::" not in bare else "number"


def wrappers(folder: Path) -> dict[tuple[str, str], set[tuple[str, ...]]]:
    """(class, member) -> kinds of the arguments of each overload; those with a default also left out."""
    found: dict[tuple[str, str], set[tuple[str, ...]]] = {}
    for header in folder.glob("*/*.h"):
        text = header.read_text(encoding="utf-8", errors="replace")
        for wrapper in re.finditer(r"^class PythonQtWrapper_(\w+) : public.*?^\};", text, re.DOTALL | re.MULTILINE):
            cls = wrapper[1]
            for line in wrapper[0].splitlines():
                method = re.match(r"\s*[^=({]*?\b(\w+)\s*\((.*?)\)\s*(?:const)?\s*(?:\{.*|;)?\s*$", line)
                if not method:
                    continue
                parameters = _split(method[2])
                if not method[1].startswith("static_") and re.fullmatch(rf"{cls}\*\s+\w+", (parameters or [""])[0]):
                    del parameters[0]  # the object itself
                name = method[1].removeprefix(f"static_{cls}_")
                name = "__init__" if name == f"new_{cls}" else name
                kinds = tuple(_kind(re.sub(r"\s*\w*$", "", p.partition("=")[0].strip())) for p in parameters)
                least = sum("=" not in p for p in parameters)
                found.setdefault((cls, name), set()).update(kinds[:n] for n in range(least, len(kinds) + 1))
    return found


def _slots(cls: type) -> dict[str, set[tuple[str, ...]]]:
    """What Qt's meta object of a class offers to PythonQt without a wrapper."""
    meta, found = getattr(cls, "staticMetaObject", None), {}
    for n in range(meta.methodCount() if meta else 0):
        method = meta.method(n)
        kinds = tuple(_kind(t.data().decode()) for t in method.parameterTypes())
        found.setdefault(method.name().data().decode(), set()).add(kinds)
    return found


def _kindOf(annotation: object, enumOf: typing.Callable) -> str:
    """Kind of a parameter of PySide6, by its annotation."""
    if "Callable" in str(annotation):
        return "callable"
    if annotation in (str, bytes):
        return "text"
    if annotation in (int, float, bool) or enumOf(annotation):
        return "number"
    if annotation in (typing.Any, object, inspect.Parameter.empty):
        return "any"
    parts = [part for part in typing.get_args(annotation) if part is not type(None)]
    if typing.get_origin(annotation) is None or not parts:
        name = getattr(annotation, "__name__", str(annotation))
        return "text" if name in _TEXTS else name
    return _kindOf(parts[0], enumOf) if "Union" in str(typing.get_origin(annotation)) else "list"


def main(folder: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    import slicerhost

    slicerhost.install()
    import qt
    from shibokensupport.signature import get_signature
    from slicerhost import calls, enums

    def fits(ours: str, theirs: str) -> bool:
        first, second = getattr(qt, ours, None), getattr(qt, theirs, None)
        related = isinstance(first, type) and isinstance(second, type)
        related = related and (issubclass(first, second) or issubclass(second, first))
        return ours == theirs or "any" in (ours, theirs) or "list" in (ours, theirs) or related

    wrapped, result = wrappers(folder), {}
    for name, member in sorted({(name, member.removeprefix("py_q_")) for name, member in wrapped}):
        cls = getattr(qt, name, None)
        value = vars(cls).get(member) if cls is not None else None
        function = cls if member == "__init__" else getattr(value, "function", None)
        if function is None or not hasattr(cls, "__init__") or member in ELSEWHERE:
            continue
        bases = [base.__name__ for base in cls.__mro__[: 1 if member == "__init__" else None]]
        overloads = set.union(_slots(cls).get(member, set()), *(wrapped.get((base, member), set()) for base in bases))
        # Virtual functions are looked up by this name if no class has them by their own.
        overloads = overloads or set.union(set(), *(wrapped.get((base, f"py_q_{member}"), set()) for base in bases))
        given = get_signature(function) or []
        calls._overloads.clear()  # the file that is written here
        for one, (kinds, least, text, _limits) in zip(
            given if isinstance(given, list) else [given], calls.signaturesOf(function), strict=False
        ):
            annotations = [p.annotation for p in one.parameters.values() if p.name != "self"][: len(kinds)]
            ours = [_kindOf(a, enums.pysideOf) for a in annotations]
            counts = [
                n
                for n in range(least, len(kinds) + 1)
                if any(len(o) == n and all(map(fits, ours[:n], o)) for o in overloads)
            ]
            if counts != list(range(least, len(kinds) + 1)):
                result.setdefault(name, {}).setdefault(member, {})[text] = [counts[0], counts[-1]] if counts else None
    lines = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(result.items())]
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
