# SPDX-License-Identifier: Apache-2.0
"""What ``import barl`` offers: the examples of docs/python.md run, and nothing heavy is loaded before it is used."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path

import barl
import numpy as np
import pytest
import SimpleITK as sitk
from barl import api
from barl.errors import InputError, ProjectError
from barl.project.doubts import DoubtError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"
TINY = {"widths": [4, 8], "patch": [16, 16, 16], "loader_workers": 0, "validations": 0}


def a_ball(seed: int) -> tuple[sitk.Image, sitk.Image]:
    """A scan of a bright ball, and the ball's label map."""
    rng = np.random.default_rng(seed)
    mask = sum((axis - c) ** 2 for axis, c in zip(np.indices((20, 22, 24)), rng.uniform(9, 12, 3), strict=True)) < 30
    return (
        sitk.GetImageFromArray((100 * mask + rng.normal(0, 10, mask.shape)).astype(np.float32)),
        sitk.GetImageFromArray(mask.astype(np.uint8)),
    )


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """The files that docs/python.md names."""
    monkeypatch.chdir(tmp_path)
    for name in ("scans", "outlines"):
        Path(name).mkdir()
    for number in range(1, 7):
        scan, ball = a_ball(number)
        sitk.WriteImage(scan, f"scans/s{number}.nii.gz")
        if number < 4:
            sitk.WriteImage(ball, f"outlines/s{number}.nii.gz")
        if number == 4:
            sitk.WriteImage(ball, "corrected.nii.gz")
        if number == 6:
            planes = sitk.GetArrayFromImage(ball)
            planes[[k for k in range(len(planes)) if k not in (7, 10, 13)]] = 0
            sitk.WriteImage(sitk.GetImageFromArray(planes), "three-planes.nii.gz")
    return tmp_path


def test_the_examples_of_the_page_run(place, capsys):
    text = PAGE.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    assert code.count("minutes=30") == 2 and len(code.splitlines()) > 30
    code = code.replace("minutes=30", f"iterations=3, device='cpu', plan={TINY}")
    values: dict = {}
    exec(compile(code, str(PAGE), "exec"), values)
    scan = sitk.ReadImage("scans/s5.nii.gz")
    shape = scan.GetSize()[::-1]
    found = values["found"]
    assert found.labels.shape == found.uncertainty.shape == found.probabilities[1].shape == shape
    assert found.labels.dtype == np.uint8 and found.uncertainty.dtype == found.probabilities[1].dtype == np.float32
    assert 0 <= found.probabilities[1].min() <= found.probabilities[1].max() <= 1
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage("s5-labels.nii.gz")), found.labels)
    assert values["low"] <= values["ml"] <= values["high"]
    assert values["better"].is_current and values["better"].parent == values["model"].id
    assert values["result"].model == "model_0002"
    assert [row["case"] for row in values["result"].scores] == ["s3"]
    ball = sitk.GetArrayFromImage(a_ball(6)[1])
    both = 2 * (values["filled"].labels & ball).sum() / (values["filled"].labels.sum() + ball.sum())
    assert both > 0.8
    assert "s99" in capsys.readouterr().out


def test_importing_loads_neither_numpy_nor_torch_and_opening_a_project_no_torch(place):
    code = (
        "import sys, barl; assert not {'numpy', 'torch', 'SimpleITK'} & set(sys.modules)\n"
        "assert set(barl.__all__) <= set(dir(barl))\n"
        "with barl.create_project('p', {1: 'a'}) as project: barl.add_case(project, 'one', 'scans/s1.nii.gz')\n"
        "with barl.open_project('p') as project: print(len(barl.next_cases(project)))\n"
        "assert not {'torch', 'monai'} & set(sys.modules)\n"
        "import barl.fill, barl.project\n"  # rooms stay what they are
        "assert barl.fill.__name__ == 'barl.fill' and barl.Project.__name__ == 'Project'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_names_are_the_same_in_both_places_and_typed():
    assert barl.__all__ == api.__all__ == sorted(api.__all__)
    rooms = {path.stem for path in Path(barl.__file__).parent.iterdir()}
    assert not rooms & set(barl.__all__), "a room of this name would hide the function"
    with pytest.raises(AttributeError, match="no attribute 'nothing_of_the_kind'"):
        barl.nothing_of_the_kind  # noqa: B018
    for name in barl.__all__:
        thing = getattr(barl, name)
        assert inspect.getdoc(thing), name
        if inspect.isfunction(thing):
            hints = set(typing.get_type_hints(thing))
            assert hints == {*inspect.signature(thing).parameters, "return"}, name
            assert f"barl.{name}(" in PAGE.read_text(encoding="utf-8"), f"docs/python.md shows no {name}"


def test_arrays_and_images_are_taken_and_wrong_ones_refused(tmp_path):
    scan, ball = a_ball(1)
    array = sitk.GetArrayFromImage(ball)
    with barl.create_project(tmp_path / "p", {1: "left ball", 2: "right ball"}) as project:
        assert all(label.lateral for label in project.labels)
        added = barl.add_case(project, "one", scan, ball, held_out=True)
        assert added.case.evaluates
        with pytest.raises(DoubtError, match="same voxels"):
            barl.add_case(project, "two", scan)
        barl.add_case(project, "two", scan, held_out=True, allow=["same-scan"])
        stored = barl.accept(project, "two", array > 0, author="reader 1")
        assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(stored.revision.path))), array)
        with pytest.raises(InputError, match="shape"):
            barl.accept(project, "two", array[1:])
        with pytest.raises(InputError, match="no label map"):
            barl.accept(project, "two", array * 0.5)
        with pytest.raises(ProjectError, match="Did you mean 'two'"):
            barl.accept(project, "tow", array)
        barl.accept(project, added.case, array.astype(">f8"), allow="different")
        assert barl.add_case(project, "three", a_ball(3)[0], sitk.GetArrayFromImage(a_ball(3)[1]) > 0).case.teaches
        with pytest.raises(InputError, match="No case is named"):
            barl.predict_cases(project, [])
        with barl.create_project(tmp_path / "other", {np.uint8(1): "ball"}, "T1") as other:
            assert [channel.name for channel in other.channels] == ["T1"]
            stranger = barl.add_case(other, "uno", scan).case
        with pytest.raises(ProjectError, match="'one' in this project, and not 'uno'"):
            barl.accept(project, stranger, array)
        with pytest.raises(InputError, match="dictionary or rows"):
            barl.create_project(tmp_path / "third", ["ball"])
        with pytest.raises(InputError, match="no ndarray"):
            barl.add_case(project, "four", sitk.GetArrayFromImage(scan))
    with pytest.raises(InputError, match="mixes"):
        barl.fill_planes([scan, "scan.nii.gz"], array)


