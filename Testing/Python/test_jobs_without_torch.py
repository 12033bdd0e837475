# SPDX-License-Identifier: Apache-2.0
"""macOS on Intel, for which no PyTorch is made: everything but training and prediction works, and these say why not."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl import torch_support
from barl.cli import main
from barl.jobs.failures import explain

# Commands in a process in which PyTorch cannot be imported, on what Python takes for a Mac with an Intel processor.
INTEL_MAC = """
import contextlib, io, json, os, platform, sys
platform.system, platform.machine = lambda: "Darwin", lambda: "x86_64"
for name in ("torch", "monai", "safetensors"):
    sys.modules[name] = None
from barl.cli import main
answers = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    answers.append([code, out.getvalue() + err.getvalue()])
print(json.dumps(answers))
"""


def test_what_works_on_a_mac_with_an_intel_processor(tmp_path: Path) -> None:
    scan = np.random.default_rng(0).normal(100, 10, (12, 14, 16)).astype(np.float32)
    outline = np.zeros(scan.shape, np.uint8)
    outline[3:9, 4:10, 5:11] = 1
    drawn = outline * np.isin(np.arange(12), (3, 6, 8))[:, None, None].astype(np.uint8)
    for name, array in (("a", scan), ("b", scan + 1), ("outline", outline), ("drawn", drawn)):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"{name}.nii.gz"))
    p, a, b, whole = (str(tmp_path / name) for name in ("p", "a.nii.gz", "b.nii.gz", "whole.nii.gz"))
    label = str(tmp_path / "outline.nii.gz")
    works = [
        ["project", "new", p, "--label", "1=tumor"],
        ["add", p, a, "--label", label, "--name", "a"],
        ["add", p, b, "--name", "b"],
        ["fill", b, str(tmp_path / "drawn.nii.gz"), "--output", whole],
        ["project", "accept", p, "b", whole],
        ["project", "history", p],
        ["project", "verify", p],
        ["export", p, str(tmp_path / "out")],
    ]
    fails = [["train", p, "--plan"], ["train", p, "--minutes", "1"], ["predict", p], ["evaluate", p]]
    command = [sys.executable, "-c", INTEL_MAC, json.dumps(works + fails)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answers = json.loads(done.stdout)
    assert [code for code, _ in answers] == [0] * len(works) + [5] * len(fails), answers
    for _, text in answers[len(works) :]:
        assert "PyTorch 2.2.2 is the last one for macOS on Intel" in text and "another computer" in text


def test_a_pytorch_that_is_too_old_is_named(repository, monkeypatch, tmp_path: Path, capsys) -> None:
    import torch

    declared = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert f"torch>={torch_support.LOWEST}" in declared["engine"]
    assert [torch_support.is_too_old(v) for v in ("2.2.2", "2.4.0", "2.4.1", "2.13.0+cpu", "3.0.0a0+git1")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    monkeypatch.setattr(torch, "__version__", "2.3.1+cpu")
    model = Path(torch_support.__file__).parents[1] / "Resources" / "Models" / "hippocampus"
    sitk.WriteImage(sitk.Image((20, 20, 20), sitk.sitkInt16), str(tmp_path / "a.nii.gz"))
    words = ["predict", "--model", str(model), "--output", str(tmp_path / "o.nii.gz"), str(tmp_path / "a.nii.gz")]
    assert main(words) == 5
    assert "PyTorch 2.3.1+cpu is too old: 2.4.1 or newer is needed" in capsys.readouterr().err


@pytest.mark.parametrize("system", [("Darwin", "arm64"), ("Linux", "x86_64"), ("Windows", "AMD64")])
def test_other_computers_can_have_pytorch(system) -> None:
    assert torch_support.reason_against(*system) == ""
    error = explain(ModuleNotFoundError("No module named 'torch'", name="torch"))
    assert "torch" in error.message and "install" in error.remedy
