# SPDX-License-Identifier: Apache-2.0
"""Judges what prediction and training need: one sentence and one repair for each condition."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version
from slicer.i18n import tr as _

if TYPE_CHECKING:
    from collections.abc import Mapping

GIB = 2**30
# Below this a training may fail to store its model and checkpoints.
LITTLE_GIB = 5
TORCH_REQUIREMENT = ">=2.4.1"  # as in pyproject.toml
# Slicer's own, and torch, which only the PyTorch extension may choose: pip must never change them.
PROTECTED = ["SimpleITK", "numpy", "scipy", "requests", "torch", "torchvision"]
REQUESTER = "BARL Segmentation"


@dataclass(frozen=True)
class Condition:
    """One line of the section.

    Attributes:
        good: Nothing needs to be done.
        text: What there is, in one sentence.
        repair: What the button says; empty: there is nothing that a button could do.
    """

    good: bool
    text: str
    repair: str = ""


def judge(found: Mapping, requirements: Mapping[str, SpecifierSet], names: Mapping[str, str]) -> dict[str, Condition]:
    """All conditions.

    Args:
        found: What ``Environment.look`` found.
        requirements: Package -> versions that will do.
        names: Folder of a model -> what the user calls it.
    """
    return {
        "torch": _torch(found),
        "packages": _packages(found, requirements),
        "gpu": _cards(found),
        "disk": _disk(found["disk"]),
        "models": _models(found["models"], names),
    }


def _torch(found: Mapping) -> Condition:
    torch, cards = found["torch"], found["cards"]
    if reason := _reasonAgainstTorch(found):
        from barl.torch_support import WITHOUT_TORCH

        return Condition(False, f"{reason} {WITHOUT_TORCH}")
    if torch is None:
        return Condition(False, _("Not installed: prediction and training need it."), _("Install"))
    build = _("for CUDA {cuda}").format(cuda=torch["cuda"]) if torch["cuda"] else _("for the CPU")
    name = f"{torch['version']} {build}"
    if not torch["complete"]:
        return Condition(False, _("{name}: its installation is incomplete.").format(name=name), _("Reinstall"))
    if not _fits(torch["version"], SpecifierSet(TORCH_REQUIREMENT)):
        text = _("{name} is too old; {needed} or newer is needed.")
        return Condition(False, text.format(name=name, needed=TORCH_REQUIREMENT.removeprefix(">=")), _("Update"))
    if torch["cuda"] and cards["cuda"] and Version(torch["cuda"]).major > Version(cards["cuda"]).major:
        text = _("{name} is newer than what the graphics driver can run (CUDA {driver}).")
        return Condition(False, text.format(name=name, driver=cards["cuda"]), _("Reinstall"))
    if torch["cuda"] and cards["names"]:
        from barl.torch_support import slow_in_half_precision

        if slow := slow_in_half_precision(torch["version"], torch["cuda"], torch.get("cudnn") or ""):
            return Condition(False, slow, _("Update"))
    return Condition(True, _("{name}.").format(name=name))


def _reasonAgainstTorch(found: Mapping) -> str:
    from barl.torch_support import reason_against

    return reason_against(*found["system"].split(" ", 1))


def _packages(everything: Mapping, requirements: Mapping[str, SpecifierSet]) -> Condition:
    if _reasonAgainstTorch(everything):
        return Condition(True, _("Not needed: they go with PyTorch."))
    found = everything["packages"]
    missing = [name for name in requirements if not found.get(name)]
    old = [name for name, needed in requirements.items() if found.get(name) and not _fits(found[name], needed)]
    if missing:
        return Condition(False, _("Missing: {names}.").format(names=", ".join(missing)), _("Install"))
    if old:
        return Condition(False, _("Too old: {names}.").format(names=", ".join(old)), _("Update"))
    return Condition(True, ", ".join(f"{name} {found[name]}" for name in requirements) + ".")


def _cards(found: Mapping) -> Condition:
    torch, cards = found["torch"], found["cards"]
    if not cards["names"]:
        if "arm64" in found["system"] and "Darwin" in found["system"]:
            return Condition(True, _("Apple's graphics are used."))
        return Condition(True, _("No NVIDIA card found: the CPU is used, which is many times slower."))
    names = "; ".join(cards["names"])
    if torch is not None and not torch["cuda"]:
        text = _("{names} is there, but the installed PyTorch cannot use it.")
        return Condition(False, text.format(names=names), _("Reinstall"))
    return Condition(True, _("{names}, driver {driver}.").format(names=names, driver=cards["driver"]))


def _disk(free: int | None) -> Condition:
    if free is None:
        return Condition(True, _("No project is open."))
    text = _("{free:.0f} GiB free for the project.").format(free=free / GIB)
    if free < LITTLE_GIB * GIB:
        text += " " + _("A training may need more; free some space.")
        return Condition(False, text, _("Show folder"))
    return Condition(True, text)


def _models(found: Mapping[str, str], names: Mapping[str, str]) -> Condition:
    states = {
        "missing": _("its files are missing"),
        "altered": _("its weights are not as they were saved"),
        "unreadable": _("it cannot be read"),
    }
    bad = [f"{names[folder]}: {states[state]}" for folder, state in found.items() if state != "sound"]
    if bad:
        return Condition(False, "; ".join(bad) + ".", _("Restore..."))
    if not found:
        return Condition(True, _("No model yet."))
    number = _("1 model is") if len(found) == 1 else _("{count} models are").format(count=len(found))
    return Condition(True, _("{number} as saved (checksum).").format(number=number))


def damagedModel(found: Mapping[str, str]) -> Path | None:
    """The first model that needs to be restored."""
    return next((Path(folder) for folder, state in found.items() if state != "sound"), None)


def restoreModel(copy: Path, folder: Path) -> None:
    """Put the files of a sound copy in the place of a damaged model's.

    Raises:
        barl.errors.ModelError: The folder holds no sound copy of this model.
        barl.errors.StorageError: The disk is full or read-only.
    """
    from barl.errors import ModelError, storage_error
    from barl.project.files import write_atomically
    from barl.project.model_card import CARD_FILE, WEIGHTS_FILE, weights_checksum

    from BARLSegmentationLib.logic.Environment import modelState

    remedy = _("Choose the folder of the same model in a backup.")
    if modelState(copy, CARD_FILE, WEIGHTS_FILE) != "sound":
        raise ModelError(_("The folder {name} holds no sound model.").format(name=copy.name), remedy)
    known = weights_checksum(folder)
    if known and known != weights_checksum(copy):
        raise ModelError(_("The folder {name} holds another model.").format(name=copy.name), remedy)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder) from error
    for name in (WEIGHTS_FILE, CARD_FILE):
        write_atomically(folder / name, lambda path, name=name: shutil.copyfile(copy / name, path))


def readRequirements(path: str | Path) -> dict[str, SpecifierSet]:
    """Package -> versions that will do, from a file of requirements."""
    from slicer import packaging

    return {requirement.name: requirement.specifier for requirement in packaging.load_requirements(str(path))}


def report(found: Mapping, conditions: Mapping[str, Condition], slicerVersion: str, barlVersion: str) -> str:
    """Versions and conditions as plain text. Names no model, folder, host, user or patient."""
    torch, cards = found["torch"], found["cards"]
    lines = [
        f"BARL {barlVersion}, Slicer {slicerVersion}, Python {found['python']}, {found['system']}",
        f"torch: {torch['version']}, CUDA {torch['cuda'] or 'none'}, complete {torch['complete']}"
        if torch
        else "torch: not installed",
        "packages: " + ", ".join(f"{name} {text or 'missing'}" for name, text in found["packages"].items()),
        "Slicer's own: " + ", ".join(f"{name} {text or 'missing'}" for name, text in found["others"].items()),
        f"graphics: {'; '.join(cards['names']) or 'none'}, driver {cards['driver'] or 'none'}, "
        f"CUDA {cards['cuda'] or 'none'}",
        "free disk: " + ("no project" if found["disk"] is None else f"{found['disk'] / GIB:.0f} GiB"),
        "models: " + (", ".join(found["models"].values()) or "none"),
        "not in order: " + (", ".join(key for key, item in conditions.items() if not item.good) or "nothing"),
    ]
    return "\n".join(lines)


def _fits(version: str, needed: SpecifierSet) -> bool:
    try:
        return needed.contains(version, prereleases=True)
    except InvalidVersion:
        return False
