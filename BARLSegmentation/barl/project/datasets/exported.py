# SPDX-License-Identifier: Apache-2.0
"""The layout ``plain`` of ``barl export``: a folder for each case, and ``manifest.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from barl.errors import InputError
from barl.project.case_files import image_names
from barl.project.datasets.dataset import Dataset, Entry
from barl.project.labels import Channel
from barl.project.scans import LeftOut
from barl.project.states import RevisionKind

MANIFEST = "manifest.json"
_LABEL, _LOOKED = "label.nii.gz", "looked.nii.gz"


def is_exported(folder: Path) -> bool:
    """Whether a folder is an export in this layout."""
    return (folder / MANIFEST).is_file() and _manifest(folder).get("layout") == "plain"


def read_exported(folder: Path) -> Dataset:
    """Find the cases of an export; no image is read.

    Predictions that nobody has accepted are no outlines, and partial outlines are left out: both are said.

    Raises:
        InputError: The manifest is not as ``barl export`` writes it.
    """
    manifest = _manifest(folder)
    entries, left_out = [], []
    try:
        channels = tuple(str(name) for name in manifest["channels"])
        for case in manifest["cases"]:
            home = folder / Path(case["case"]).name
            images = tuple(home / name for name in image_names(Channel(name) for name in channels))
            if not all(path.is_file() for path in images):
                reason = InputError("An image of the case is missing.", "Copy the data set again.")
                left_out.append(LeftOut(home.name, reason))
                continue
            label: Path | None = home / _LABEL
            notes: tuple[str, ...] = ()
            if case["kind"] != RevisionKind.ACCEPTED:
                label, notes = None, ("Its label map is a prediction that nobody has accepted, and no outline.",)
            elif (home / _LOOKED).exists():
                words = "The outline is partial.", "Add it by itself, with --label and --looked."
                left_out.append(LeftOut(f"{home.name}/{_LABEL}", InputError(*words)))
                label = None
            entries.append(Entry(home.name, images, label, bool(case["held_out"]), "", notes))
        labels = {int(row["value"]): str(row["name"]) for row in manifest["labels"]}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"The {MANIFEST} of {folder} cannot be read.", "Export the data set again.") from error
    return Dataset("BARL export", folder, channels, labels, None, tuple(entries), tuple(left_out))


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
