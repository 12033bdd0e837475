# SPDX-License-Identifier: Apache-2.0
"""Writes slicerhost/python_names.json: what Slicer's own Python files offer, and the names of its modules.

    python Testing/SlicerHost/read_python_names.py Slicer.git SlicerPyTorch.git

Both arguments are git directories. The stand-ins of these files are held to it, and the ledger looks names up in it.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

TARGET = Path(__file__).parent / "slicerhost" / "python_names.json"
WRAPPER = "Base/Python/slicer/parameterNodeWrapper"
FILES = {
    "slicer.i18n": ["Base/Python/slicer/i18n.py"],
    "slicer.packaging": ["Base/Python/slicer/packaging.py"],
    "slicer.ScriptedLoadableModule": ["Base/Python/slicer/ScriptedLoadableModule.py"],
    "slicer.parameterNodeWrapper": [
        f"{WRAPPER}/{name}.py" for name in ("default", "guiConnectors", "serializers", "types", "validators", "wrapper")
    ],
    "SampleData": ["Modules/Scripted/SampleData/SampleData.py"],
    "sitkUtils": ["Base/Python/sitkUtils.py"],
    "PyTorchUtils": ["PyTorchUtils/PyTorchUtils.py"],
}


def git(repository: str, *arguments: str) -> str:
    return subprocess.run(["git", "-C", repository, *arguments], check=True, capture_output=True, text=True).stdout


def parameters(function: ast.FunctionDef) -> list[str]:
    """Names of the parameters; `=` marks a default, `*` what takes any number."""
    given = function.args
    names = [one.arg for one in (*given.posonlyargs, *given.args)]
    first = len(names) - len(given.defaults)
    result = [name + ("=" if index >= first else "") for index, name in enumerate(names)]
    result += [f"*{given.vararg.arg}"] if given.vararg else []
    result += [one.arg + "=" for one in given.kwonlyargs]
    return result + ([f"**{given.kwarg.arg}"] if given.kwarg else [])


def offers(tree: ast.Module) -> tuple[dict, dict]:
    """Functions with their parameters, and classes with their methods', of a file."""
    functions, classes = {}, {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            functions[node.name] = parameters(node)
        elif isinstance(node, ast.ClassDef):
            methods = {one.name: parameters(one) for one in node.body if isinstance(one, ast.FunctionDef)}
            fields = [one.target.id for one in node.body if isinstance(one, ast.AnnAssign)]
            classes[node.name] = {**{name: [] for name in fields}, **methods}
    return functions, classes


def main(slicer: str, torch: str) -> None:
    result = {"read from": {}, "modules": [], "files": {}}
    for name, repository in (("Slicer/Slicer", slicer), ("fepegar/SlicerPyTorch", torch)):
        result["read from"][name] = git(repository, "rev-parse", "HEAD").strip()
    for folder in ("Loadable", "Scripted", "CLI"):
        listed = git(slicer, "ls-tree", "-d", "--name-only", "HEAD", f"Modules/{folder}/").split()
        result["modules"] += [Path(path).name for path in listed]
    for module, paths in FILES.items():
        entry = {"paths": paths, "functions": {}, "classes": {}}
        for path in paths:
            text = git(torch if module == "PyTorchUtils" else slicer, "show", f"HEAD:{path}")
            functions, classes = offers(ast.parse(text))
            entry["functions"].update(functions)
            entry["classes"].update(classes)
        result["files"][module] = entry
    text = json.dumps(result, indent=1, sort_keys=True)
    TARGET.write_text(text + "\n", encoding="utf-8")
    print(f"{len(result['modules'])} modules, {len(result['files'])} files in {TARGET}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
