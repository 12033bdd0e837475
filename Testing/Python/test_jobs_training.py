# SPDX-License-Identifier: Apache-2.0
"""The jobs on a small project with known truth: what is trained on, what is stored, what survives."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.cli import main
from barl.errors import InputError, ProjectError
from barl.inference.predictor import Predictor
from barl.jobs import fingerprints
from barl.jobs.compute import Compute, WarmPredictors
from barl.jobs.evaluate import evaluate_model
from barl.jobs.predict import predict_cases
from barl.jobs.runs import RunFolder
from barl.jobs.train_job import TrainingOptions, prepare_run, prepare_training, run_training
from barl.models.disk import save_model
from barl.networks.branches import build_network
from barl.project.files import sha256
from barl.project.labels import Channel, Label
from barl.project.model_card import ModelCard
from barl.project.processes import start_mark
from barl.project.store import Project

TINY = {"widths": [4, 8], "patch": [16, 16, 16], "loader_workers": 0, "validations": 0}


def scan(seed: int) -> tuple[sitk.Image, sitk.Image]:
    """A noisy volume with a bright ball (label 1) in it, on a flipped grid."""
    rng = np.random.default_rng(seed)
    k, j, i = np.indices((20, 22, 24))
    center = rng.uniform(8, 12, 3)
    ball = (k - center[0]) ** 2 + (j - center[1]) ** 2 + (i - center[2]) ** 2 < 25
    images = (
        sitk.GetImageFromArray((100 * ball + rng.normal(0, 10, ball.shape)).astype(np.float32)),
        (sitk.GetImageFromArray(ball.astype(np.uint8))),
    )
    for image in images:
        image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    return images


def make_project(folder: Path, outlined: int = 2, untouched: int = 2, held_out: int = 1) -> None:
    with Project.create(folder, "balls", [Label(1, "ball")], [Channel("image")]) as project:
        for number in range(outlined + held_out + untouched):
            image, label = scan(number)
            known = number < outlined + held_out
            held = outlined <= number < outlined + held_out
            project.cases.add(f"case {number}", [image], label=label if known else None, held_out=held)


def options(iterations: int = 6, **others) -> TrainingOptions:
    return TrainingOptions(iterations=iterations, device="cpu", overrides=dict(TINY), **others)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A project with one model; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("trained") / "project"
    make_project(folder)
    with Project.open(folder) as project:
        run = prepare_run(project, options(40))
    assert run_training(folder, run.id).state == "finished"
    return folder


@pytest.fixture
def copy(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def test_cases_go_where_they_belong(tmp_path):
    make_project(tmp_path, outlined=2, untouched=3, held_out=1)
    with Project.open(tmp_path) as project:
        project.cases.set_state("case 5", "excluded")
        plan = prepare_training(project, options())
        cases = {project.cases.get(case["id"]).name: case for case in plan.cases}
    assert sorted(cases) == ["case 0", "case 1", "case 2", "case 3", "case 4"]
    assert [name for name, case in sorted(cases.items()) if case["revision"]] == ["case 0", "case 1", "case 2"]
    assert [name for name, case in cases.items() if case["held_out"]] == ["case 2"]


def test_outlines_that_the_current_model_has_not_learned_are_new(copy):
    with Project.open(copy) as project:
        assert [case for case in prepare_training(project, options()).cases if case.get("new")] == []
        learned, untouched = project.cases.find("case 0"), project.cases.find("case 3")
        project.revisions.store(untouched.id, scan(3)[1], "accepted", author="reader")
        project.revisions.store(learned.id, scan(0)[1] * 0, "accepted", author="reader")  # outlined anew
        wanted = dataclasses.replace(options(), overrides={**TINY, "new_share": 0.5})
        prepared = prepare_training(project, wanted)
        assert {case["id"] for case in prepared.cases if case.get("new")} == {untouched.id, learned.id}
        assert prepared.plan.new_share == 0.5
        scratch = prepare_training(project, options(warm_start=False))
        assert not any(case.get("new") for case in scratch.cases)
        with pytest.raises(InputError, match="new_share cannot be"):
            prepare_training(project, dataclasses.replace(options(), overrides={**TINY, "new_share": 1.5}))


def test_the_first_model_becomes_current_and_the_second_waits_to_be_promoted(copy):
    with Project.open(copy) as project:
        first = project.models.current()
        assert first.id == "model_0001" and first.summary["data"] == {"labelled": 2, "unlabelled": 2, "held_out": 1}
        run = prepare_run(project, options(2))
        assert run.plan["run"]["parent"] == first.id and run.plan["reasons"]["spacing"] == "as in model_0001"
    done = run_training(copy, run.id)
    with Project.open(copy) as project:
        assert project.models.current().id == first.id
        assert project.models.get(done.model_id).parent == first.id
        assert not (project.runs.get(run.id).folder / "cache").exists()
        wanted = prepare_run(project, options(2, promote=True, warm_start=False))
        assert wanted.plan["run"]["parent"] is None
    done = run_training(copy, wanted.id)
    with Project.open(copy) as project:
        assert project.models.current().id == done.model_id


def test_evaluation_on_the_scans_grid_agrees_with_the_trainings_own_validation(trained):
    """One held-out case at its training spacing: two ways to the same number (a freed truth once gave 0.02)."""
    with Project.open(trained, read_only=True) as project:
        before = project.models.current().summary["metrics"]["dice"]["1"]
        result = evaluate_model(project, compute=Compute("cpu"))
    assert before > 0.2  # a model that finds nothing would agree with anything
    assert result["labels"]["1"]["dice"]["mean"] == pytest.approx(before, abs=0.01)
    assert 0 <= result["calibration_error"] <= 1 and 0 <= result["risk_coverage_area"] <= 1
    assert result["cases"][0]["name"] == "case 2" and "rough" in result["notes"][0]


def test_prediction_is_stored_and_an_accepted_outline_stays(copy):
    warm = WarmPredictors()
    with Project.open(copy) as project:
        accepted = project.revisions.accepted_label("case 0")
        digest = sha256(accepted)
        result = predict_cases(project, compute=Compute("cpu", warm=warm))
        names = {case["name"]: case["state"] for case in result["cases"]}
        assert names == {"case 3": "predicted", "case 4": "predicted"}
        assert result["compared"] == ["case 0", "case 1"]
        assert project.revisions.accepted_label("case 0") == accepted and sha256(accepted) == digest
        case = project.cases.get("case 3")
        assert case.model_id == "model_0001" and 0 <= case.uncertainty <= 1 and case.embedding.size
        newest = project.revisions.newest("case 3")
        assert newest.kind == "prediction" and newest.uncertainty_path.is_file()
        assert newest.details["volumes"][0]["name"] == "ball"
        again = predict_cases(project, compute=Compute("cpu", warm=warm))
        assert {case["name"] for case in again["cases"]} == {"case 3", "case 4"}  # the outlined ones once per model
        assert project.verify(everything=True) == []


def test_a_budget_that_preparing_uses_up_is_told_before_the_start(copy, monkeypatch):
    for kept in copy.glob(f"cases/*/{fingerprints.NAME}"):
        kept.unlink()
    real = fingerprints.fingerprint_case

    def slow(*arguments):
        time.sleep(0.3)
        return real(*arguments)

    monkeypatch.setattr(fingerprints, "fingerprint_case", slow)
    with Project.open(copy) as project:
        short = prepare_training(project, TrainingOptions(minutes=0.05, device="cpu"))
        assert [
            note
            for note in short.notes
            if note.startswith("A budget of 0.05 minutes is small: preparing the scans alone takes")
        ]
        kept = prepare_training(project, TrainingOptions(minutes=0.05, device="cpu"))
        assert "A budget of 0.05 minutes is small" in kept.notes[0]
        enough = prepare_training(project, TrainingOptions(minutes=10, device="cpu"))
        assert not [note for note in enough.notes if "is small" in note]


def test_lesions_smaller_than_a_voxel_are_counted_and_the_command_for_a_finer_spacing_works(tmp_path, capsys):
    """Scans in another order of the axes; two lesions of the first scan and one of the second would vanish."""
    with Project.create(tmp_path / "p", "p", [Label(1, "lesion")], [Channel("MR")]) as project:
        for number, places in enumerate([(3, 12), (7,)]):
            label = np.zeros((20, 30, 30), np.uint8)
            label[14:19, 20:26, 20:26] = 1
            for place in places:
                label[place, place, 4] = 1
            scan_of_it = np.random.default_rng(number).normal(100, 10, label.shape).astype(np.float32)
            images = [sitk.GetImageFromArray(array) for array in (scan_of_it, label)]
            for image in images:
                image.SetSpacing((1.5, 0.7, 0.8))
            image, label = (sitk.PermuteAxes(image, (1, 2, 0)) for image in images)
            project.cases.add(f"case {number}", [image], label=label)
        notes = prepare_training(project, TrainingOptions(overrides={**TINY, "spacing": [3.0, 3.0, 3.0]})).notes
    (note,) = [note for note in notes if "smaller than a voxel" in note]
    assert note.startswith("3 outlined parts of lesion in 2 cases are") and note.endswith(
        '--set "spacing=[1.5,0.7,0.8]".'
    )
    words = shlex.split(note[note.index("--set") : -1])
    tiny = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    assert main(["train", str(tmp_path / "p"), "--plan", "--device", "cpu", *tiny, *words]) == 0
    said = capsys.readouterr()
    assert "1.5 x 0.7 x 0.8 mm" in said.out and "smaller than a voxel" not in said.out + said.err


def test_a_case_that_fails_stops_no_other(copy, monkeypatch):
    """An error that nobody foresaw, in one of two scans."""
    real = Predictor.predict

    def predict(predictor, channels, *arguments, **options):
        if not done:
            done.append(True)
            raise ValueError("shapes do not fit")
        return real(predictor, channels, *arguments, **options)

    done: list[bool] = []
    monkeypatch.setattr(Predictor, "predict", predict)
    with Project.open(copy) as project:
        result = predict_cases(project, ["case 3", "case 4"], compute=Compute("cpu"))
        assert [case["name"] for case in result["cases"]] == ["case 4"]
        assert [case["name"] for case in result["failed"]] == ["case 3"]
        assert "did not foresee" in result["failed"][0]["message"]


def test_warm_start_keeps_the_network_whatever_the_shape_of_the_scans(tmp_path):
    """A patch of 30 voxels is rounded to 32, which could be halved once more: another network, were it planned anew."""
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(0, 1, (30, 36, 32)).astype(np.float32))
    label = image > 2
    with Project.create(tmp_path / "project", "study", [Label(1, "x")], [Channel("image")]) as project:
        project.cases.add("outlined", [image], label=label)
        first = prepare_training(project, TrainingOptions(device="cpu"))
        card = ModelCard(
            id="first",
            name="first",
            created="2026-01-01T00:00:00+00:00",
            labels=project.labels,
            channels=["image"],
            spacing=first.plan.spacing,
            normalisations=list(first.plan.normalisations),
            patch=first.plan.patch,
            network=first.plan.network.to_json(),
            method="barl",
        )
        save_model(tmp_path / "model", card, build_network(first.plan.network, seed=0).state_dict())
        project.models.promote(project.models.add(tmp_path / "model", {}).id)
        again = prepare_training(project, TrainingOptions(device="cpu"))
        assert (again.parent, again.notes) == ("model_0001", first.notes)
        assert again.plan.network == first.plan.network


def test_a_warm_predictor_is_the_same_until_the_model_changes(copy):
    warm = WarmPredictors()
    folder = copy / "models" / "model_0001"
    first = warm.get(folder, "cpu")
    assert warm.get(folder, "cpu") is first
    assert warm.get(folder, "cpu", fast=True) is not first
    card = json.loads((folder / "model.json").read_text("utf-8"))
    card["cleanup"] = [{"value": 1, "pieces": "largest"}]
    (folder / "model.json").write_text(json.dumps(card), "utf-8")
    assert warm.get(folder, "cpu").card.cleanup


def test_a_scan_that_cannot_be_read_does_not_hold_up_the_others(copy):
    with Project.open(copy) as project:
        project.cases.image_paths("case 3")[0].write_bytes(b"damaged")
        result = predict_cases(project, ["case 3", "case 4"], compute=Compute("cpu"))
        assert [case["name"] for case in result["cases"]] == ["case 4"]
        assert result["failed"][0]["name"] == "case 3" and result["failed"][0]["remedy"]
        with pytest.raises(InputError):
            predict_cases(project, ["case 3"], compute=Compute("cpu"))


def test_one_outlined_case_is_enough_and_is_told(tmp_path):
    make_project(tmp_path, outlined=1, untouched=1, held_out=0)
    with Project.open(tmp_path) as project:
        run = prepare_run(project, options(2))
    run_training(tmp_path, run.id)
    notes = [e["message"] for e in RunFolder(tmp_path / "runs" / run.id).events()[0] if e["event"] == "log"]
    assert any("Only one case" in note for note in notes) and any("held out" in note for note in notes)


def test_events_are_read_from_an_offset_and_half_a_line_waits(tmp_path):
    run = RunFolder(tmp_path)
    assert run.events() == ([], 0)
    run.append({"event": "log", "message": "one", "value": float("nan")})
    events, offset = run.events()
    assert events == [{"event": "log", "message": "one", "value": None}]
    with run.events_path.open("ab") as file:
        file.write(b'{"event": "lo')
    assert run.events(offset) == ([], offset)
    with run.events_path.open("ab") as file:
        file.write(b'g"}\n{"cut by a kill\n{"event":"log","message":"two"}\n')
    assert [event.get("message") for event in run.events(offset)[0]] == [None, "two"]


def test_a_long_log_comes_at_once_with_its_last_state_and_all_that_is_not_progress(tmp_path):
    run = RunFolder(tmp_path)
    progress = (
        '{"event": "progress", "stage": "training", "fraction": 0.5, "values": {"iteration": %d, "total": 1.0}}\n'
    )
    with run.events_path.open("w") as file:
        for n in range(60_000):
            file.write(progress % n)
            if n in (30_001, 59_990):
                file.write('{"event": "log", "message": "Out of memory"}\n')
            if n == 40_003:
                file.write('{"event": "progress", "values": {"iteration": 40003, "dice 1": 0.8}}\n')
    events, offset = run.events()
    assert run.events(offset) == ([], offset) and offset == run.events_path.stat().st_size
    iterations = [event["values"]["iteration"] for event in events if event["event"] == "progress"]
    assert iterations[-1] == 59_999 and iterations == sorted(iterations) and 5_000 < len(iterations) < 15_000
    assert [event["values"]["dice 1"] for event in events if "dice 1" in event.get("values", {})] == [0.8]
    at = [n for n, event in enumerate(events) if event["event"] == "log"]
    assert [events[n - 1]["values"]["iteration"] for n in at] == [30_001, 59_990]
    assert len(run.events(offset - 3 * len(progress % 10_000))[0]) == 3  # of a short rest all


def test_a_stopped_run_goes_on_and_a_finished_one_does_not(tmp_path):
    make_project(tmp_path)
    with Project.open(tmp_path) as project:
        run = prepare_run(project, options(5))

    def stop_at_once(event):
        if event.get("stage") == "preparing":
            RunFolder(tmp_path / "runs" / run.id).ask_to_stop()

    assert run_training(tmp_path, run.id, on_event=stop_at_once).state == "stopped"
    with Project.open(tmp_path) as project:
        assert project.models.all() == []
    assert run_training(tmp_path, run.id).state == "finished"
    with pytest.raises(ProjectError, match="finished"):
        run_training(tmp_path, run.id)


# kill -9 at random moments

# One process pays for importing torch; each training is a fork of it, so that a kill costs no more than the training.
_NURSERY = """
import os, sys
import torch
torch.set_num_threads(1)
import barl.jobs.train_job
import barl.training.loop as training
from barl.worker.run_process import main
training.CHECKPOINT_SECONDS = 0.02  # at nearly every step: some are killed while a checkpoint is written
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if not child:
        code = 1
        try:
            code = main(line.rstrip("\\n").split("\\t"))
        finally:
            os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Nursery:
    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _NURSERY],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout.readline() == "ready\n"

    def train(self, folder: Path, run_id: str, kill_after: tuple[int, float] | None = None) -> int:
        """Train in a process of its own; gives its exit code, -9 if it was killed.

        Args:
            kill_after: So many new checkpoints, then so many seconds. Counted in the run's own steps: a share of some
                earlier run's time misses the training altogether when the machine becomes busier.
        """
        self._process.stdin.write(f"{folder}\t{run_id}\n")
        self._process.stdin.flush()
        child = int(self._process.stdout.readline())
        if kill_after is not None:
            steps, seconds = kill_after
            seen, count = self._written(folder, run_id), 0
            while count < steps and start_mark(child):
                now = self._written(folder, run_id)
                seen, count = now, count + (now != seen)
                time.sleep(0.002)
            time.sleep(seconds)
            with contextlib.suppress(ProcessLookupError):  # it may have come to its end before
                os.kill(child, signal.SIGKILL)
        return int(self._process.stdout.readline())

    @staticmethod
    def _written(folder: Path, run_id: str) -> int:
        try:
            return (folder / "runs" / run_id / "checkpoint.safetensors").stat().st_mtime_ns
        except OSError:
            return 0

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(120)


