# SPDX-License-Identifier: Apache-2.0
"""Fingerprints of a project's cases, each kept in its case's folder: a scan is read for a plan once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from barl.images.fingerprint import CaseFingerprint, fingerprint_case
from barl.images.geometry import Grid
from barl.images.label_maps import read_label
from barl.images.reading import read_channels
from barl.progress import Progress, Stage
from barl.project.files import write_atomically
from barl.project.records import Case, Revision
from barl.project.states import RevisionKind
from barl.project.store import Project

NAME = "fingerprint.json"
# Part of the key of a kept fingerprint: to be raised when fingerprints are measured otherwise.
VERSION = 1


@dataclass(frozen=True)
class Measured:
    """A case's fingerprint and how long reading and measuring the case took (s), whenever that was."""

    fingerprint: CaseFingerprint
    seconds: float


def measure_cases(project: Project, cases: list[Case], progress: Progress) -> list[Measured]:
    """Measure each case, with its accepted outline if it has one.

    A kept fingerprint is used as long as images, outline and label values are the same; the images are then not read.

    Raises:
        InputError: An image is missing or not as it was stored, or cannot be read.
        ProjectError: The same of an outline.
    """
    return [_measure(project, case) for case, _ in progress.stage(Stage.PLANNING).each(cases, lambda c: c.name)]


def accepted_outline(project: Project, case: Case, grid: Grid) -> sitk.Image:
    """The accepted label map of a case; background where nobody has looked."""
    revision = project.revisions.accepted(case.id)
    label = read_label(revision.path, grid, project.values)
    looked = project.revisions.read_looked(revision)
    return label if looked is None else label * sitk.Cast(looked, label.GetPixelID())


def _measure(project: Project, case: Case) -> Measured:
    path = project.cases.revision_folder(case.id).parent / NAME
    revision = project.revisions.newest(case.id, (RevisionKind.ACCEPTED,)) if case.is_accepted else None
    key = _key(project, case, revision)
    if (kept := _read(path, key)) is not None:
        return kept
    began = time.monotonic()
    channels = read_channels(project.cases.sound_images(case.id))
    label = accepted_outline(project, case, Grid.of(channels[0])) if case.is_accepted else None
    found = Measured(fingerprint_case(channels, label, project.values), time.monotonic() - began)
    if not project.read_only:
        facts = {"key": key, "seconds": round(found.seconds, 4), "fingerprint": found.fingerprint.to_json()}
        with contextlib.suppress(OSError):  # the next plan measures again
            write_atomically(path, lambda temporary: temporary.write_text(json.dumps(facts), encoding="utf-8"))
    return found


def _key(project: Project, case: Case, revision: Revision | None) -> str:
    """Changes with the images' files, the outline, and the label values; empty if an image is missing."""
    try:
        stats = [(path.name, path.stat()) for path in project.cases.image_paths(case.id)]
    except OSError:
        return ""
    files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    outline = None if revision is None else (revision.sha256, revision.looked_sha256)
    return hashlib.sha256(json.dumps([VERSION, files, outline, project.values]).encode()).hexdigest()


def _read(path: Path, key: str) -> Measured | None:
    """The kept fingerprint if it has this key."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if not key or kept["key"] != key:
            return None
        return Measured(CaseFingerprint.from_json(kept["fingerprint"]), float(kept["seconds"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
