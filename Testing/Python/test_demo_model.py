# SPDX-License-Identifier: Apache-2.0
"""The small hippocampus model that comes along: it loads, predicts at once, and says whose data it saw."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.evaluation.metrics import dice
from barl.images.geometry import Grid
from barl.images.label_maps import read_label
from barl.images.reading import read_image
from barl.inference.predictor import Predictor
from barl.project.model_card import read_card

MODEL = Path(__file__).resolve().parents[2] / "BARLSegmentation" / "Resources" / "Models" / "hippocampus"
MiB = 2**20


def test_it_is_small_and_its_card_names_license_and_data():
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= 4 * MiB
    card = read_card(MODEL)
    assert card.licence == "CC BY-SA 4.0"
    for work in ("arXiv:1902.09063", "Nature Communications 13:4128", "Medical Segmentation Decathlon"):
        assert work in card.notes
    assert [label.value for label in card.labels] == [1, 2]
    readme = (MODEL / "README.md").read_text(encoding="utf-8")
    assert "CC BY-SA 4.0" in readme
    # What the README says it scores is what the card says.
    assert float(re.search(r"mean Dice (0\.\d+)", readme)[1]) == pytest.approx(card.metrics["mean_dice"], abs=6e-4)


def test_it_predicts_a_synthetic_volume():
    """Smooth noise with a bright banana in it: nothing to be right about, but the whole way is walked."""
    rng = np.random.default_rng(0)
    k, j, i = np.indices((30, 46, 34))
    banana = np.exp(-(((k - 15) / 5) ** 2 + ((i - 17 - 0.02 * (j - 23) ** 2) / 4) ** 2))
    scan = sitk.GetImageFromArray((300 + 200 * banana + 20 * rng.standard_normal(k.shape)).astype(np.float32))
    scan.SetOrigin((5.0, -20.0, 8.0))
    prediction = Predictor.load(MODEL, device="cpu").predict([scan])
    assert Grid.of(prediction.label).matches(Grid.of(scan))
    assert set(np.unique(sitk.GetArrayFromImage(prediction.label))) <= {0, 1, 2}
    uncertainty = sitk.GetArrayFromImage(prediction.uncertainty)
    assert 0 <= uncertainty.min() <= uncertainty.max() <= 1
    assert [volume.name for volume in prediction.volumes] == ["Anterior hippocampus", "Posterior hippocampus"]


def test_it_segments_real_cases_that_it_has_not_learned_from(data_dir, monkeypatch):
    if not (data_dir / "hippocampus").is_dir():
        pytest.skip("the folder that BARL_DATA names has no hippocampus/")
    from barl.benchmark import datasets

    monkeypatch.setenv("BARL_DATA", str(data_dir))
    predictor = Predictor.load(MODEL, device="cpu")
    cases = datasets.load("hippocampus").part("tuning")[:4]
    for case in cases:
        scan = read_image(case.images[0])
        truth = sitk.GetArrayFromImage(read_label(case.label, Grid.of(scan), [1, 2]))
        predicted = sitk.GetArrayFromImage(predictor.predict([scan]).label)
        assert np.mean([dice(predicted, truth, value) for value in (1, 2)]) > 0.8
