# SPDX-License-Identifier: Apache-2.0
"""Data sets of a benchmark: the field's layouts from our own generated files, and a project's folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.benchmark import datasets
from barl.benchmark.field_metrics import field_metrics
from barl.benchmark.plans import read_plan
from barl.benchmark.tables import read_results
from barl.cli import main
from barl.errors import InputError
from barl.project.labels import Channel, Label
from barl.project.store import Project

SHAPE = (28, 24, 16)  # x, y, z as in the field's files


def a_volume(seed: int, values: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A bright box in noise, z-scored, and its label map."""
    rng = np.random.default_rng(seed)
    label = np.zeros(SHAPE, np.uint8)
    for value in range(1, values + 1):
        label[4 * value : 4 * value + 4, 6:18, 4:12] = value
    image = label + rng.normal(0, 0.3, SHAPE)
    return ((image - image.mean()) / image.std()).astype(np.float32), label


def write_h5(path: Path, image: np.ndarray, label: np.ndarray) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py reads the field's files (the benchmark extra)")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["image"], file["label"] = image, label


@pytest.fixture
def an_la_folder(tmp_path) -> Path:
    """Five training and two test scans as UA-MT distributes them; the list is not in alphabetical order."""
    folder = tmp_path / "LA"
    lists = {"train.list": ["SCAN_E", "SCAN_A", "SCAN_D", "SCAN_B", "SCAN_C"], "test.list": ["SCAN_T", "SCAN_U"]}
    for seed, name in enumerate(name for names in lists.values() for name in names):
        write_h5(folder / "2018LA_Seg_Training Set" / name / "mri_norm2.h5", *a_volume(seed))
    for file, names in lists.items():
        (folder / file).write_text("\n".join(names) + "\n")
    return folder


def test_an_la_folder_goes_through_the_la_plan(an_la_folder, tmp_path, capsys):
    plan = read_plan("la2018_half")
    plan["plans"]["la2018"] |= {"iterations": 3, "patch": [8, 8, 8], "widths": [4, 8]}
    plan["runs"][0] |= {"labelled": [2], "arms": ["supervised", "cps"]}
    plan["strides"] = {"la2018": [4, 6, 6]}
    del plan["tables"]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    results = tmp_path / "results"
    arguments = ["benchmark", str(tmp_path / "plan.json"), str(results), "--data", f"la2018={an_la_folder}"]
    assert main([*arguments, "--device", "cpu"]) == 0
    assert "la2018, 2 outlined subjects" in capsys.readouterr().out
    rows = read_results(results)
    assert {row["arm"] for row in rows} == {"supervised", "cps"}
    for row in rows:
        assert [case["case"] for case in row["cases"]] == ["SCAN_T", "SCAN_U"]
        assert row["unit"] == "voxels"
        for case in row["cases"]:
            scores = case["mean"]["1"]
            assert scores["field"]["dice"] == pytest.approx(scores["dice"])
            assert scores["field"]["jaccard"] == pytest.approx(scores["jaccard"])
    text = (results / "report" / "report.md").read_text()
    assert "95HD (voxels)" in text
    assert (results / "report" / "subjects.csv").read_text().count("\n") == 1 + 2 * len(rows)
    assert "differences_la2018_2.png" in text and (results / "report" / "differences_la2018_2.png").is_file()


def test_la_cases_keep_their_order_axes_and_split(an_la_folder, tmp_path):
    data = datasets.load("la2018", {"la2018": {"folder": str(an_la_folder)}}, tmp_path)
    for seed in (0, 1):
        outlined = [file.id for file in data.training_files(2, seed) if file.label]
        assert outlined == ["SCAN_E", "SCAN_A"]
    assert [case.id for case in data.part("test")] == ["SCAN_T", "SCAN_U"]
    assert not data.part("tuning")
    image, label = a_volume(0)
    files = data.training_files(1, 0)[0]
    scan = sitk.ReadImage(str(files.images[0]))
    assert scan.GetSize() == SHAPE
    assert scan.GetPixel(3, 5, 7) == pytest.approx(float(image[3, 5, 7]))
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(files.label))), label.transpose(2, 1, 0))
    inner = {"la2018": {"folder": str(an_la_folder / "2018LA_Seg_Training Set")}}
    assert len(datasets.load("la2018", inner, tmp_path).cases) == 7
    with pytest.raises(InputError, match="has 5 training subjects, not 6"):
        data.training_files(6, 0)


def test_the_layouts_of_pancreas_brats_and_acdc(tmp_path):
    for name, file, lists in (
        ("pancreas_ct", "Pancreas_h5/{}_norm.h5", {"train.list": ["image0002"], "test.list": ["image0001"]}),
        ("brats2019", "data/{}.h5", {"train.txt": ["A,x"], "val.txt": ["B"], "test.txt": ["C"]}),
    ):
        folder = tmp_path / name
        for list_name, names in lists.items():
            folder.mkdir(exist_ok=True)
            (folder / list_name).write_text("\n".join(names))
            for case in names:
                write_h5(folder / file.format(case.split(",")[0]), *a_volume(0, values=3))
        data = datasets.load(name, {name: {"folder": str(folder)}}, tmp_path)
        assert len(data.part("training")) == len(data.part("test")) == 1
        label = sitk.GetArrayFromImage(sitk.ReadImage(str(data.part("test")[0].label)))
        assert set(np.unique(label)) == {0, 1}  # all kinds of tumor are one
        assert label.shape == (SHAPE if name == "brats2019" else SHAPE[::-1])
    folder = tmp_path / "acdc"
    frames = [f"patient00{n}_frame0{f}" for n in range(1, 5) for f in (1, 2)]
    for case in frames:
        write_h5(folder / "data" / f"{case}.h5", *a_volume(0, values=3))
    for file, names in (("train.list", frames[:4]), ("val.list", frames[4:6]), ("test.list", frames[6:])):
        (folder / file).write_text("\n".join(names))
    data = datasets.load("acdc", {"acdc": {"folder": str(folder)}}, tmp_path)
    assert [file.id for file in data.training_files(1, 0) if file.label] == frames[:2]
    assert len(data.labels) == 3
    assert {case.group for case in data.part("tuning")} == {"patient003"}


