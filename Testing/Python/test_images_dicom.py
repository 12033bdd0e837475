# SPDX-License-Identifier: Apache-2.0
"""DICOM folders: one even stack of slices is read, anything else is refused and never bent into a volume."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.errors import InputError
from barl.images.dicom.series import list_series, read_series
from barl.images.geometry import Grid
from barl.images.intensity import ImageStatistics
from barl.images.reading import read_image

ARRAY = np.random.default_rng(1).integers(-1000, 1500, size=(6, 9, 8)).astype(np.int16)
POSITIONS = [(-20.0, 30.0, 2.5 * k) for k in range(6)]


def write_stack(folder: Path, positions=POSITIONS, *, uid: str = "1.2.826.0.1.1", modality: str = "CT", array=ARRAY):
    """A made series; the names of the files go against the order of the slices."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k, position in enumerate(positions):
        piece = sitk.GetImageFromArray(array[k])
        piece.SetSpacing((0.7, 0.9))
        tags = {
            "0008|0060": modality,
            "0010|0010": "Doe^Jane",
            "0010|0020": "PATIENT-4711",
            "0008|103e": "Thorax of Jane",
            "0020|000d": "1.2.826.0.1",
            "0020|000e": uid,
            "0008|0018": f"{uid}.{k}",
            "0020|0013": str(k),
            "0020|0032": "\\".join(map(str, position)),
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        for key, value in tags.items():
            piece.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{99 - k}.dcm"))
        writer.Execute(piece)
    return folder


def test_a_series_comes_out_in_order_with_its_geometry_and_nothing_else(tmp_path, capfd):
    folder = write_stack(tmp_path / "patient" / "study" / "series")
    for path in (folder, tmp_path / "patient"):  # also from a folder above
        image = read_image(path)
        assert np.array_equal(sitk.GetArrayFromImage(image), ARRAY)
        assert image.GetSpacing() == pytest.approx((0.7, 0.9, 2.5))
        assert image.GetOrigin() == pytest.approx((-20.0, 30.0, 0.0))
        assert not image.GetMetaDataKeys()
    (series,) = list_series(folder)
    assert (series.label, series.n_files) == ("CT, 8 x 9 x 6, Thorax of ...", 6)
    assert capfd.readouterr() == ("", "")


def test_several_series_are_listed_by_modality_and_size(tmp_path):
    write_stack(tmp_path / "a")
    write_stack(tmp_path / "b", POSITIONS[:4], uid="1.2.826.0.1.2", modality="MR")
    with pytest.raises(
        InputError, match=r"2 series: 1 \(CT, 8 x 9 x 6, Thorax of \.\.\.\); 2 \(MR, 8 x 9 x 4"
    ) as caught:
        read_image(tmp_path)
    assert not any(word in str(caught.value) for word in ("Doe", "Jane", "4711", "1.2.826"))
    wanted = list_series(tmp_path)[1]
    assert read_series(tmp_path, wanted.uid).grid.size == (8, 9, 4)


MOVED = [*POSITIONS[:3], *((x, y, z + 1.0) for x, y, z in POSITIONS[3:])]
TILTED = [(x, y + 0.3 * z, z) for x, y, z in POSITIONS]


@pytest.mark.parametrize(
    ("positions", "match"),
    [
        ([p for k, p in enumerate(POSITIONS) if k != 3], r"unevenly spaced slices \(2.50 to 5.00 mm"),
        (MOVED, r"unevenly spaced slices \(2.50 to 3.50 mm"),
        (TILTED, "gantry tilt of 16.7 degrees"),
        ([*POSITIONS[:5], POSITIONS[4]], "several slices at one place"),
        (POSITIONS[:1], "single slice"),
    ],
)
def test_stacks_that_are_no_volume(positions, match, tmp_path):
    with pytest.raises(InputError, match=match) as caught:
        read_image(write_stack(tmp_path / "scan", positions))
    assert "'scan'" in caught.value.message
    assert caught.value.remedy


def test_a_slice_cut_off_is_noticed(tmp_path, capfd):
    folder = write_stack(tmp_path / "scan")
    for share in (0.95, 0.4):
        victim = folder / "97.dcm"
        content = victim.read_bytes()
        victim.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(InputError, match=r"cut off|damaged|unevenly"):
            read_image(folder)
    assert capfd.readouterr() == ("", "")


def test_folders_without_images(tmp_path):
    with pytest.raises(InputError, match="is empty"):
        read_series(tmp_path)
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match="holds no DICOM images"):
        read_series(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        list_series(tmp_path / "notes.txt")


def unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder


def test_the_tilted_uneven_ct_is_refused(data_dir, tmp_path, capfd):
    folder = unpacked(data_dir / "fullsize" / "ct_ge_tilt_dicom" / "ge.tar.xz", tmp_path / "ge")
    with pytest.raises(InputError, match=r"unevenly spaced slices .* and a gantry tilt of 18.5 degrees") as caught:
        read_image(folder)
    assert "acquisition geometry regularization" in caught.value.remedy
    assert capfd.readouterr() == ("", "")


def test_the_oblique_mr_is_read_as_it_lies(data_dir, tmp_path):
    folder = unpacked(data_dir / "fullsize" / "mr_t1w_dicom" / "dicoms.tar.xz", tmp_path / "mr")
    image = read_image(folder)
    assert image.GetSize() == (274, 384, 384)
    assert image.GetSpacing() == pytest.approx((0.7, 2 / 3, 2 / 3), abs=1e-4)
    assert np.abs(Grid.of(image).axes - np.eye(3)).max() > 0.1
    assert not image.GetMetaDataKeys()


def test_ct_mr_and_pet_of_one_patient(data_dir):
    folder = data_dir / "sts_pet" / "dicom" / "STS_002"
    with pytest.raises(InputError, match=r"3 series: 3 \(CT, 161 x 143 x 48.*4 \(PT, 30 x 27 x 48.*MR, 115 x 90 x 35"):
        read_image(folder)
    looks = {}
    for name in ("CT", "MR_T1", "PET"):
        image = read_image(folder / name)  # the structure set beside it is no image
        looks[name] = ImageStatistics.of(sitk.GetArrayViewFromImage(image)).looks_like_ct
    assert looks == {"CT": True, "MR_T1": False, "PET": False}
