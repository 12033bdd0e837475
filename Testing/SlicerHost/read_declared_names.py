# SPDX-License-Identifier: Apache-2.0
"""Writes slicerhost/declared.json: what the real CTK and qMRML classes offer to Python, read from their headers.

    python Testing/SlicerHost/read_declared_names.py CTK.git Slicer.git

Both arguments are git directories. PythonQt shows Python the properties, the signals, the public slots, the Q_INVOKABLE
methods and the registered enums of a class, and nothing else: a public C++ method that is none of these is *not* there.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

TARGET = Path(__file__).parent / "slicerhost" / "declared.json"
CLASSES = """
ctkCheckBox ctkCheckableComboBox ctkCheckablePushButton ctkCollapsibleButton ctkCollapsibleGroupBox
ctkColorPickerButton ctkComboBox ctkDirectoryButton ctkDoubleRangeSlider ctkDoubleSlider ctkDoubleSpinBox
ctkExpandButton ctkExpandableWidget ctkFittedTextBrowser ctkMenuButton ctkMessageBox ctkPathLineEdit ctkPushButton
ctkRangeWidget ctkSearchBox ctkSliderWidget qMRMLWidget qMRMLNodeComboBox qMRMLColorTableComboBox
qMRMLCheckableNodeComboBox qMRMLSliderWidget qMRMLSpinBox qMRMLSliceWidget qMRMLThreeDWidget qMRMLLayoutManager
qMRMLSliceControllerWidget qMRMLSliceView qMRMLThreeDView qMRMLThreeDViewControllerWidget qMRMLSegmentsTableView
qMRMLSegmentSelectorWidget qMRMLSegmentEditorWidget qMRMLSegmentationShow3DButton qMRMLVolumeThresholdWidget
qMRMLWindowLevelWidget qMRMLSubjectHierarchyTreeView qSlicerWidget qSlicerSimpleMarkupsWidget qMRMLTableView
qMRMLPlotView qMRMLPlotWidget qMRMLPlotViewControllerWidget qSlicerAppMainWindow qSlicerMainWindow
qSlicerModuleSelectorToolBar qSlicerModulesMenu qSlicerScriptedLoadableModuleWidget qSlicerAbstractModuleWidget
qSlicerAbstractModule qSlicerAbstractCoreModule qSlicerScriptedLoadableModule qSlicerLoadableModule
qSlicerLayoutManager qSlicerModuleManager qSlicerModuleFactoryManager qSlicerApplication qSlicerCoreApplication
qSlicerAbstractModuleFactoryManager qSlicerAbstractModuleRepresentation qSlicerCoreIOManager qSlicerIOManager
ctkLayoutManager ctkVTKRenderView ctkVTKAbstractView ctkVTKSliceView ctkVTKChartView ctkLayoutFactory
qMRMLAbstractViewWidget qMRMLViewControllerBar qSlicerCommandOptions qSlicerCoreCommandOptions
qSlicerSegmentEditorAbstractEffect qSlicerSegmentEditorAbstractLabelEffect qSlicerSegmentEditorPaintEffect
qSlicerSegmentEditorEraseEffect qSlicerSegmentEditorScriptedEffect
"""


def git(repository: str, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", repository, *arguments], check=True, capture_output=True, text=True, errors="replace"
    ).stdout


def body(text: str, name: str) -> tuple[str, str] | None:
    """Base class and body of `name` in a header, comments and preprocessor lines removed."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*|^\s*#[^\n]*$", "", text, flags=re.S | re.M)
    start = re.search(rf"\bclass\s+(?:\w+_EXPORT\s+)?{name}\b\s*(?:final\s*)?:\s*([^{{;]*)\{{", text)
    if not start:
        return None
    depth, end = 1, start.end()
    while depth and end < len(text):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    bases = [b.split()[-1] for b in start[1].split(",") if b.split()]
    return bases[0], text[start.end() : end - 1]


def signature(declaration: str) -> str | None:
    """`name(type,type=)` of a C++ member function; `=` marks an argument with a default."""
    match = re.search(r"([~\w]+)\s*\(((?:[^()]|\([^()]*\))*)\)[^()]*$", declaration.strip(), flags=re.S)
    if not match or match[1].startswith(("~", "Q_")):
        return None
    arguments = []
    for argument in filter(None, (a.strip() for a in re.split(r",(?![^<]*>)", match[2]))):
        kind, _, default = argument.partition("=")
        kind = re.sub(r"\bconst\b|&", " ", kind).replace("*", "* ").split()
        if len(kind) > 1 and kind[-1] not in ("int", "*", "long", "double"):
            kind = kind[:-1]  # the argument's name
        elif len(kind) == 1 and kind[0].endswith("*"):
            pass
        arguments.append("".join(kind) + ("=" if default else ""))
    return f"{match[1]}({','.join(a for a in arguments if a != 'void')})"