def test_what_is_missing_is_one_sentence(an_la_folder, tmp_path, monkeypatch):
    source = {"la2018": {"folder": str(an_la_folder)}}
    (an_la_folder / "2018LA_Seg_Training Set" / "SCAN_E" / "mri_norm2.h5").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        datasets.load("la2018", source, tmp_path)
    (an_la_folder / "2018LA_Seg_Training Set" / "SCAN_E" / "mri_norm2.h5").unlink()
    with pytest.raises(InputError, match="is missing"):
        datasets.load("la2018", source, tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match="needs the package h5py"):
        datasets.load("la2018", source, tmp_path)
    (an_la_folder / "test.list").unlink()
    with pytest.raises(InputError, match=r"list test\.list .* UA-MT"):
        datasets.load("la2018", source, tmp_path)


@pytest.mark.parametrize(
    ("name", "subjects", "channels"), [("hippocampus", 170, 1), ("bonbid_hie", 56, 2), ("sts_pet", 51, 1)]
)
def test_the_real_sets_are_read_and_split_by_subject(name, subjects, channels, data_dir):
    data = datasets.load(name)
    parts = {part: data.part(part) for part in ("test", "tuning", "training")}
    assert sum(len({case.group for case in part}) for part in parts.values()) == subjects
    assert sorted(case.id for part in parts.values() for case in part) == sorted(case.id for case in data.cases)
    assert not {c.group for c in parts["test"]} & {c.group for c in parts["tuning"] + parts["training"]}
    for case in data.cases:
        assert len(case.images) == len(data.channels) == channels
        assert all(path.is_file() for path in (*case.images, case.label))


def test_a_project_is_a_data_set(tmp_path):
    labels = [Label(1, "Box")]
    with Project.create(tmp_path / "study", "study", labels, [Channel("T1")]) as project:
        for n in range(6):
            image, label = a_volume(n)
            paths = [tmp_path / f"{kind}_{n}.mha" for kind in ("image", "label")]
            for path, array in zip(paths, (image, label), strict=True):
                sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
            project.cases.add(f"scan {n}", [paths[0]], label=paths[1] if n != 5 else None, held_out=n < 2)
        names = {case.id: case.name for case in project.cases.all()}
    source = {"knees": {"reader": "project", "folder": str(tmp_path / "study")}}
    data = datasets.load("knees", source)
    assert [names[case.id] for case in data.part("test")] == ["scan 0", "scan 1"]
    files = data.training_files(2, seed=0)
    assert len(files) == 4 and sum(file.label is not None for file in files) == 2
    chosen = {tuple(f.id for f in data.training_files(1, seed) if f.label) for seed in range(8)}
    assert len(chosen) > 1  # the seed draws the outlined cases
    assert all(names[file.id] != "scan 5" for file in data.training_files(None, 0) if file.label)
    drawn = datasets.load("knees", {"knees": {**source["knees"], "test": 3}})
    assert len(drawn.part("test")) == 3
    assert not {c.id for c in drawn.part("test")} & {c.id for c in drawn.part("training")}
    with Project.open(tmp_path / "study") as project:
        for case in project.cases.all():
            project.cases.set_held_out(case.id, False)
    with pytest.raises(InputError, match="no outlined cases to test on"):
        datasets.load("knees", source)


def test_the_fields_metrics_are_those_of_their_definition():
    rng = np.random.default_rng(0)
    truth = np.zeros((12, 12, 12), bool)
    truth[3:9, 3:9, 3:9] = True
    prediction = np.roll(truth, 1, axis=0) ^ (rng.random(truth.shape) < 0.01)
    scores = field_metrics(prediction, truth)
    overlap = (prediction & truth).sum()
    assert scores["dice"] == pytest.approx(2 * overlap / (prediction.sum() + truth.sum()))
    assert scores["jaccard"] == pytest.approx(overlap / (prediction | truth).sum())

    def surface(mask: np.ndarray) -> np.ndarray:
        points = []
        for point in np.argwhere(mask):
            around = [tuple(point + step) for step in np.vstack([np.eye(3, dtype=int), -np.eye(3, dtype=int)])]
            if any(min(p) < 0 or max(p) > 11 or not mask[p] for p in around):
                points.append(point)
        return np.array(points)

    one, two = surface(prediction), surface(truth)
    table = np.linalg.norm(one[:, None] - two[None], axis=-1)
    assert scores["asd"] == pytest.approx(table.min(1).mean())
    assert scores["hd95"] == pytest.approx(np.percentile(np.concatenate([table.min(1), table.min(0)]), 95))
    empty = np.zeros_like(truth)
    assert field_metrics(empty, truth) == {"dice": 0.0, "jaccard": 0.0}
    assert field_metrics(empty, empty) == {}