@pytest.fixture(scope="module")
def nursery():
    if os.name == "nt":
        pytest.skip("needs fork and SIGKILL")
    nursery = Nursery()
    yield nursery
    nursery.close()


def kill_and_resume(nursery: Nursery, folder: Path, kills: int, iterations: int, seed: int) -> int:
    """Kill a training at random moments, then let it end: its weights are those of a training nobody disturbed.

    Returns:
        How many kills met a training under way.
    """
    make_project(folder / "killed")
    with Project.open(folder / "killed") as project:
        run = prepare_run(project, options(iterations))
        accepted = {
            case.id: sha256(project.revisions.accepted_label(case.id)) for case in project.cases.all("accepted")
        }
    shutil.copytree(folder / "killed", folder / "calm")
    assert nursery.train(folder / "calm", run.id) == 0

    rng, met = random.Random(seed), 0
    for number in range(kills):
        # The first within the first steps, so that each round shows something; some while the cases are prepared.
        steps = 1 if number == 0 else rng.randrange(4)
        code = nursery.train(folder / "killed", run.id, (steps, rng.uniform(0, 0.1 if steps else 0.5)))
        with Project.open(folder / "killed") as project:  # opens, and nothing is lost
            assert project.verify(everything=True) == []
            assert {
                case.id: sha256(project.revisions.accepted_label(case.id)) for case in project.cases.all("accepted")
            } == accepted
            state = project.runs.get(run.id).state
        assert not list((folder / "killed").rglob(".tmp-*")), "the opening has left what the kill left"
        # Killed between its last entry in the project and its exit, a run is finished all the same.
        assert code == -9 or (code, state) == (0, "finished"), f"exit code {code}, {state}"
        assert state in ("queued", "interrupted", "finished")
        met += state == "interrupted"
        if state == "finished":
            break
    else:
        assert nursery.train(folder / "killed", run.id) == 0
    with Project.open(folder / "killed") as project:
        assert project.runs.get(run.id).state == "finished" and len(project.models.all()) == 1
    weights = "models/model_0001/weights.safetensors"
    same = sha256(folder / "killed" / weights) == sha256(folder / "calm" / weights)
    assert same, f"seed {seed}: after {met} kills while training the weights are others"
    return met


def test_a_killed_training_resumes_exactly(nursery, tmp_path):
    assert kill_and_resume(nursery, tmp_path, kills=4, iterations=12, seed=1) > 0, "no kill met the training"


@pytest.mark.slow
def test_a_training_killed_a_hundred_times_resumes_exactly(nursery, tmp_path):
    met, seed = 0, 0
    while met < 100:
        seed += 1
        met += kill_and_resume(nursery, tmp_path / str(seed), kills=10, iterations=60, seed=seed)
        shutil.rmtree(tmp_path / str(seed))