def offers(text: str) -> dict:
    """Properties, signals, slots (with invokables) and enums in a class body."""
    result: dict = {"properties": {}, "signals": [], "slots": [], "enums": {}}
    for kind, name, rest in re.findall(r"Q_PROPERTY\(\s*([\w:<>]+\s*\*?)\s+(\w+)\s+([^)]*)\)", text):
        result["properties"][name] = kind.replace(" ", "") + ("" if re.search(r"\bWRITE\b", rest) else " const")
    registered = set()
    for names in re.findall(r"Q_(?:ENUMS?|FLAGS?)\(([^)]*)\)", text):
        registered |= set(re.split(r"[\s,]+", names.strip()))
    flags = {b: a for a, b in re.findall(r"Q_DECLARE_FLAGS\(\s*(\w+)\s*,\s*(\w+)\s*\)", text)}
    for name, values in re.findall(r"\benum\s+(\w+)\s*\{([^}]*)\}", text):
        if name in registered or flags.get(name) in registered:
            result["enums"][name] = evaluate(values)
    section = "private"
    for part in re.split(r"\b((?:public|protected|private)?\s*(?:Q_SLOTS|slots|Q_SIGNALS|signals)?)\s*:(?!:)", text):
        word = " ".join(part.split())
        if re.fullmatch(r"(public|protected|private)( (Q_SLOTS|slots))?|Q_SIGNALS|signals", word):
            section = word
            continue
        part = re.sub(r"Q_(?!INVOKABLE)\w+\((?:[^()]|\([^()]*\))*\)\s*;?|\benum\s+\w*\s*\{[^}]*\}\s*;", "", part)
        for declaration in re.split(r";|\{[^{}]*\}", part):
            signal, slot = section in ("Q_SIGNALS", "signals"), section in ("public Q_SLOTS", "public slots")
            if not (signal or slot or "Q_INVOKABLE" in declaration) or (found := signature(declaration)) is None:
                continue
            result["signals" if signal else "slots"].append(found)
    return {key: value for key, value in result.items() if value}


def decorated(text: str) -> list[tuple[str, str]]:
    """(class, slot) for what a header of PythonQt decorators adds to classes from outside."""
    found, result = body(text, re.search(r"class (\w+Decorators)\b", text)[1]), []
    for slot in offers(found[1]).get("slots", ()) if found else ():
        name, _, rest = slot.rstrip(")").partition("(")
        if static := re.match(r"static_([a-zA-Z]+)_(\w+)", name):
            result.append((static[1], f"{static[2]}({rest})"))
        elif not name.startswith(("new_", "delete_")) and "*" in rest.partition(",")[0]:
            first, _, others = rest.partition(",")
            result.append((first.rstrip("*="), f"{name}({others})"))
    return result


def evaluate(values: str) -> dict[str, int]:
    """Members of a C++ enum and their numbers."""
    result, following = {}, 0
    for member in filter(None, (v.strip() for v in values.split(","))):
        name, _, expression = (p.strip() for p in member.partition("="))
        if expression:
            try:
                following = eval(expression.replace("::", "."), {"__builtins__": {}}, result)
            except Exception:
                following = None
        if following is not None:
            result[name] = following
            following += 1
    return result


def main(repositories: list[str]) -> None:
    where = {}
    for repository in repositories:
        for path in git(repository, "ls-tree", "-r", "--name-only", "HEAD").splitlines():
            if path.endswith(".h"):
                where.setdefault(Path(path).stem, (repository, path))
    result, missing, wanted = {}, [], sorted(set(CLASSES.split()))
    for name in wanted:
        found = name in where and body(git(where[name][0], "show", f"HEAD:{where[name][1]}"), name)
        if not found:
            missing.append(name)
            continue
        result[name] = {"base": found[0], "header": where[name][1], **offers(found[1])}
        if found[0].startswith(("ctk", "qMRML", "qSlicer")) and found[0] not in wanted:
            wanted.append(found[0])  # a base that is no Qt class must be known as well
    if missing := set(missing) - {"qSlicerObject"}:  # no QObject: it offers nothing
        sys.exit(f"not found: {', '.join(sorted(missing))}")
    result = dict(sorted(result.items()))
    for repository in repositories:
        for path in git(repository, "ls-tree", "-r", "--name-only", "HEAD").splitlines():
            if path.endswith("PythonQtDecorators.h"):
                for name, slot in decorated(git(repository, "show", f"HEAD:{path}")):
                    if name in result and slot not in result[name].setdefault("slots", []):
                        result[name]["slots"].append(slot)
    others = sorted(
        n for n, (r, p) in where.items()
        if r == repositories[0] and n.startswith("ctk") and "Q_OBJECT" in git(r, "show", f"HEAD:{p}")
        and re.match(r"Libs/(Core|Widgets|Visualization/VTK/Widgets)/ctk\w+\.h$", p) and n not in result
    )  # fmt: skip
    lines = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in result.items()]
    commits = {Path(r).parent.name.replace("+", "/"): git(r, "rev-parse", "HEAD").strip() for r in repositories}
    lines = [f'  "": {json.dumps({"read from": commits, "other ctk classes": others})}', *lines]
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
