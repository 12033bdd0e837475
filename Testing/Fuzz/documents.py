# SPDX-License-Identifier: Apache-2.0
"""Damaged models, weights, projects, plans and lines of the worker protocol: refused in one sentence, or sound."""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from barl.models.disk import load_model
from barl.project.labels import Channel, Label
from barl.project.store import Project
from barl.training.plan import Plan
from barl.worker import server
from barl.worker.messages import SayHello
from barl.worker.protocol import encode
from mutations import VALUES, damaged_bytes, damaged_json
from volumes import Wrong

# A server that has served its client ends its process after so many seconds: here that would be the fuzzer.
server.LAST_WORD_S = 24 * 3600.0
MODEL = Path(__file__).resolve().parents[2] / "BARLSegmentation" / "Resources" / "Models" / "hippocampus"


def model_json(folder: Path, rng: random.Random) -> Path:
    place = _copied(folder)
    card = json.loads((place / "model.json").read_text(encoding="utf-8"))
    text = json.dumps(damaged_json(card, rng))
    (place / "model.json").write_bytes(damaged_bytes(text.encode(), rng) if rng.random() < 0.2 else text.encode())
    return place


def weights(folder: Path, rng: random.Random) -> Path:
    place = _copied(folder)
    path = place / "weights.safetensors"
    content = path.read_bytes()
    head = 8 + int.from_bytes(content[:8], "little")
    if rng.random() < 0.7:
        path.write_bytes(damaged_bytes(content[:head], rng) + content[head:])
    else:
        path.write_bytes(damaged_bytes(content, rng))
    if rng.random() < 0.7:  # by somebody who corrects the checksum as well
        card = json.loads((place / "model.json").read_text(encoding="utf-8"))
        card["weights_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        (place / "model.json").write_text(json.dumps(card), encoding="utf-8")
    return place


def _copied(folder: Path) -> Path:
    place = folder / "model"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(MODEL, place)
    return place


def check_model(place: Path) -> None:
    """A model that is taken has the right shape and finite weights."""
    _, network = load_model(place)
    for name, value in network.state_dict().items():
        if not value.isfinite().all():
            raise Wrong(f"weights that are not finite: {name}")


def project_db(folder: Path, rng: random.Random) -> Path:
    place = folder / "project"
    shutil.rmtree(place, ignore_errors=True)
    scan = sitk.GetImageFromArray(np.zeros((4, 5, 6), np.int16))
    with Project.create(place, "study", [Label(1, "tumor")], [Channel("CT")]) as project:
        case = project.cases.add("a", [scan], label=sitk.Cast(scan + 1, sitk.sitkUInt8))
        project.revisions.store(case.id, sitk.Cast(scan, sitk.sitkUInt8), "prediction", author="model")
    path = place / "project.db"
    if rng.random() < 0.4:
        path.write_bytes(damaged_bytes(path.read_bytes(), rng))
        return place
    with closing(sqlite3.connect(path)) as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        table = rng.choice(tables)
        columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        value = rng.choice([v for v in VALUES if not isinstance(v, list | dict) and v != 10**30])
        try:
            statement = rng.choice((f"DROP TABLE {table}", f"DELETE FROM {table}", ""))
            change = f"UPDATE {table} SET {rng.choice(columns)} = ?"
            database.execute(statement) if statement and rng.random() < 0.3 else database.execute(change, (value,))
            database.commit()
        except sqlite3.Error:
            pass  # a trigger or a constraint has kept it out
    return place


def check_project(place: Path) -> None:
    """Everything that is shown of a project."""
    with Project.open(place) as project:
        for case in project.cases.all():
            project.cases.image_paths(case.id)
            project.cases.grid(case.id)
            for revision in project.revisions.of(case.id):
                if place not in revision.path.resolve().parents:
                    raise Wrong(f"a path that leaves the folder: {revision.path}")
        project.models.all()
        project.runs.all()
        project.journal.entries()
        project.verify(everything=True)


def plan_json(folder: Path, rng: random.Random) -> Path:
    card = json.loads((MODEL / "model.json").read_text(encoding="utf-8"))
    plan = {key: card[key] for key in ("labels", "channels", "normalisations", "spacing", "patch", "network")}
    path = folder / "plan.json"
    path.write_text(json.dumps(damaged_json(plan, rng)))
    return path


def check_plan(path: Path) -> None:
    Plan.from_json(json.loads(path.read_text()))


def worker_lines(folder: Path, rng: random.Random) -> Path:
    message = {"id": "1", "request": rng.choice(("hello", "runs", "plan", "predict", "add_cases")), "params": {}}
    if message["request"] != "hello":
        message["params"] = {"project": str(folder / "gone"), "cases": []}
    line = encode(damaged_json(message, rng)) if rng.random() < 0.6 else damaged_bytes(encode(message), rng) + b"\n"
    path = folder / "lines"
    path.write_bytes(line)
    return path


def check_lines(path: Path) -> None:
    """The server answers the question that follows, whatever came before."""
    out = io.BytesIO()
    hello = b'\n{"id": "last", "request": "hello", "params": {}}\n'
    server.Server({SayHello: lambda _context, _request: SayHello()}, io.BytesIO(path.read_bytes() + hello), out).serve()
    answers = [json.loads(line) for line in out.getvalue().splitlines()]
    if not any(answer.get("id") == "last" for answer in answers):
        raise Wrong(f"no answer to the question that followed: {answers}")


KINDS: dict[str, tuple[Callable[[Path, random.Random], Path], Callable[[Path], None]]] = {
    "model.json": (model_json, check_model),
    "weights": (weights, check_model),
    "project.db": (project_db, check_project),
    "plan.json": (plan_json, check_plan),
    "worker lines": (worker_lines, check_lines),
}
