# SPDX-License-Identifier: Apache-2.0
"""Training on small simulated scans: views, learning, exact resume, warm start, memory ladder, several processes."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import barl
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from barl import methods
from barl.errors import DeviceError, InputError, ModelError, StorageError
from barl.images.fingerprint import fingerprint_case
from barl.images.reading import read_channels
from barl.models.disk import load_model
from barl.networks.branches import BranchPair
from barl.progress import Progress
from barl.project.labels import Label
from barl.training import checkpoint
from barl.training import loop as train_module
from barl.training.cases import CaseFiles, cache_cases
from barl.training.checkpoint import NAME as CHECKPOINT
from barl.training.distributed import World
from barl.training.loop import TrainingRun, train
from barl.training.patches import Patches, cut_patch
from barl.training.plan import Plan, make_plan
from barl.training.validation import choose_cleanup
from safetensors import SafetensorError
from safetensors.torch import load_file

SHAPE = (20, 24, 22)


def write(folder: Path, name: str, array: np.ndarray) -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.0, 1.0, 1.2))
    path = folder / f"{name}.nii.gz"
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture(scope="module")
def a_study(tmp_path_factory) -> list[CaseFiles]:
    """Bright balls in noise: 2 outlined, 3 untouched, 2 held-out cases."""
    folder = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    cases = []
    for n in range(7):
        center = rng.uniform(8, 12, 3)
        distance = np.sqrt(((np.indices(SHAPE) - center[:, None, None, None]) ** 2).sum(0))
        label = (distance < 5).astype(np.uint8)
        image = (label * 3 + rng.normal(0, 1, SHAPE) + 10).astype(np.float32)
        outlined = n < 2 or n >= 5
        cases.append(
            CaseFiles(
                f"case_{n}",
                [write(folder, f"image_{n}", image)],
                write(folder, f"label_{n}", label * 3) if outlined else None,
                held_out=n >= 5,
            )
        )
    return cases


@pytest.fixture(scope="module")
def a_plan(a_study) -> Plan:
    fingerprints = [fingerprint_case(read_channels(case.images), None, [3]) for case in a_study]
    overrides = {
        "patch": [16, 16, 16],
        "widths": [4, 8],
        "iterations": 12,
        "batch_labelled": 2,
        "batch_unlabelled": 2,
        "learning_rate": 2e-3,
        "precision": "float32",
        "loader_workers": 0,
        "validations": 0,
    }
    return make_plan(fingerprints, [Label(3, "Ball")], ["T1"], overrides=overrides)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "weights.safetensors")


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_it_learns_to_find_the_ball(a_study, a_plan, tmp_path):
    plan = dataclasses.replace(a_plan, iterations=60, validations=2, learning_rate=5e-3)
    events = []
    result = train(plan, a_study, tmp_path, progress=Progress(events.append))
    assert result.metrics["mean_dice"] > 0.8
    card, network = load_model(result.model_folder)
    assert {**card.data, "familiar": None} == {"labelled": 2, "unlabelled": 3, "held_out": 2, "familiar": None}
    assert card.metrics["dice"]["3"] == pytest.approx(result.metrics["dice"]["3"])
    assert card.temperature > 0
    assert network.n_branches == 2
    stages = [event["stage"] for event in events if event["event"] == "progress"]
    assert sorted(set(stages)) == ["preparing", "training", "validating"]
    assert any("dice 3" in event.get("values", {}) for event in events)


@pytest.mark.parametrize(("optimizer", "average"), [("adamw", 0.5), ("sgd", 0.0)])
def test_an_interrupted_run_resumes_exactly(a_study, a_plan, tmp_path, optimizer, average):
    a_plan = dataclasses.replace(a_plan, optimizer=optimizer, average=average)
    whole = train(a_plan, a_study, tmp_path / "whole", cache=tmp_path / "cache")
    steps = iter(range(100))
    part = train(a_plan, a_study, tmp_path / "part", cache=tmp_path / "cache", should_stop=lambda: next(steps) >= 5)
    assert part.stopped
    assert part.iterations == 5
    assert part.model_folder is None
    rest = train(a_plan, a_study, tmp_path / "part", cache=tmp_path / "cache", resume=True)
    assert rest.iterations == whole.iterations == 12
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "part"))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads which files are mapped from Linux")
def test_a_resumed_run_and_a_loaded_model_keep_no_file_mapped(a_study, a_plan, tmp_path):
    """Windows replaces and removes no file that is mapped: the next checkpoint of a resumed run would fail."""
    done = train(a_plan, a_study, tmp_path, cache=tmp_path / "cache")
    network = load_model(done.model_folder)
    run = TrainingRun(a_plan, cache_cases(a_study, a_plan, tmp_path / "cache"), tmp_path, torch.device("cpu"), World())
    run.prepare(None, True)
    assert network and run.optimizer.state
    assert "safetensors" not in "".join(
        line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line
    )


def test_the_saved_weights_are_the_mean_of_the_last_steps(a_study, a_plan, tmp_path):
    plan = dataclasses.replace(a_plan, average=0.25, method="supervised")  # of 12 steps: the mean goes back 3
    run = TrainingRun(plan, cache_cases(a_study, plan, tmp_path / "cache"), tmp_path, torch.device("cpu"), World())
    run.prepare(None, False)
    name, weights = next(iter(run.network.state_dict().items()))
    batch, mean = next(run.batches(3)), weights.clone()
    for step in range(5):
        run.step(batch)
        run.schedule.step(1.0)
        keep = min(1 - 1 / (step + 1), 1 - 1 / 3)
        mean = keep * mean + (1 - keep) * weights
    learned = run.learned.state_dict()
    assert torch.allclose(learned[name], mean, atol=1e-6) and not torch.equal(learned[name], weights)


def test_a_step_of_sgd_moves_the_weights_against_the_gradient(a_study, a_plan, tmp_path):
    plan = dataclasses.replace(a_plan, optimizer="sgd", learning_rate=0.01, weight_decay=0.0, method="supervised")
    run = TrainingRun(plan, cache_cases(a_study, plan, tmp_path / "cache"), tmp_path, torch.device("cpu"), World())
    run.prepare(None, False)
    batch, before, momentum = next(run.batches(3)), [p.clone() for p in run.network.parameters()], None
    for share in (1.0, (1 - 1 / 12) ** 0.9):
        run.step(batch)
        run.schedule.step(1.0)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in run.network.parameters()]
        momentum = gradients if momentum is None else [0.9 * m + g for m, g in zip(momentum, gradients, strict=True)]
        before = [b - 0.01 * share * m for b, m in zip(before, momentum, strict=True)]
        assert all(torch.allclose(b, p, atol=1e-6) for b, p in zip(before, run.network.parameters(), strict=True))


def test_the_same_seed_gives_the_same_model_with_and_without_loader_processes(a_study, a_plan, tmp_path):
    for workers in (0, 1):
        plan = dataclasses.replace(a_plan, loader_workers=workers)
        train(plan, a_study, tmp_path / str(workers), cache=tmp_path / "cache")
    assert same(weights(tmp_path / "0"), weights(tmp_path / "1"))
    train(dataclasses.replace(a_plan, seed=1), a_study, tmp_path / "other", cache=tmp_path / "cache")
    assert not same(weights(tmp_path / "0"), weights(tmp_path / "other"))


def test_a_warm_start_begins_where_the_parent_ended(a_study, a_plan, tmp_path):
    parent = train(dataclasses.replace(a_plan, iterations=40), a_study, tmp_path / "parent", cache=tmp_path / "cache")
    short = dataclasses.replace(a_plan, iterations=2, learning_rate=1e-6)
    child = train(short, a_study, tmp_path / "child", cache=tmp_path / "cache", warm_start=parent.model_folder)
    assert child.metrics["mean_dice"] == pytest.approx(parent.metrics["mean_dice"], abs=0.02)
    assert load_model(child.model_folder)[0].parent == load_model(parent.model_folder)[0].id


def test_a_budget_in_minutes_is_used_up_and_the_learning_rate_falls_with_it(a_study, a_plan, tmp_path, monkeypatch):
    """The second half of the steps takes four times as long: fewer steps fit, and all still end together."""
    real, rates, began = train_module.TrainingRun.step, [], time.monotonic()

    def step(run, batch):
        losses = real(run, batch)
        rates.append(run.optimizer.param_groups[0]["lr"] / run.plan.learning_rate)
        time.sleep(0.2 if time.monotonic() - began > 5 else 0.05)
        return losses

    monkeypatch.setattr(train_module.TrainingRun, "step", step)
    events = []
    plan = dataclasses.replace(a_plan, minutes=1 / 6, iterations=100_000)
    result = train(plan, a_study, tmp_path, progress=Progress(events.append))
    assert 10 < result.iterations < 190
    assert rates == sorted(rates, reverse=True) and rates[0] == 1 and rates[-1] < 0.15
    training = [event for event in events if event.get("stage") == "training"]
    assert training[-1]["fraction"] > 0.9
    assert load_model(result.model_folder)[0].settings["iterations"] == result.iterations


def test_the_last_validation_goes_on_with_the_number_of_threads_that_the_steps_have_found(
    a_study, a_plan, tmp_path, monkeypatch
):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    before, real, used = torch.get_num_threads(), BranchPair.logits, []

    def logits(network, x, branches):
        used.append(torch.get_num_threads())
        return real(network, x, branches)

    monkeypatch.setattr(BranchPair, "logits", logits)
    torch.set_num_threads(4)
    try:
        cases = cache_cases(a_study, a_plan, tmp_path / "cache")
        run = TrainingRun(a_plan, cases, tmp_path, torch.device("cpu"), World())
        run.prepare(None, False)
        run.threads.chosen = 1
        run._validate()
        assert set(used) == {1} and torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_a_training_that_diverges_goes_on_from_its_last_checkpoint_at_half_the_rate(
    a_study, a_plan, tmp_path, monkeypatch
):
    monkeypatch.setattr(train_module, "CHECKPOINT_SECONDS", 0.0)
    plan = dataclasses.replace(a_plan, iterations=12)
    real, calls = train_module.TrainingRun.step, []

    def step(run, batch):
        calls.append(run.iteration)
        if run.iteration >= 6 and run.plan.learning_rate == plan.learning_rate:
            batch.weak[:] = float("nan")
        return real(run, batch)

    monkeypatch.setattr(train_module.TrainingRun, "step", step)
    events = []
    result = train(plan, a_study, tmp_path, progress=Progress(events.append))
    said = [event["message"] for event in events if event["event"] == "log"]
    assert said == ["The training diverged: it goes on from its last checkpoint with half the learning rate."]
    assert calls == [*range(10), *range(6, 12)]
    assert result.plan.learning_rate == plan.learning_rate / 2 and result.model_folder.is_dir()
    assert json.loads((tmp_path / "plan.json").read_text())["learning_rate"] == plan.learning_rate / 2


def test_a_training_that_diverges_again_and_again_ends_as_failed(a_study, a_plan, tmp_path):
    events = []
    with pytest.raises(ModelError, match="diverges") as error:
        plan = dataclasses.replace(a_plan, iterations=30, learning_rate=1e30)
        train(plan, a_study, tmp_path, progress=Progress(events.append))
    assert "learning_rate" in error.value.remedy
    assert len([event for event in events if event["event"] == "log"]) == train_module.RESCUES
    assert not (tmp_path / "model").exists()


def test_out_of_memory_shrinks_the_batch_then_the_patch_and_says_so(a_study, a_plan, tmp_path, monkeypatch):
    real = train_module.TrainingRun.step
    asked = []

    def step(run, batch):
        asked.append((len(batch.weak), run.plan.patch))
        if len(batch.weak) > 2 or run.plan.patch[2] > 14:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(run, batch)

    monkeypatch.setattr(train_module.TrainingRun, "step", step)
    events = []
    result = train(a_plan, a_study, tmp_path, progress=Progress(events.append))
    said = [event["message"] for event in events if event["event"] == "log"]
    assert said[0] == "Out of memory: the batch shrinks from 2 + 2 to 1 + 1 patches."
    assert all("the patch shrinks" in message for message in said[1:])
    assert result.plan.patch[2] <= 14
    assert json.loads((tmp_path / "plan.json").read_text())["batch_labelled"] == 1

    def never(run, batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(train_module.TrainingRun, "step", never)
    with pytest.raises(DeviceError, match="too small even for the smallest patch"):
        train(a_plan, a_study, tmp_path / "never")


def test_views_are_aligned_and_fixed_by_seed_iteration_and_slot(a_study, a_plan, tmp_path):
    cases = cache_cases(a_study, a_plan, tmp_path)
    one, two = Patches(a_plan, cases)[7], Patches(a_plan, cases)[7]
    assert torch.equal(one.weak, two.weak)
    assert torch.equal(one.strong, two.strong)
    assert tuple(one.weak.shape) == (4, 1, 16, 16, 16)
    assert tuple(one.label.shape) == (2, 16, 16, 16)
    batches = [Patches(a_plan, cases)[n] for n in range(10)]
    weak, strong = (torch.cat([getattr(b, view).flatten() for b in batches]) for view in ("weak", "strong"))
    assert torch.corrcoef(torch.stack([weak, strong]))[0, 1] > 0.85
    assert not torch.equal(weak, strong)


def test_label_and_image_of_a_patch_stay_together(a_study, a_plan, tmp_path):
    case = cache_cases(a_study, a_plan, tmp_path)[0]
    for seed in range(20):
        image, classes, _ = cut_patch(case, a_plan, np.random.default_rng(seed), labelled=True)
        ball = classes == 1
        assert set(classes.unique().tolist()) <= {0, 1}
        if ball.sum() > 50:
            assert image[0][ball].mean() > image[0][~ball].mean() + 1.0


def test_an_unturned_patch_is_the_scan_itself(a_study, a_plan, tmp_path):
    plan = dataclasses.replace(a_plan, rotate_degrees=(0, 0, 0), scale=1.0, mirror_axes=(), patch=SHAPE)
    case = cache_cases(a_study, a_plan, tmp_path)[0]
    image, classes, _ = cut_patch(case, plan, np.random.default_rng(0), labelled=True)
    assert np.allclose(image.numpy(), case.image.astype(np.float32), atol=1e-3)
    assert np.array_equal(classes.numpy(), case.classes)


def test_all_cases_take_their_turn(a_study, a_plan, tmp_path):
    cases = cache_cases(a_study, a_plan, tmp_path)
    patches = Patches(a_plan, cases)
    assert patches.wanted == (2, 2)
    assert [len(pool) for pool in patches.pools] == [2, 3]
    assert len(Patches(a_plan, cases, unlabelled=False)[0].weak) == 2


def test_new_cases_take_their_share_and_the_old_ones_stay(a_study, a_plan, tmp_path):
    cases = cache_cases(a_study, a_plan, tmp_path)
    taught = [case for case in cases if case.labelled and not case.held_out]
    many = [replace(taught[0], id=f"old {n}") for n in range(6)] + [replace(taught[1], id="new", is_new=True)]

    def drawn(share):
        (pool, _untouched) = Patches(replace(a_plan, new_share=share), many).pools
        return [case.id for case in pool].count("new"), len(pool)

    assert drawn(0.0) == (1, 7) and drawn(0.1) == (1, 7)
    assert drawn(0.5) == (6, 12) and drawn(0.75) == (18, 24)
    only = [replace(case, is_new=True) for case in taught]
    assert len(Patches(replace(a_plan, new_share=0.5), only).pools[0]) == 2, "nothing old to keep"


def test_cases_that_cannot_teach_are_one_sentence(a_study, a_plan, tmp_path):
    untouched = [dataclasses.replace(case, label=None) for case in a_study]
    with pytest.raises(InputError, match="No outlined case"):
        train(a_plan, untouched, tmp_path)
    empty = write(tmp_path, "empty", np.zeros(SHAPE, np.uint8))
    with pytest.raises(InputError, match="All outlined cases are empty"):
        train(a_plan, [dataclasses.replace(case, label=empty) for case in a_study[:3]], tmp_path)
    gone = dataclasses.replace(a_study[0], images=[tmp_path / "gone.nii.gz"])
    with pytest.raises(InputError, match=r"gone\.nii\.gz of case case_0 is missing"):
        train(a_plan, [gone], tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="numbers of POSIX")
def test_a_checkpoint_on_a_full_disk_is_one_sentence(a_plan, tmp_path, monkeypatch):
    def full(*_arguments):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    run = TrainingRun(a_plan, [], tmp_path, torch.device("cpu"), World())
    run.prepare(None, False)
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(StorageError, match="The disk is full"):
        run._save_checkpoint()


def test_a_damaged_checkpoint_is_one_sentence(a_study, a_plan, tmp_path):
    train(a_plan, a_study, tmp_path, should_stop=lambda: True)
    content = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="missing or damaged"):
        train(a_plan, a_study, tmp_path, resume=True)


_PROCESS = """
import json, sys
from pathlib import Path
import torch
from barl import methods
from barl.networks.branches import build_network
from barl.training.cases import CaseFiles, cache_cases
from barl.training.distributed import JoinedNetwork, World, sum_gradients
from barl.training.patches import Patches
from barl.training.plan import Plan

