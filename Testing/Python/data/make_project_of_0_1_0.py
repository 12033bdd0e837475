# SPDX-License-Identifier: Apache-2.0
"""Makes ``project-of-0.1.0.zip``: a project as version 0.1.0 wrote it, and what 0.1.0 answers about it.

Run with the code of 0.1.0 (commit 5d775ac), not with today's::

    PYTHONPATH=CHECKOUT_OF_0.1.0/BARLSegmentation python make_project_of_0_1_0.py

The scans are synthetic. Of seven cases three are outlined, one is outlined and held out, two are predicted and one is
excluded. ``model_0001`` (BARL) is current, ``model_0002`` is of the peer method CPS, and ``run_0003`` was stopped after
5 of 40 steps. ``expected`` holds the label maps that 0.1.0 predicts with each model and, in ``expected.json``, the
answers of its command line and the end of ``run_0003`` in a copy that was resumed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from barl import __version__
from barl.cli import main
from barl.jobs.runs import RunFolder

TINY = ["--device", "cpu", "--set", "widths=[4,8]", "--set", "patch=[16,16,16]", "--set", "loader_workers=0"]
STOPPED_AFTER = 5


def barl(*words: object) -> dict:
    """The JSON document that a command answers."""
    answer = io.StringIO()
    with contextlib.redirect_stdout(answer):
        code = main([*map(str, words), "--json"])
    document = json.loads(answer.getvalue())
    assert code in (0, 130), document
    return document


def write_shape(seed: int, scan: Path, outline: Path | None) -> None:
    """A bright ball (label 1) and a dark box (label 2) in a volume of 24^3 voxels, on a rotated grid."""
    rng = np.random.default_rng(seed)
    k, j, i = np.indices((24, 24, 24))
    ck, cj, ci = rng.uniform(8, 10, 3)
    ball = (k - ck) ** 2 + (j - cj) ** 2 + (i - ci) ** 2 < 30
    box = (abs(k - 18) < 4) & (abs(j - 17) < 4) & (abs(i - rng.uniform(15, 18)) < 4)
    intensities = 60 + 60 * ball - 50 * box + rng.integers(0, 12, ball.shape)
    for path, array in ((scan, intensities.astype(np.int16)), (outline, (ball + 2 * box).astype(np.uint8))):
        if path is not None:
            image = sitk.GetImageFromArray(array)
            c, s = np.cos(0.2), np.sin(0.2)
            image.SetDirection((-c, s, 0, -s, -c, 0, 0, 0, 1))
            image.SetSpacing((1.0, 1.0, 1.2))
            sitk.WriteImage(image, str(path), True)


def stop_after(steps: int) -> None:
    """Have the next training see a wish to stop at its step ``steps``, as if a user had stopped it there."""
    asked = iter(range(steps + 1))
    RunFolder.stop_asked = lambda folder: next(asked) >= steps


def make_project(place: Path) -> None:
    """The project of the module's docstring in ``place / "project"``."""
    (place / "scans").mkdir()
    (place / "outlines").mkdir()
    for number in range(7):
        name = f"shape{number}.nii.gz"
        write_shape(number, place / "scans" / name, place / "outlines" / name if number < 4 else None)
    barl("project", "new", "project", "--label", "1=ball", "--label", "2=box", "--channel", "CT", "--name", "shapes")
    barl("add", "project", "--images", "scans", "--labels", "outlines")
    barl("project", "mark", "project", "shape3", "--held-out", "yes")
    barl("project", "mark", "project", "shape6", "--exclude")
    barl("train", "project", "--iterations", 150, *TINY)
    barl("predict", "project", "shape4", "shape5", "--device", "cpu")
    barl("train", "project", "--method", "cps", "--iterations", 20, "--from-scratch", *TINY)
    asked = RunFolder.stop_asked
    stop_after(STOPPED_AFTER)
    stopped = barl("train", "project", "--iterations", 40, "--device", "cpu", "--set", "loader_workers=0")
    RunFolder.stop_asked = asked
    assert stopped["run"] == "run_0003" and stopped["state"] == "stopped"
    # To keep the archive small: cache entries are of use at this very path only, nothing reads what else goes.
    for left_over in (*Path("project/runs").glob("*/cache"), *Path("project/runs").glob("*/model")):
        shutil.rmtree(left_over)
    for path in (*Path("project/runs").glob("run_000[12]/checkpoint.*"), Path("project/project.backup.db")):
        path.unlink()


def expected(place: Path) -> dict:
    """What 0.1.0 answers; its predictions go to ``place / "expected"``."""
    (place / "expected").mkdir()
    uncertainty = {}
    for model in ("model_0001", "model_0002"):
        output = place / "expected" / f"{model}.nii.gz"
        words = ["--model", f"project/models/{model}", "--output", output, "--device", "cpu"]
        uncertainty[model] = barl("predict", *words, "scans/shape5.nii.gz")["case_uncertainty"]
    shutil.copytree("project", "resumed")
    resumed = barl("train", "resumed", "--resume", "run_0003")
    shutil.rmtree("resumed")
    (place / "data").mkdir()
    exported = barl("export", "project", "data/set")
    shutil.rmtree("data")
    return {
        "version": __version__,
        "cases": [
            {name: case[name] for name in ("id", "name", "state", "held_out")}
            for case in barl("project", "cases", "project")["cases"]
        ],
        "models": [
            {name: model[name] for name in ("id", "name", "current", "parent")}
            for model in barl("models", "list", "project")["models"]
        ],
        "runs": [
            {name: run[name] for name in ("id", "state", "model")} for run in barl("train", "project", "--runs")["runs"]
        ],
        "dice": barl("evaluate", "project", "--device", "cpu")["mean"]["dice"]["mean"],
        "uncertainty": uncertainty,
        "resumed_dice": resumed["summary"]["metrics"]["mean_dice"],
        "exported": exported["files"],
    }


def pack(place: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for path in sorted([*place.glob("project/**/*"), *place.glob("expected/**/*"), place / "scans/shape5.nii.gz"]):
            if path.is_file() and path.suffix != ".lock":
                packed.write(path, path.relative_to(place))


if __name__ == "__main__":
    assert __version__ == "0.1.0", f"this is the code of {__version__}"
    platform.node = lambda: "clinic"  # a run names the machine it was trained on
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_project(Path(folder))
        text = json.dumps(expected(Path(folder)), indent=1)
        Path(folder, "expected", "expected.json").write_text(text, encoding="utf-8")
        pack(Path(folder), Path(__file__).with_name("project-of-0.1.0.zip"))
        os.chdir("/")
