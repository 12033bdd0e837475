# SPDX-License-Identifier: Apache-2.0
"""``barl predict --output``: files named after their cases, for a project and for a folder of scans."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.cli import main
from barl.errors import InputError
from barl.jobs.outputs import Output
from barl.project.labels import Label
from barl.project.names import file_names
from barl.project.store import Project


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A project with a model, and a folder ``scans`` with two scans and a text."""
    with zipfile.ZipFile(Path(__file__).parent / "data" / "project-of-0.1.0.zip") as packed:
        packed.extractall(tmp_path)
    shutil.copy(
        tmp_path / "project" / "cases" / "case_0001" / "image_CT.nii.gz", tmp_path / "scans" / "other one.nii.gz"
    )
    (tmp_path / "scans" / "readme.txt").write_text("no scan")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def barl(capsys, *words, code: int = 0) -> dict:
    assert main([*map(str, words), "--json"]) == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_cases_of_a_project_are_written_under_their_names(place, capsys):
    with Project.open("project") as project:
        project.cases.rename("case_0006", "left/knee: no. 6")
    words = ["predict", "project", "--device", "cpu", "--output", "maps", "--probabilities", "--uncertainty"]
    done = barl(capsys, *words)["cases"]
    names = {path.name for path in Path("maps").iterdir()}
    assert {"left_knee_no._6.nii.gz", "left_knee_no._6_uncertainty.nii.gz"} < names
    assert sum("_probability_" in name for name in names) == 2 * len(done) and len(names) == 4 * len(done) == 8
    for case in done:
        label, doubt, *probabilities = case["written"]
        assert np.array_equal(read(label), read(case["label"])), "the same as the project keeps"
        for value, path in zip((volume["value"] for volume in case["volumes"]), probabilities, strict=True):
            assert path.endswith(f"_probability_{value}.nii.gz")
            assert (read(path)[read(label) == value] > 0.33).all(), "the likeliest of three"
        assert read(doubt).min() >= 0 and read(doubt).max() <= 1
    refused = barl(capsys, *words, code=2)["error"]
    assert "already" in refused["message"] and "--overwrite" in refused["remedy"]
    barl(capsys, *words, "--overwrite")
    assert main(["predict", "project", "--device", "cpu", "--output", "others"]) == 0
    assert str(Path("others") / "left_knee_no._6.nii.gz") in capsys.readouterr().out


def test_a_folder_of_scans_is_predicted_with_a_model(place, capsys):
    Path("scans/broken.nii.gz").write_bytes(b"nothing")
    words = ["predict", "scans", "--model", "project/models/model_0001", "--device", "cpu"]
    assert "--output" in barl(capsys, *words, code=2)["error"]["remedy"]
    assert "among the scans" in barl(capsys, *words, "--output", "scans", code=2)["error"]["message"]
    result = barl(capsys, *words, "--output", "maps", "--uncertainty", code=2)
    assert [case["name"] for case in result["cases"]] == ["other one", "shape5"]
    assert [item["name"] for item in result["failed"]] == ["broken"] and result["failed"][0]["remedy"]
    assert {path.name for path in Path("maps").iterdir()} == {
        "other_one.nii.gz", "other_one_uncertainty.nii.gz", "shape5.nii.gz", "shape5_uncertainty.nii.gz"
    }  # fmt: skip
    one = barl(capsys, *["predict", "scans/shape5.nii.gz", *words[2:], "--output", "one.nii.gz"])
    assert np.array_equal(read(one["label"]), read(Path("maps/shape5.nii.gz")))


def test_a_single_scan_is_predicted_over_nothing_that_is_there(place, capsys):
    scan, drawn = Path("scans/shape5.nii.gz"), Path("drawn.nii.gz")
    shutil.copy("project/cases/case_0001/image_CT.nii.gz", drawn)
    before = scan.read_bytes(), drawn.read_bytes()
    words = ["predict", scan, "--model", "project/models/model_0001", "--device", "cpu"]
    for outputs, said in (
        (["--output", drawn], "'drawn.nii.gz' is there already"),
        (["--output", "new.nii.gz", "--uncertainty", drawn], "'drawn.nii.gz' is there already"),
        (["--output", "new.nii.gz", "--uncertainty", scan, "--overwrite"], "'shape5.nii.gz' is read here"),
        (["--output", "new.nii.gz", "--uncertainty", "new.nii.gz"], "Two outputs would be called 'new.nii.gz'"),
    ):
        assert said in barl(capsys, *words, *outputs, code=2)["error"]["message"]
        assert (scan.read_bytes(), drawn.read_bytes()) == before and not Path("new.nii.gz").exists()
    barl(capsys, *words, "--output", drawn, "--overwrite")
    assert scan.read_bytes() == before[0] and set(np.unique(read(drawn))) <= {0, 1, 2, 3}


def test_options_that_do_not_go_together_are_refused_before_the_work(place, capsys):
    model = ["--model", "project/models/model_0001"]
    for words, said in (
        (["project", "--uncertainty"], "go with --output"),
        (["scans", "--output", "maps"], "needs a model"),
        (["nowhere", "--output", "maps"], "no project or scan"),
        (["scans/shape5.nii.gz", *model], "needs a file"),
        (["scans/shape5.nii.gz", *model, "--output", "x.nii.gz", "--probabilities"], "projects and folders"),
        (["project", "--output", "maps", "--uncertainty", "u.nii.gz"], "there may be many"),
        (["scans", *model, "--output", "scans/readme.txt"], "is a file"),
    ):
        assert said in barl(capsys, "predict", *words, code=2)["error"]["message"], words


def test_names_of_files_are_unique_and_fit_every_system():
    names = file_names(["a/b", "a:b", "A_B", "..", "Knie 3 ä", "x"])
    assert list(names.values()) == ["a_b", "a_b_2", "A_B_3", "case", "Knie_3_ä", "x"]
    names = file_names(["CON", "aux.1", "console", "\u540d" * 120, "\u540d" * 119])
    assert list(names.values())[:3] == ["case_CON", "case_aux.1", "console"]
    assert [len(name.encode()) for name in list(names.values())[3:]] == [198, 200] and len(set(names.values())) == 5


def test_no_file_takes_the_name_of_another(tmp_path):
    labels, names = [Label(1, "a")], ["x", "x_uncertainty"]
    assert list(Output(tmp_path / "o").prepare(names, labels)) == names
    with pytest.raises(InputError, match=r"called x_uncertainty.nii.gz"):
        Output(tmp_path / "o", uncertainty=True).prepare(names, labels)