folder = Path(sys.argv[1])
plan = Plan.from_json(json.loads((folder / "plan.json").read_text()))
cases = [CaseFiles(c["id"], [Path(p) for p in c["images"]], c["label"] and Path(c["label"]), c["held_out"],
                   c["looked"] and Path(c["looked"]), c["uncertainty"] and Path(c["uncertainty"]))
         for c in json.loads((folder / "cases.json").read_text())]
world = World.join(torch.device("cpu"))
batch = Patches(plan, cache_cases(cases, plan, folder / "cache"), True, world.rank, world.size)[3]
# In double precision: in single precision, the order of sums moves the gradients by 1e-5.
torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double
for part, values in vars(batch).items():
    if values is not None and values.is_floating_point():
        setattr(batch, part, values.double())
network = build_network(plan.network, 0)
joined = JoinedNetwork(network, batch) if world.size > 1 else network
whole = joined.joined() if world.size > 1 else batch
method = methods.get(plan.method)(plan.settings)
torch.manual_seed(0)
method.prepare(network)
losses = method.loss(joined, whole, 10, 12)
losses["total"].backward()
if world.size > 1:
    sum_gradients(network)
if world.rank == 0:
    from safetensors.torch import save_file
    grads = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    save_file({**grads, "total": losses["total"].detach()}, folder / f"gradients_{world.size}.safetensors")
