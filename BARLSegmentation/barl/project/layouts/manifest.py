# SPDX-License-Identifier: Apache-2.0
"""What an export was made from: versions, label table, models, revisions and checksums, as one JSON file."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from barl import __version__
from barl.errors import ModelError, ProjectError
from barl.json_text import plain
from barl.project.database import now
from barl.project.files import sha256
from barl.project.model_card import read_card
from barl.project.records import Case, Revision
from barl.project.store import Project

FILE_NAME = "manifest.json"
_LIBRARIES = ("numpy", "scipy", "SimpleITK", "pydicom", "torch", "monai", "highdicom", "scikit-image")


def write_manifest(
    project: Project, revisions: Sequence[tuple[Case, Revision]], layout: str, folder: Path, notes: Sequence[str]
) -> None:
    """Write ``manifest.json`` into a folder that holds all other files of an export.

    Cases bear their ids; no name that a user typed, but those of labels, channels, models and authors of outlines.

    Args:
        project: The project.
        revisions: Each case with the outline that was written.
        layout: The name of the layout.
        folder: The export's.
        notes: Sentences for the user.
    """
    manifest = {
        "format": 1,
        "made": now(),
        "program": f"BARL {__version__}",
        "platform": platform.platform(terse=True),
        "versions": {name: version for name in _LIBRARIES if (version := _version(name))},
        "layout": layout,
        "labels": [label.to_json() for label in project.labels],
        "channels": [channel.name for channel in project.channels],
        "cases": [_case(case, revision) for case, revision in revisions],
        "models": [_model(project, name) for name in sorted({r.model_id for _, r in revisions if r.model_id})],
        "notes": list(notes),
        "files": {
            path.relative_to(folder).as_posix(): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()
        },
    }
    text = json.dumps(plain(manifest), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _case(case: Case, revision: Revision) -> dict[str, Any]:
    return {
        "case": case.id,
        "held_out": case.held_out,
        "revision": revision.id,
        "kind": revision.kind,
        "author": revision.author,
        "created": revision.created,
        "model": revision.model_id,
        "looked_share": revision.looked_share if revision.is_accepted else None,
        "label_sha256": revision.sha256,
    }


def _model(project: Project, model_id: str) -> dict[str, Any]:
    """What the card of a model says of how it was made."""
    try:
        row = project.models.get(model_id)
        card = read_card(row.folder)
    except (ModelError, ProjectError):
        return {"model": model_id}
    return {
        "model": model_id,
        "id": card.id,
        "name": card.name,
        "created": card.created,
        "parent": row.parent,
        "method": card.method,
        "settings": card.settings,
        "data": card.counts,
        "versions": card.versions,
        "weights_sha256": card.weights_sha256,
    }
