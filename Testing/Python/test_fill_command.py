# SPDX-License-Identifier: Apache-2.0
"""``barl fill`` on files and folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.cli import main

SPACING = (0.8, 0.9, 2.0)  # x, y, z


def write(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    image.SetOrigin((10, -20, 30))
    sitk.WriteImage(image, str(path))
    return path


def read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.fixture
def truth() -> np.ndarray:
    k, j, i = np.indices((16, 30, 32))
    return (((k - 8) * 2.0) ** 2 + (j - 15) ** 2 + (i - 16) ** 2 < 81).astype(np.uint8)


@pytest.fixture
def scan(tmp_path, truth) -> Path:
    noise = np.random.default_rng(0).normal(0, 10, truth.shape)
    return write(tmp_path / "scans" / "a.nii.gz", (100 * truth + noise).astype(np.float32))


@pytest.fixture
def drawn(tmp_path, truth) -> Path:
    labels = np.zeros_like(truth)
    labels[8], labels[:, 15], labels[:, :, 16] = truth[8], truth[:, 15], truth[:, :, 16]
    return write(tmp_path / "drawn" / "a.nii.gz", labels)


def barl(capsys, *words, code: int = 0) -> dict:
    assert main(["fill", *map(str, words), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_a_scan_is_filled(capsys, tmp_path, scan, drawn, truth):
    output, unsure = tmp_path / "whole.nii.gz", tmp_path / "unsure.nii.gz"
    answer = barl(capsys, scan, drawn, "--output", output, "--uncertainty", unsure)
    whole = read(output)
    assert 2 * np.count_nonzero(whole & truth) / (whole.sum() + truth.sum()) > 0.95
    image = sitk.ReadImage(str(output))
    assert image.GetSpacing() == pytest.approx(SPACING)
    assert image.GetOrigin() == (10, -20, 30)
    assert answer["ml"]["1"] == pytest.approx(float(whole.sum()) * np.prod(SPACING) / 1000)
    assert 0.8 < answer["expected_dice"] <= answer["expected_dice_after"] <= 1 and answer["planes_worth"] >= 0
    uncertainty = read(unsure)
    assert 0 < uncertainty.max() <= 1
    assert not uncertainty[8].any()


def test_no_file_is_overwritten_silently(capsys, tmp_path, scan, drawn):
    output = tmp_path / "whole.nii.gz"
    output.write_bytes(b"mine")
    answer = barl(capsys, scan, drawn, "--output", output, code=2)
    assert "is there already" in answer["error"]["message"]
    assert output.read_bytes() == b"mine"
    barl(capsys, scan, drawn, "--output", output, "--overwrite")
    assert read(output).any()


def test_nothing_that_is_read_is_replaced(capsys, tmp_path, scan, drawn, truth):
    mask = write(tmp_path / "mask.nii.gz", np.ones_like(truth))
    for words in (
        ["--output", scan],
        ["--output", drawn],
        ["--output", mask, "--drawn", mask],
        ["--output", mask, "--prior", mask],
        ["--output", "o.nii.gz", "--uncertainty", mask, "--prior", drawn, "--prior-uncertainty", mask],
    ):
        error = barl(capsys, scan, drawn, *words, "--overwrite", code=2)["error"]
        assert "is read here and would be replaced" in error["message"]
    output = tmp_path / "o.nii.gz"
    for words, said in (
        (["--uncertainty", tmp_path / "u.png"], "no file name for a volume"),
        (["--uncertainty", tmp_path / "nowhere" / "u.nii.gz"], "There is no folder"),
        (["--prior-uncertainty", mask], "without the prediction"),
    ):
        message = barl(capsys, scan, drawn, "--output", output, *words, code=2)["error"]["message"]
        assert said in message.replace("is not a file", "no file") and not output.exists()


def test_a_mask_says_what_was_looked_at(capsys, tmp_path, scan, drawn, truth):
    """An empty plane in the mask stays empty, though the scan is bright there."""
    mask = np.zeros_like(truth)
    mask[8], mask[:, 15], mask[:, :, 16] = 1, 1, 1
    mask[10] = 1
    labels = read(drawn)
    labels[10] = 0
    looked = write(tmp_path / "mask.nii.gz", mask)
    barl(capsys, scan, write(tmp_path / "labels.nii.gz", labels), "--output", tmp_path / "o.nii.gz", "--drawn", looked)
    whole = read(tmp_path / "o.nii.gz")
    assert not whole[10].any()
    assert whole[9].any()


def test_a_prediction_is_corrected(capsys, tmp_path, scan, truth):
    predicted = truth.copy()
    predicted[11:] = 0
    mask, labels = np.zeros_like(truth), np.zeros_like(truth)
    mask[11], labels[11] = 1, truth[11]
    words = [scan, write(tmp_path / "labels.nii.gz", labels), "--drawn", write(tmp_path / "mask.nii.gz", mask)]
    words += ["--prior", write(tmp_path / "prior.nii.gz", predicted), "--output", tmp_path / "o.nii.gz"]
    answer = barl(capsys, *words)
    assert answer["trust"] == 0
    assert read(tmp_path / "o.nii.gz")[12].any()


def test_folders_are_filled_file_by_file(capsys, tmp_path, scan, drawn, truth):
    write(tmp_path / "scans" / "b.nii.gz", read(scan))
    write(tmp_path / "drawn" / "b.nii.gz", np.zeros_like(truth))
    write(tmp_path / "scans" / "not_drawn.nii.gz", read(scan))
    answer = barl(capsys, tmp_path / "scans", tmp_path / "drawn", "--output", tmp_path / "whole", code=2)
    assert [entry["name"] for entry in answer["filled"]] == ["a"]
    assert [entry["name"] for entry in answer["failed"]] == ["b"]
    assert "Nothing is drawn" in answer["failed"][0]["message"]
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == ["a.nii.gz"]
    mask = np.ones_like(truth)
    mask[tuple(np.argwhere(read(drawn))[0])] = 0  # a labeled voxel was not looked at
    write(tmp_path / "masks" / "a.nii.gz", mask)
    (tmp_path / "drawn" / "b.nii.gz").unlink()
    words = ["fill", tmp_path / "scans", tmp_path / "drawn", "--drawn", tmp_path / "masks", "--output", tmp_path / "o"]
    main([*map(str, words)])
    said = capsys.readouterr()
    assert "lie outside of the mask of drawn voxels" in said.out + said.err


@pytest.mark.parametrize("doubled", ["scans", "drawn"])
def test_two_files_of_one_name_are_refused(capsys, tmp_path, scan, drawn, truth, doubled):
    write(tmp_path / "scans" / "not_drawn.nii.gz", read(scan))
    write(tmp_path / "scans" / "not_drawn.nrrd", read(scan))
    write(tmp_path / doubled / "a.nrrd", np.zeros_like(truth))
    words = [tmp_path / "scans", tmp_path / "drawn", "--output", tmp_path / "whole"]
    error = barl(capsys, *words, code=2)["error"]
    assert error["message"] == f"'a.nii.gz' and 'a.nrrd' in {doubled} have one name."
    (tmp_path / doubled / "a.nrrd").unlink()
    assert [entry["name"] for entry in barl(capsys, *words)["filled"]] == ["a"], "others may be double"


@pytest.mark.parametrize("damage", [b"", b"not an image", b"\x1f\x8b\x08broken"])
def test_damaged_files_get_a_sentence(capsys, tmp_path, scan, drawn, damage):
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(damage)
    for words in ([broken, drawn], [scan, broken], [scan, drawn, "--drawn", broken], [scan, drawn, "--prior", broken]):
        assert main(["fill", *map(str, words), "--output", str(tmp_path / "o.nii.gz")]) == 2
        assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "o.nii.gz").exists()


def test_another_grid_is_refused(capsys, tmp_path, scan, truth):
    other = write(tmp_path / "other.nii.gz", np.zeros((9, 9, 9), np.uint8))
    answer = barl(capsys, scan, other, "--output", tmp_path / "o.nii.gz", code=2)
    assert answer["error"]["remedy"]