"""


@pytest.mark.parametrize(
    ("method", "filled"),
    [
        ("barl", "both"),
        ("supervised", None),
        ("dbisl", None),
        *(pytest.param(name, None, marks=pytest.mark.slow) for name in ("ss_net", "crossmatch")),
    ],
)
def test_two_processes_give_the_gradients_of_one(a_study, a_plan, tmp_path, method, filled):
    # Which channels are dropped depends on the number of processes.
    own = {"barl": {"lesion_min_voxels": 1}, "crossmatch": {"dropout": [0.0, 0.0], "confidence": 0.0}}
    settings = own.get(method, {})
    if filled:  # one outline is partial, the rest of it filled
        mask = np.zeros(SHAPE, np.uint8)
        mask[8:12] = 1
        unsure = write(tmp_path, "unsure", np.full(SHAPE, 0.4, np.float32))
        partial = dataclasses.replace(a_study[0], looked=write(tmp_path, "looked", mask), uncertainty=unsure)
        a_study, a_plan = [partial, *a_study[1:]], dataclasses.replace(a_plan, filled=filled)
    network = dataclasses.replace(a_plan.network, **methods.get(method)(settings).network_options())
    # Two outlined patches for each process: the joined batch keeps their order.
    plan = dataclasses.replace(a_plan, method=method, settings=settings, network=network, batch_labelled=4)
    cache_cases(a_study, plan, tmp_path / "cache")
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_json()))
    (tmp_path / "cases.json").write_text(json.dumps([dataclasses.asdict(c) for c in a_study], default=str))
    script = tmp_path / "process.py"
    script.write_text(_PROCESS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base = {**os.environ, "PYTHONPATH": str(Path(barl.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    sittings = [base, *({**base, **address, "RANK": str(r), "LOCAL_RANK": str(r)} for r in range(2))]
    running = [subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=env) for env in sittings]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    one, two = (load_file(tmp_path / f"gradients_{n}.safetensors") for n in (1, 2))
    assert one.keys() == two.keys()
    for name in one:
        assert torch.allclose(one[name], two[name], rtol=1e-9, atol=1e-12), name


def test_the_card_gets_the_cleanup_that_the_held_out_cases_speak_for(a_study, a_plan, tmp_path):
    result = train(a_plan, a_study, tmp_path)  # 12 steps: the network finds the ball and much that is none
    card, _ = load_model(result.model_folder)
    assert [row["case"] for row in result.cases] == ["case_5", "case_6"]
    assert result.pieces[3].most == 1 and result.pieces[3].outlines == 4
    assert card.cleanup == choose_cleanup(result.cases, result.pieces)
    assert {"as is", "largest", "holes"} <= set(result.cases[0]["cleanup"]["3"])
