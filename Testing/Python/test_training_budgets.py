# SPDX-License-Identifier: Apache-2.0
"""Each named plan, on the CPU: it trains a step, saves a model, and the model predicts."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from barl.images.fingerprint import fingerprint_case
from barl.inference.predictor import Predictor
from barl.project.labels import Label
from barl.training.budgets import BUDGETS, EFFORTS
from barl.training.cases import CaseFiles
from barl.training.loop import train
from barl.training.plan import make_plan


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
