# SPDX-License-Identifier: Apache-2.0
"""Files that are scans come out exact and bare; files that are not are refused in one sentence with a remedy."""

from __future__ import annotations

import gzip
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.errors import InputError, StorageError
from barl.images.geometry import Grid
from barl.images.label_maps import read_label
from barl.images.reading import read_channels, read_image
from barl.images.writing import write_image

ARRAY = np.random.default_rng(2).normal(size=(6, 7, 8)).astype(np.float32)
GRID = Grid((8, 7, 6), (0.7, 0.9, 2.5), (-3.0, 40.0, 11.5), (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, -1.0))


def scan(array: np.ndarray = ARRAY) -> sitk.Image:
    return GRID.image(array)


def write(image: sitk.Image, path: Path, compressed: bool = True) -> Path:
    sitk.WriteImage(image, str(path), compressed)
    return path


def edited(path: Path, change: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(change(path.read_bytes()))
    return path


def nifti(folder: Path, name: str, offset: int, form: str, *values: float) -> Path:
    """A NIfTI file with other numbers at one place of its header."""

    def change(content: bytes) -> bytes:
        header = bytearray(content)
        struct.pack_into(form, header, offset, *values)
        return bytes(header)

    return edited(write(scan(), folder / name, False), change)


def no_sform(path: Path) -> Path:
    """Only the qform is left, which takes the spacing from ``pixdim``."""
    return edited(path, lambda b: b[:254] + struct.pack("<h", 0) + b[256:])


def mha(folder: Path, name: str, field: str, value: str) -> Path:
    def change(content: bytes) -> bytes:
        return re.sub(f"{field} = [^\n]*".encode(), f"{field} = {value}".encode(), content)

    return edited(write(scan(), folder / name, False), change)


def with_values(folder: Path, name: str, value: float, count: int, shape: tuple = (6, 7, 8)) -> Path:
    """Values inside of the scan, not at its border."""
    array = np.zeros(shape, dtype=np.float32)
    inside = np.flatnonzero(np.pad(np.ones([n - 2 for n in shape]), 1))
    array.ravel()[inside[:count]] = value
    return write(sitk.GetImageFromArray(array), folder / name)


def no_file(folder: Path) -> Path:
    return folder / "gone.nii.gz"


def text_as(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_text("no scan at all\n" * 300)
        return folder / name

    return make


def empty(folder: Path) -> Path:
    (folder / "empty.nrrd").touch()
    return folder / "empty.nrrd"


def empty_folder(folder: Path) -> Path:
    (folder / "scans").mkdir()
    return folder / "scans"


def sheared_nifti(folder: Path) -> Path:
    path = nifti(folder, "sheared.nii", 252, "<h", 0)  # Without a quaternion only the matrix is left,
    return edited(path, lambda b: b[:280] + struct.pack("<4f", 1, 0.5, 0, 0) + b[296:])  # and that is sheared.


BAD = {
    "missing": (no_file, "does not exist"),
    "empty": (empty, "is empty"),
    "empty folder": (empty_folder, "is empty"),
    "text named nii": (text_as("a.nii"), "not an image file of a known kind"),
    "text named nii.gz": (text_as("a.nii.gz"), "not an image file of a known kind"),
    "text named nrrd": (text_as("a.nrrd"), "not an image file of a known kind"),
    "text": (text_as("notes.txt"), "not an image file of a known kind"),
    "picture": (
        lambda f: write(sitk.Cast(scan()[:, :, 0] * 0, sitk.sitkUInt8), f / "a.png"),
        "a picture, not a volume",
    ),
    "2D": (lambda f: write(scan()[:, :, 0], f / "a.nii"), "two-dimensional"),
    "one slice": (lambda f: write(scan()[:, :, :1], f / "a.nii.gz"), "8 x 7 x 1 voxels: it is a single slice"),
    "one column": (lambda f: write(scan()[:1], f / "a.mha"), "single slice"),
    "4D": (lambda f: write(sitk.JoinSeries([scan(), scan()]), f / "a.nii.gz"), "8 x 7 x 6 x 2"),
    "RGB": (
        lambda f: write(sitk.Compose(*[sitk.Cast(scan(), sitk.sitkUInt8)] * 3), f / "a.nrrd"),
        "3 values per voxel",
    ),
    "vector": (lambda f: write(sitk.Compose(scan(), scan()), f / "a.nii.gz"), "2 values per voxel"),
    "complex": (lambda f: write(sitk.RealAndImaginaryToComplex(scan(), scan()), f / "a.nii"), "complex numbers"),
    "many NaN": (lambda f: with_values(f, "a.nrrd", np.nan, 30), "30 voxels .of 336. without a finite value"),
    "all infinite": (lambda f: write(scan(ARRAY * np.inf), f / "a.nii.gz"), "336 voxels"),
    "zero spacing, NIfTI": (lambda f: no_sform(nifti(f, "a.nii", 80, "<f", 0.0)), "spacing of 0 x"),
    "NaN spacing, NIfTI": (lambda f: no_sform(nifti(f, "a.nii", 84, "<f", np.nan)), "spacing of 0.7 x nan"),
    "negative spacing, NIfTI": (lambda f: no_sform(nifti(f, "a.nii", 80, "<f", -0.7)), "spacing of -0.7 x"),
    "absurd spacing, NIfTI": (lambda f: no_sform(nifti(f, "a.nii", 88, "<f", 2500.0)), "2500 mm"),
    "zero spacing, MHA": (lambda f: mha(f, "a.mha", "ElementSpacing", "0 1 1"), "spacing of 0 x"),
    "negative spacing, MHA": (lambda f: mha(f, "a.mha", "ElementSpacing", "1 -1 1"), "spacing of 1 x -1"),
    "micrometers, MHA": (lambda f: mha(f, "a.mha", "ElementSpacing", "700 900 2500"), "spacing of 700 x"),
    "sheared, NIfTI": (sheared_nifti, "right angles"),
    "sheared, MHA": (lambda f: mha(f, "a.mha", "TransformMatrix", "1 0.5 0 0 1 0 0 0 1"), "right angles"),
    "no direction, MHA": (lambda f: mha(f, "a.mha", "TransformMatrix", "0 0 0 0 0 0 0 0 0"), "right angles"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_scans_get_one_sentence_and_a_remedy(kind, tmp_path, capfd):
    make, match = BAD[kind]
    path = make(tmp_path)
    with pytest.raises(InputError, match=match) as caught:
        read_image(path)
    assert path.name in caught.value.message
    assert str(tmp_path) not in str(caught.value)
    assert caught.value.remedy.endswith(".")
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "raw.nrrd", "raw.mha", "a.mhd"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_a_file_cut_off_is_refused_not_filled_with_zeros(name, share, tmp_path, capfd):
    path = write(scan(), tmp_path / name, compressed=not name.startswith("raw"))
    victim = next(tmp_path.glob("*raw")) if name == "a.mhd" and any(tmp_path.glob("*raw")) else path
    edited(victim, lambda content: content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"cut off|damaged"):
        read_image(path)
    assert capfd.readouterr() == ("", "")


def test_a_flipped_bit_in_a_compressed_nifti_is_noticed(tmp_path):
    path = write(scan(), tmp_path / "a.nii.gz")
    edited(path, lambda b: b[:700] + bytes([b[700] ^ 16]) + b[701:])
    with pytest.raises(InputError, match=r"cut off|damaged"):
        read_image(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mhd"])
@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.float32])
def test_scans_come_out_exact(name, kind, tmp_path):
    array = (50 * ARRAY + 100).astype(kind)
    path = write(GRID.image(array), tmp_path / name)
    image = read_image(path)
    assert np.array_equal(sitk.GetArrayFromImage(image), array)
    assert sitk.GetArrayFromImage(image).dtype == kind
    assert Grid.of(image).matches(GRID, tolerance_mm=1e-4)


def test_other_kinds_of_good_files(tmp_path):
    doubles = write(sitk.Cast(scan(), sitk.sitkFloat64), tmp_path / "double.nrrd")
    assert read_image(doubles).GetPixelID() == sitk.sitkFloat32
    single = write(sitk.JoinSeries([scan()]), tmp_path / "four.nrrd")  # 4D, one time point
    assert np.array_equal(sitk.GetArrayFromImage(read_image(single)), ARRAY)
    # Several gzip members are rare and right.
    plain = write(scan(), tmp_path / "a.nii", False).read_bytes()
    (tmp_path / "two.nii.gz").write_bytes(gzip.compress(plain[:500]) + gzip.compress(plain[500:]))
    assert np.array_equal(sitk.GetArrayFromImage(read_image(tmp_path / "two.nii.gz")), ARRAY)


@pytest.mark.parametrize("endian", "<>")
def test_nifti_of_both_byte_orders(endian, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    kind = nibabel.Nifti1Image
    header = kind.header_class(endianness=endian)
    array = ARRAY.copy()
    array[2, 3, 4] = np.nan
    nibabel.save(kind(array.transpose(), np.diag((0.7, 0.9, 2.5, 1.0)), header), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match=r"1 voxels .of 336."):
        read_image(tmp_path / "a.nii.gz")
    nibabel.save(kind(ARRAY.transpose(), np.diag((0.7, 0.9, 2.5, 1.0)), header), tmp_path / "b.nii.gz")
    image = read_image(tmp_path / "b.nii.gz")
    assert np.array_equal(sitk.GetArrayFromImage(image), ARRAY)
    assert image.GetSpacing() == pytest.approx((0.7, 0.9, 2.5))
    edited(tmp_path / "b.nii.gz", lambda content: content[: len(content) // 2])
    with pytest.raises(InputError, match=r"cut off|damaged"):
        read_image(tmp_path / "b.nii.gz")


@pytest.mark.parametrize("name", ["a.nrrd", "a.nii", "a.nii.gz"])
def test_few_voxels_without_a_value_are_repaired_and_told(name, tmp_path):
    array = np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32)
    array[3, 4, 5], array[6, 7, 8] = np.nan, -np.inf
    path = write(sitk.GetImageFromArray(array), tmp_path / name)
    notes: list[str] = []
    image = sitk.GetArrayFromImage(read_image(path, notes))
    least = array[np.isfinite(array)].min()
    assert image[3, 4, 5] == image[6, 7, 8] == least
    assert np.array_equal(image[np.isfinite(array)], array[np.isfinite(array)])
    assert len(notes) == 1 and "2 voxels" in notes[0]


def test_no_metadata_comes_along(tmp_path):
    image = scan()
    image.SetMetaData("patient", "Doe^Jane")
    path = write(image, tmp_path / "a.nrrd")
    assert b"Doe" in path.read_bytes()
    assert not read_image(path).GetMetaDataKeys()
    write_image(image, tmp_path / "b.nrrd")
    assert b"Doe" not in (tmp_path / "b.nrrd").read_bytes()
    assert image.GetMetaData("patient") == "Doe^Jane"


def test_channels_of_one_case_share_a_grid(tmp_path):
    first = write(scan(), tmp_path / "t1.nrrd")
    moved = scan(ARRAY * 2)
    moved.SetOrigin(tuple(v + 1e-4 for v in GRID.origin))
    second = write(moved, tmp_path / "flair.nrrd")
    images = read_channels([first, second])
    assert Grid.of(images[0]) == Grid.of(images[1])

    others = {
        "voxels against": scan()[:, :, :5],
        "spacing": sitk.Image(scan()),
        "directions": sitk.Image(scan()),
        "mm apart": sitk.Image(scan()),
    }
    others["spacing"].SetSpacing((0.7, 1.0, 2.5))
    others["directions"].SetDirection((1, 0, 0, 0, 1, 0, 0, 0, 1))
    others["mm apart"].SetOrigin((0.0, 40.0, 11.5))
    for match, image in others.items():
        path = write(image, tmp_path / "other.nrrd")
        with pytest.raises(InputError, match=match) as caught:
            read_channels([first, path])
        assert "'t1.nrrd'" in str(caught.value)
        assert "'other.nrrd'" in str(caught.value)
    with pytest.raises(InputError, match="no image"):
        read_channels([])


LABELS = (np.arange(336).reshape(6, 7, 8) % 3 * 2).astype(np.uint8)


def test_label_maps_come_out_on_the_scans_grid(tmp_path):
    for number, kind in enumerate((np.uint8, np.int16, np.float32, np.float64)):
        path = write(scan(LABELS.astype(kind)), tmp_path / f"{number}.nii.gz")
        label = read_label(path, GRID, (2, 4))
        assert label.GetPixelID() == sitk.sitkUInt8
        assert Grid.of(label) == GRID
        assert np.array_equal(sitk.GetArrayFromImage(label), LABELS)
    assert read_label(path, GRID, (2, 4, 300)).GetPixelID() == sitk.sitkUInt16


@pytest.mark.parametrize("name", ["label.nrrd", "label.nii.gz"])
@pytest.mark.parametrize(
    ("image", "match"),
    [
        (sitk.GetImageFromArray(LABELS), "scan's grid: spacing 1 x 1 x 1"),
        (scan(LABELS + 7), r"value\(s\) 7, 9, 11, which"),
        (scan(LABELS.astype(np.int16) - 2), r"value\(s\) -2, which"),
        (scan(LABELS * 0.5 + 0.25), "not integers"),
        (scan(np.where(LABELS > 2, np.nan, LABELS)), "not integers"),
        (scan(np.where(LABELS > 2, np.inf, LABELS)), "infinite|not integers"),
        (sitk.Compose(scan(LABELS), scan(LABELS)), "2 values per voxel"),
    ],
)
def test_bad_label_maps(image, match, name, tmp_path):
    path = write(image, tmp_path / name)
    with pytest.raises(InputError, match=match) as caught:
        read_label(path, GRID, (2, 4))
    assert name in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.mha"])
def test_written_files_come_back_and_leave_nothing_beside(name, tmp_path):
    write_image(scan(LABELS), tmp_path / name)
    write_image(scan(LABELS + 1), tmp_path / name)  # over the first
    image = read_image(tmp_path / name)
    assert np.array_equal(sitk.GetArrayFromImage(image), LABELS + 1)
    assert Grid.of(image).matches(GRID, tolerance_mm=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_names_that_are_no_volume(tmp_path):
    with pytest.raises(InputError, match=r"'a\.png' is not a file name"):
        write_image(scan(), tmp_path / "a.png")


def test_writing_into_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(StorageError, match="No such file"):
        write_image(scan(), tmp_path / "gone" / "a.nii.gz")


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np, SimpleITK as sitk
from barl.errors import StorageError
from barl.images.writing import write_image
path = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
image = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(60, 60, 60)).astype(np.float32))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    write_image(image, path)
except StorageError as error:
    print(error.message)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as only POSIX can")
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.mha"])
def test_a_disk_that_fills_up_leaves_the_old_file(name, tmp_path):
    write_image(scan(LABELS), tmp_path / name)
    before = (tmp_path / name).read_bytes()
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout
    assert done.stderr == ""
    assert (tmp_path / name).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_hippocampus_labels_stored_as_floats(data_dir):
    folder = data_dir / "hippocampus"
    found = 0
    for path in sorted((folder / "labels").glob("*.nii.gz")):
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        if reader.GetPixelID() != sitk.sitkFloat32:
            continue
        found += 1
        grid = Grid.of(read_image(folder / "images" / path.name))
        label = read_label(path, grid, (1, 2))
        assert label.GetPixelID() == sitk.sitkUInt8
        assert set(np.unique(sitk.GetArrayFromImage(label))) == {0, 1, 2}
    assert found == 2


def test_every_pet_scan_matches_its_label(data_dir):
    for path in sorted((data_dir / "sts_pet" / "images").glob("*.nii.gz"))[::6]:
        image = read_image(path)
        label = read_label(data_dir / "sts_pet" / "labels" / path.name, Grid.of(image), (1,))
        assert sitk.GetArrayFromImage(label).any()


@pytest.mark.parametrize("values", [ARRAY * np.float64(1e300), ARRAY * np.float64(1e-300), ARRAY.astype(int) + 2**60])
def test_numbers_that_32_bits_cannot_hold_are_refused(values, tmp_path):
    assert values.dtype.itemsize == 8
    with pytest.raises(InputError, match="numbers of 32 bits cannot hold or tell apart"):
        read_image(write(scan(values), tmp_path / "a.nrrd"))
    assert (sitk.GetArrayFromImage(read_image(write(scan(ARRAY.astype(float)), tmp_path / "b.nrrd"))) == ARRAY).all()


def test_a_scan_of_one_value_is_told(tmp_path):
    notes: list[str] = []
    read_image(write(scan(np.full_like(ARRAY, 7)), tmp_path / "a.nrrd"), notes)
    assert notes == ["All voxels hold the same value, 7."]
