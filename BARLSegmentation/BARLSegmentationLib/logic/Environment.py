# SPDX-License-Identifier: Apache-2.0
"""What the worker's Python has: a script of the standard library alone, run in that Python; prints one JSON object.

Nothing is imported that could be broken or slow: torch's version and build are read from its files. Arguments: names of
packages (separated by commas), the project's folder (may be empty), names of the card and of the weights in a model's
folder, folders of models.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path


def look(packages: list[str], project: str, card: str, weights: str, models: list[str]) -> dict:
    """Everything ``Setup`` judges by."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "torch": torchBuild(),
        "packages": {name: installed(name) for name in packages},
        "others": {name: installed(name) for name in ("numpy", "scipy", "SimpleITK")},
        "cards": graphicsCards(),
        "disk": freeBytes(project),
        "models": {folder: modelState(Path(folder), card, weights) for folder in models},
    }


def installed(name: str) -> str | None:
    """The version of a package; None if there is none; empty if its installation is incomplete."""
    try:
        return version(name) or ""
    except PackageNotFoundError:
        return None


def torchBuild() -> dict | None:
    """Version of torch, the CUDA version it was built for (empty: none), that of cuDNN; None if it is not installed.

    ``complete`` is False if files of it are missing: an installation that was interrupted.
    """
    found = installed("torch")
    if found is None:
        return None
    package = distribution("torch")
    cuda, complete = "", False
    for file in package.files or ():
        if file.as_posix() == "torch/version.py":
            path = Path(package.locate_file(file))
            if path.is_file():
                text = path.read_text(encoding="utf-8", errors="replace")
                match = re.search(r"^cuda\b[^=]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
                cuda = match.group(1) if match else ""
                complete = (path.parent / "__init__.py").is_file() and any((path.parent / "lib").glob("*torch*"))
            break
    cudnn = next(filter(None, map(installed, ("nvidia-cudnn-cu12", "nvidia-cudnn-cu13"))), "")
    return {"version": found, "cuda": cuda, "complete": complete, "cudnn": cudnn}


def graphicsCards() -> dict:
    """NVIDIA cards by the driver's own tool: names with memory, driver, highest CUDA version it can run (or empty)."""
    tool = shutil.which("nvidia-smi")
    nothing = {"names": [], "driver": "", "cuda": ""}
    if tool is None:
        return nothing
    try:
        listed = _run(tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
        header = re.search(r"CUDA Version:\s*([\d.]+)", _run(tool))
    except (OSError, subprocess.SubprocessError):
        return nothing
    rows = [[part.strip() for part in line.split(",")] for line in listed.splitlines() if line.count(",") == 2]
    return {
        "names": [f"{name}, {memory}" for name, memory, _ in rows],
        "driver": rows[0][2] if rows else "",
        "cuda": header.group(1) if header else "",
    }


def freeBytes(project: str) -> int | None:
    """Room on the project's disk; None without a project or if the disk cannot be asked."""
    try:
        return shutil.disk_usage(project).free if project else None
    except OSError:
        return None


def modelState(folder: Path, card: str, weights: str) -> str:
    """``sound``, ``missing``, ``altered`` or ``unreadable``: the weights against the checksum in the model's card."""
    try:
        expected = json.loads((folder / card).read_text(encoding="utf-8"))["weights_sha256"]
        with (folder / weights).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return "sound" if digest == expected else "altered"
    except FileNotFoundError:
        return "missing"
    except (OSError, ValueError, KeyError, TypeError):
        return "unreadable"


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout


if __name__ == "__main__":
    json.dump(look(sys.argv[1].split(","), *sys.argv[2:5], sys.argv[5:]), sys.stdout)
