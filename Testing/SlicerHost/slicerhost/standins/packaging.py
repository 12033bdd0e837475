# SPDX-License-Identifier: Apache-2.0
"""Stand-in of slicer.packaging: answers as Slicer does, asks for consent as Slicer does, records every wish, and never
installs or removes anything."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from packaging.requirements import InvalidRequirement, Requirement

# (what, requirements as texts) of every call that would have changed the installation.
calls: list[tuple[str, list[str]]] = []
# Names that shall look as if they were not installed.
hidden: set[str] = set()


def _requirements(given) -> list[Requirement]:
    if isinstance(given, Requirement):
        return [given]
    if isinstance(given, str):
        try:
            return [Requirement(given)]
        except InvalidRequirement:
            return [Requirement(word) for word in given.split()]
    if isinstance(given, list):
        return [Requirement(one) if isinstance(one, str) else one for one in given]
    raise TypeError(f"Expected str, Requirement, or list, got {type(given).__name__}")


def load_requirements(path: str) -> list[Requirement]:
    lines = (line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and line[0] not in "#-"]


def load_pyproject_dependencies(path: str) -> list[Requirement]:
    import tomllib

    content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    if "project" not in content:
        raise KeyError(f"pyproject.toml has no [project] table: {path}")
    return [Requirement(text) for text in content["project"].get("dependencies", [])]


def pip_check(req: Any, _seen: Any = None) -> bool:
    for requirement in _requirements(req):
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            return False
        if requirement.name in hidden or version not in requirement.specifier:
            return False
    return True


def isPipInstallInProgress() -> bool:
    return False


def _record(what, requirements) -> None:
    calls.append((what, [str(one) for one in _requirements(requirements)]))


def pip_install(
    requirements: Any,
    constraints: Any = None,
    no_deps_requirements: Any = None,
    skip_packages: Any = None,
    blocking: bool = True,
    show_progress: bool = True,
    requester: str | None = None,
    logCallback: Callable[[str], None] | None = None,
    completedCallback: Callable[..., None] | None = None,
) -> None:
    _record("install", requirements)
    hidden.difference_update(one.name for one in _requirements(requirements))
    if completedCallback is not None:
        completedCallback(0)


def pip_ensure(
    requirements: Any,
    constraints: Any = None,
    skip_packages: Any = None,
    prompt_install: bool = True,
    prompt_restart: bool = True,
    requester: str | None = None,
    skip_in_testing: bool = True,
    show_progress: bool = True,
) -> None:
    missing = [one for one in _requirements(requirements) if not pip_check(one)]
    if not missing or (skip_in_testing and slicer.app.testingEnabled()):
        return
    names = "\n".join(str(one) for one in missing)
    if prompt_install and not slicer.util.confirmOkCancelDisplay(f"{requester or 'This module'} needs:\n{names}"):
        raise RuntimeError(f"User declined installation of: {names}")
    pip_install(missing, constraints=constraints, requester=requester)
    return


def pip_uninstall(
    requirements: Any,
    blocking: bool = True,
    logCallback: Callable[[str], None] | None = None,
    completedCallback: Callable[..., None] | None = None,
) -> None:
    _record("uninstall", requirements)
    if completedCallback is not None:
        completedCallback(0)
