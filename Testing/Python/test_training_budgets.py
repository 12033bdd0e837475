# SPDX-License-Identifier: Apache-2.0
"""Each named plan, on the CPU: it trains a step, saves a model, and the model predicts."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from barl import methods
from barl.images.fingerprint import fingerprint_case
from barl.inference.predictor import Predictor
from barl.networks.branches import build_network
from barl.project.labels import Label
from barl.training.budgets import BUDGETS, EFFORTS
from barl.training.cases import CaseFiles
from barl.training.loop import train
from barl.training.plan import Plan, make_plan


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> list[CaseFiles]:
    """One outlined scan and an untouched one."""
    folder = tmp_path_factory.mktemp("cases")
    rng, found = np.random.default_rng(0), []
    label = np.zeros((33, 34, 36), np.uint8)
    label[10:20, 10:22, 10:22] = 1
    for n in range(2):
        files = [folder / f"{kind}{n}.nii.gz" for kind in ("image", "label")]
        scan = rng.normal(100, 10, label.shape).astype(np.float32) + 40 * label
        for file, array in zip(files, (scan, label), strict=True):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(file))
        found.append(CaseFiles(f"case_{n}", [files[0]], None if n else files[1]))
    return found


@pytest.mark.parametrize(
    ("device", "effort"),
    [
        pytest.param(device, effort, marks=[pytest.mark.slow] if budgets[effort].widths[0] > 16 else [])
        for device, budgets in BUDGETS.items()
        for effort in EFFORTS
    ],
)
def test_each_plan_trains_a_step_and_predicts(cases, tmp_path, device, effort):
    """With patches as small as these scans: what a step takes of memory is measured by ``plan_memory.py``."""
    scan = sitk.ReadImage(str(cases[0].images[0]))
    overrides = {"iterations": 1, "validations": 0, "loader_workers": 0, "patch": [32, 32, 32]}
    plan = make_plan([fingerprint_case([scan], None, [1])], [Label(1, "Box")], ["MR"], device, None, overrides, effort)
    assert plan.network.widths == BUDGETS[device][effort].widths and plan.method == "barl"
    result = train(plan, cases, tmp_path, device="cpu")
    assert result.iterations == 1 and result.model_folder is not None
    prediction = Predictor.load(result.model_folder, "cpu").predict([scan])
    assert prediction.label.GetSize() == scan.GetSize()
    assert 0 <= prediction.case_uncertainty <= 1


def test_a_model_with_several_blocks_per_level_is_saved_and_read(cases, tmp_path):
    scan = sitk.ReadImage(str(cases[0].images[0]))
    overrides = {"iterations": 1, "validations": 0, "patch": [16, 16, 16], "widths": [4, 8], "blocks": [1, 3]}
    plan = make_plan([fingerprint_case([scan], None, [1])], [Label(1, "Box")], ["MR"], overrides=overrides)
    result = train(plan, cases, tmp_path, device="cpu")
    assert result.model_folder is not None
    predictor = Predictor.load(result.model_folder, "cpu")
    assert predictor.network.spec.blocks == (1, 3) and predictor.predict([scan]).label.GetSize() == scan.GetSize()


def kept_bytes(plan: Plan) -> int:
    """What a step of the plan keeps for its backward pass, weights in half precision included."""
    network, method = build_network(plan.network, seed=0), methods.get(plan.method)()
    method.prepare(network)
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address comes twice

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    views = torch.randn(plan.batch_labelled + plan.batch_unlabelled, 1, *plan.patch)
    label = torch.randint(0, 2, (plan.batch_labelled, *plan.patch))
    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        loss = method.loss(network, methods.Batch(views, views + 0.1, label), 500, 1000)["total"]
        assert loss.requires_grad
        return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.slow
@pytest.mark.parametrize("gib", [8, 16, 24])
def test_a_step_of_a_gpus_plan_fits_the_memory_that_it_is_made_for(cases, gib):
    """The figures of the budget, checked at two small patches; its own patch would need the memory itself."""
    scan = sitk.Image(512, 512, 300, sitk.sitkInt16)
    prints = [fingerprint_case([scan + 1], None, [1])]
    plan = make_plan(prints, [Label(1, "Box")], ["CT"], "cuda", gib * 2**30)
    budget = BUDGETS["cuda"]["standard"]
    one = {"batch_labelled": 1, "batch_unlabelled": 1}
    small = make_plan(prints, [Label(1, "Box")], ["CT"], "cuda", None, {"patch": [32, 32, 64], **one})
    strides = {"strides": small.network.strides}
    larger = make_plan(prints, [Label(1, "Box")], ["CT"], "cuda", None, {"patch": [32, 64, 64], **one, **strides})
    slope = (kept_bytes(larger) - kept_bytes(small)) / (32 * 64 * 32) / 4
    assert 1.3 * slope < budget.voxel_bytes < 2 * slope
    weights = sum(p.numel() for p in build_network(plan.network).parameters())
    assert 18 * weights < budget.fixed_bytes < 25 * weights
    patches = 2 * (plan.batch_labelled + plan.batch_unlabelled)
    assert 18 * weights + 1.4 * slope * np.prod(plan.patch) * patches < 0.9 * gib * 2**30
