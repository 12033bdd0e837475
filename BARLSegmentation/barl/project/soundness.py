# SPDX-License-Identifier: Apache-2.0
"""Whether the files of a project are as they were stored."""

from __future__ import annotations

from pathlib import Path

from barl.errors import ModelError
from barl.project.database import Database
from barl.project.erasing import erased_ids
from barl.project.files import inside, sha256
from barl.project.model_card import CARD_FILE, WEIGHTS_FILE, read_card
from barl.project.models import Models, weights_digest
from barl.project.records import Damage, ModelRow
from barl.project.states import RevisionKind

_sound: dict[Path, tuple[int, int, str]] = {}


def verify(database: Database, everything: bool = False) -> list[Damage]:
    """Compare the files of a project with their digests.

    Args:
        database: The project's.
        everything: Check images, predictions, drafts and models as well, not only the accepted label maps and which
            voxels of them were looked at.

    Returns:
        What is damaged, with the name of the case or the id of the model (empty: nothing).
    """
    damage = [Damage("", database.path, f"is damaged ({text})") for text in database.problems()]
    cases = database.folder / "cases"
    revisions = database.rows(
        "SELECT c.name, r.* FROM revisions r JOIN cases c ON c.id = r.case_id WHERE ? OR r.kind = ? ORDER BY r.number",
        (everything, RevisionKind.ACCEPTED),
    )
    expected: list[tuple[str, tuple[str, ...], str]] = [
        (row["name"], (row["case_id"], "revisions", row["file"]), row["sha256"]) for row in revisions
    ]
    expected += [
        (row["name"], (row["case_id"], "revisions", row["looked_file"]), row["looked_sha256"])
        for row in revisions
        if "looked_file" in row.keys() and row["looked_file"]  # noqa: SIM118 (a row is no dict)
    ]
    if everything:
        expected += [
            (row["name"], (row["case_id"], "revisions", row["uncertainty_file"]), row["uncertainty_sha256"])
            for row in revisions
            if row["uncertainty_file"]
        ]
        images = database.rows("SELECT c.name, i.* FROM images i JOIN cases c ON c.id = i.case_id")
        expected += [(row["name"], (row["case_id"], row["file"]), row["sha256"]) for row in images]
    erased = erased_ids(database)
    for name, parts, digest in expected:
        if parts[0] in erased:
            continue
        path = inside(cases, *parts)
        if problem := _problem(path, digest):
            damage.append(Damage(name, path, problem))
    if everything:
        damage += [found for model in Models(database).all() for found in model_damage(model)]
    return damage


def model_damage(model: ModelRow, *, with_weights: bool = True) -> list[Damage]:
    """What is damaged of a model whose weights were not removed.

    Args:
        model: The project's.
        with_weights: Read the weights and compare them with their digest; else only folder and card are looked at.
    """
    damage = []
    try:
        read_card(model.folder)
    except ModelError as error:
        damage.append(Damage(model.id, model.folder / CARD_FILE, f"cannot be used ({error.message.rstrip('.')})"))
    path, digest = model.folder / WEIGHTS_FILE, weights_digest(model) if with_weights else ""
    if digest and (problem := _problem(path, digest)):
        damage.append(Damage(model.id, path, problem))
    return damage


def known_problem(path: Path, digest: str) -> str:
    """What is wrong with a file, as words to follow its name; empty: nothing.

    A file that was sound is not read again as long as its size and its time of change stay the same.
    """
    try:
        facts = path.stat()
    except OSError:
        return _problem(path, digest)
    state = (facts.st_mtime_ns, facts.st_size, digest)
    if _sound.get(path) == state:
        return ""
    problem = _problem(path, digest)
    if not problem:
        _sound[path] = state
    return problem


def _problem(path: Path, digest: str) -> str:
    try:
        return "" if sha256(path) == digest else "is not as it was stored"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
