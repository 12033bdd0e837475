# SPDX-License-Identifier: Apache-2.0
"""A project with many cases, for tests and benchmarks of what lists them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from barl.project.labels import Channel, Label
from barl.project.store import Project


def largeProject(folder: Path, count: int) -> Path:
    """Make a project whose cases were predicted and corrected, each correction measured; there are no image files.

    Returns:
        Its folder.
    """
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(count, 32)).astype("<f4")
    names = [f"case_{n:05d}" for n in range(count)]
    cases = [
        (name, f"case {n}", f"case {n}", float(value), vectors[n].tobytes())
        for n, (name, value) in enumerate(zip(names, rng.uniform(size=count), strict=True))
    ]
    facts = [
        json.dumps({"prediction": f"prediction-{one}", "correction": f"accepted-{one}", "dice": 0.9}) for one in names
    ]
    channels = [Channel("CT")]
    with (
        Project.create(folder, "large", [Label(1, "liver")], channels) as project,
        project.database.write() as transaction,
    ):
        transaction.executemany(
            "INSERT INTO cases (id, name, name_key, state, grid, uncertainty, embedding, scored_by, updated) "
            "VALUES (?, ?, ?, 'predicted', '{}', ?, ?, 'm', '2026-01-01T00:00:00.000Z')",
            cases,
        )
        for kind in ("prediction", "accepted"):
            transaction.executemany(
                "INSERT INTO revisions (id, case_id, kind, created, author, file, sha256, details) "
                "VALUES (?, ?, ?, '', '', '', '', '{}')",
                [(f"{kind}-{name}", name, kind) for name in names],
            )
        transaction.executemany(
            "INSERT INTO journal (at, action, case_id, facts, program, pid, host) "
            "VALUES ('', 'agreement measured', ?, ?, '', 1, '')",
            list(zip(names, facts, strict=True)),
        )
    return folder
