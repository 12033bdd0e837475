# SPDX-License-Identifier: Apache-2.0
"""How fast a large project answers: list its cases, choose the next one. Prints one line of JSON.

The aim: list and choice together within 200 ms for 10,000 cases.

python Testing/Benchmarks/project_speed.py --cases 10000 --outlined 200
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "BARLSegmentation"))

import numpy as np
import SimpleITK as sitk
from barl.images.geometry import Grid
from barl.project.labels import Channel, Label
from barl.project.next_case import rank_cases
from barl.project.store import Project


def build_project(folder: Path, cases: int, outlined: int, features: int) -> None:
    """A project whose rows are as those of real work: one case through the front door, the others copied from it."""
    rng = np.random.default_rng(0)
    scan = sitk.GetImageFromArray(rng.normal(size=(8, 8, 8)).astype(np.float32))
    label = Grid.of(scan).image(np.ones((8, 8, 8), dtype=np.uint8))
    with Project.create(folder, "Speed", [Label(1, "lesion")], [Channel("CT")]) as project:
        first = project.cases.add("first", [scan])
        hotspots = {"hotspots": [{"position_mm": [1.5, 2.5, 3.5], "ml": 0.4} for _ in range(20)]}
        project.revisions.store(
            first.id,
            label,
            "prediction",
            author="BARL",
            case_uncertainty=0.5,
            embedding=rng.normal(size=features),
            details=hotspots,
        )
        with project.database.write() as transaction:
            for number in range(2, cases + 1):
                copy = f"case_{number:04d}"
                (folder / "cases" / copy / "revisions").mkdir(parents=True)
                state = "accepted" if number <= outlined + 1 else "predicted"
                transaction.execute(
                    "INSERT INTO cases (id, name, name_key, state, grid, uncertainty, embedding, updated) "
                    "SELECT ?, ?, ?, ?, grid, ?, ?, updated FROM cases WHERE number = 1",
                    (copy, copy, copy, state, rng.random(), rng.normal(size=features).astype("<f4").tobytes()),
                )
                transaction.execute(
                    "INSERT INTO images SELECT ?, position, file, sha256 FROM images WHERE case_id = ?",
                    (copy, first.id),
                )
                transaction.execute(
                    "INSERT INTO revisions (id, case_id, kind, created, author, file, sha256, details) "
                    "SELECT ?, ?, kind, created, author, file, sha256, details FROM revisions WHERE case_id = ?",
                    (f"r{number}", copy, first.id),
                )
                transaction.log("case added", copy)


def milliseconds(work: Callable[[], object], repeats: int) -> dict[str, float]:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return {"median": round(statistics.median(times), 1), "best": round(min(times), 1), "worst": round(max(times), 1)}


def measure(cases: int, outlined: int, features: int, repeats: int) -> dict:
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "project"
        build_project(folder, cases, outlined, features)
        Project.open(folder).close()  # keeps the copy of the database, once after a change
        scan_label = Grid((8, 8, 8), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1)).empty()
        with Project.open(folder) as project:
            return {
                "cases": cases,
                "outlined": outlined,
                "features": features,
                "database_mib": round((folder / "project.db").stat().st_size / 2**20, 1),
                "milliseconds": {
                    "open": milliseconds(lambda: Project.open(folder).close(), repeats),
                    "list": milliseconds(project.cases.all, repeats),
                    "list_and_choose_next": milliseconds(lambda: rank_cases(project.cases.all())[0].reason, repeats),
                    "store_revision": milliseconds(
                        lambda: project.revisions.store("first", scan_label, "accepted", author="reader"), repeats
                    ),
                },
                "sqlite": sqlite3.sqlite_version,
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--outlined", type=int, default=200)
    parser.add_argument("--features", type=int, default=64, help="length of a case's embedding")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    print(json.dumps(measure(options.cases, options.outlined, options.features, options.repeats)))


if __name__ == "__main__":
    main()