def test_an_outline_of_a_part_takes_a_mask_of_any_kind(tmp_path):
    scan, ball = a_ball(0)
    array = sitk.GetArrayFromImage(ball)
    mask = np.zeros_like(array)
    mask[10] = 1
    sitk.WriteImage(sitk.GetImageFromArray(mask), str(tmp_path / "mask.nii.gz"))
    sitk.WriteImage(sitk.GetImageFromArray(np.where(mask, array, 9)), str(tmp_path / "ignored.nii.gz"))
    with barl.create_project(tmp_path / "study", {1: "ball"}) as project:
        case = barl.add_case(project, "a", scan).case
        masks = (mask, mask != 0, sitk.GetImageFromArray(mask), str(tmp_path / "mask.nii.gz"), tmp_path / "mask.nii.gz")
        outlines = [(array, given) for given in masks] + [(tmp_path / "ignored.nii.gz", 9)]
        for outline, looked in outlines:
            revision = barl.accept(project, "a", outline, looked=looked).revision
            assert (sitk.GetArrayFromImage(project.revisions.read_looked(revision)) == mask).all()
        assert project.cases.get(case.id).looked_share == pytest.approx(1 / len(array))
        with pytest.raises(InputError, match="needs a file"):
            barl.accept(project, "a", array, looked=9)


def test_images_in_memory_are_checked_as_files_are(place):
    with barl.create_project("p", {1: "ball"}, ["T1", "T2"]) as project:
        for seed in range(3):
            scan, ball = a_ball(seed)
            barl.add_case(project, f"c{seed}", [scan, scan * 2], ball)
        row = barl.train(project, iterations=1, device="cpu", plan=TINY)
        model = barl.load_model(row, device="cpu", fast=True)
    scan = a_ball(7)[0]
    holed = sitk.Image(scan)
    holed[3, 3, 3] = float("nan")
    assert any("without a finite value" in note for note in model.predict([holed, scan]).notes)
    moved, large = sitk.Image(scan), sitk.Image(scan)
    moved.SetOrigin((0, 0, 40))
    large.SetSpacing((1000, 1000, 1000))
    wrong = {
        "four dimensions": sitk.JoinSeries([scan, scan]),
        "2 values per voxel": sitk.Compose([scan, scan]),
        "two-dimensional": scan[:, :, 3],
        "single slice": scan[:, :, 3:4],
        "complex": sitk.RealAndImaginaryToComplex(scan, scan),
        "unusable spacing": large,
        "without a finite value": scan * float("nan"),
        "apart": moved,
    }
    for words, image in wrong.items():
        with pytest.raises(InputError, match=words):
            model.predict([scan, image])
    with pytest.raises(InputError, match="six numbers"):
        model.predict([scan, scan], roi_mm=[0, 10, 0, 10])


def test_what_was_drawn_must_lie_on_the_scan_and_hold_labels(place):
    scan, planes = "scans/s6.nii.gz", sitk.ReadImage("three-planes.nii.gz")
    array = sitk.GetArrayFromImage(planes)
    filled = barl.fill_planes(scan, sitk.Cast(planes, sitk.sitkFloat64)).labels
    assert filled.dtype == np.uint8 and filled.sum() > array.sum()
    planes.SetOrigin((5, 0, 0))
    with pytest.raises(InputError, match="grid"):
        barl.fill_planes(scan, planes)
    for wrong in (array * 0.5, -array.astype(int)):
        with pytest.raises(InputError, match="no label map"):
            barl.fill_planes(scan, array, predicted=wrong)
    spread = barl.fill_planes(scan, array, predicted=np.where(filled, 300, 0)).labels
    assert set(np.unique(spread)) <= {0, 1, 300}, "a value of two bytes is not cut to one"


def test_arrays_of_any_real_type_are_written_and_never_over_the_scan(place):
    scan = "scans/s1.nii.gz"
    shape = sitk.ReadImage(scan).GetSize()[::-1]
    for kind in (bool, ">i2", "<u2", np.int64, np.float16, ">f4", float):
        array = np.arange(np.prod(shape)).reshape(shape).astype(kind)
        barl.write_volume(np.asfortranarray(array), scan, "out.nii.gz")
        assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage("out.nii.gz")), array), kind
    before = Path(scan).read_bytes()
    with pytest.raises(InputError, match="would be replaced"):
        barl.write_volume(array, scan, scan)
    assert Path(scan).read_bytes() == before
    with pytest.raises(InputError, match="no volume"):
        barl.write_volume(array.astype(complex), scan, "out.mha")
