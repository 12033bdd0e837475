# SPDX-License-Identifier: Apache-2.0
"""Volume files against other readers (nibabel, pynrrd, SimpleITK): the same voxels in the same place, or a refusal."""

from __future__ import annotations

import bz2
import gzip
import os
import shutil
import sys
import zlib
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from barl.errors import DeviceError, InputError
from barl.images.formats.kinds import read_volume
from barl.images.geometry import Grid
from barl.images.reading import read_image
from barl.images.writing import write_image

ARRAY = np.random.default_rng(5).integers(-900, 900, size=(6, 7, 8)).astype(np.int16)  # [k, j, i]
TURN = np.array([[0.8, -0.6, 0.0], [0.36, 0.48, -0.8], [0.48, 0.64, 0.6]])
AFFINE = np.eye(4)  # RAS
AFFINE[:3, :3] = TURN * [0.7, 0.9, 2.5]
AFFINE[:3, 3] = [-3.0, 40.0, 11.5]
GRID = Grid((8, 7, 6), (0.7, 0.9, 2.5), (3.0, -40.0, 11.5), tuple((np.diag([-1.0, -1, 1]) @ TURN).ravel()))


def assert_place(image: sitk.Image, affine: np.ndarray = AFFINE, tolerance: float = 1e-4) -> None:
    """The image lies where a RAS affine says."""
    size = image.GetSize()
    corners = np.array([[i, j, k] for i in (0, size[0] - 1) for j in (0, size[1] - 1) for k in (0, size[2] - 1)])
    places = np.array([image.TransformIndexToPhysicalPoint([int(v) for v in c]) for c in corners]) * [-1, -1, 1]
    assert np.abs(places - (corners @ affine[:3, :3].T + affine[:3, 3])).max() < tolerance


def voxels(path: Path, **options) -> np.ndarray:
    return sitk.GetArrayFromImage(read_image(path, **options))


# ---- NIfTI


@pytest.mark.parametrize(
    "name", ["a.nii", "a.nii.gz", "a.hdr", "a.img", "b.hdr.gz", "two.nii", "two.nii.gz", "twopair.hdr"]
)
@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.int32, np.float32, np.uint64, np.int8])
@pytest.mark.parametrize("endian", "<>")
def test_nifti_of_every_form(name, kind, endian, tmp_path):
    pair, second = ".nii" not in name, name.startswith("two")
    types = {(0, 0): nib.Nifti1Image, (0, 1): nib.Nifti2Image, (1, 0): nib.Nifti1Pair, (1, 1): nib.Nifti2Pair}
    form = types[pair, second]
    array = np.abs(ARRAY % 100).astype(kind)
    path = tmp_path / name
    written = path.with_name(name.replace(".hdr", ".img"))
    nib.save(form(array.T, AFFINE, form.header_class(endianness=endian), dtype=kind), written)
    image = read_image(path)
    assert np.array_equal(sitk.GetArrayFromImage(image), array)
    assert_place(image)


def test_nifti_with_a_scale_against_nibabel(tmp_path):
    array = np.random.default_rng(0).normal(scale=1e-3, size=(6, 7, 8))
    for kind in (np.int16, np.uint8, np.int32):
        image = nib.Nifti1Image(array.T, AFFINE)
        image.set_data_dtype(kind)  # nibabel chooses slope and intercept
        nib.save(image, tmp_path / "a.nii.gz")
        expected = nib.load(tmp_path / "a.nii.gz").get_fdata().T
        np.testing.assert_allclose(voxels(tmp_path / "a.nii.gz"), expected, rtol=1e-6, atol=1e-9)


def nifti(path: Path, *, q=AFFINE, s=AFFINE, codes=(1, 1), edit=lambda header: None, array=ARRAY) -> Path:
    image = nib.Nifti1Image(array.T, None)
    image.header.set_xyzt_units("mm")
    image.set_qform(q, codes[0])
    image.set_sform(s, codes[1])
    image._affine = None  # nibabel would write it into the header
    edit(image.header)
    path.write_bytes(image.header.binaryblock + bytes(4) + np.asfortranarray(array.T).tobytes(order="F"))
    return path


def header_offset(header) -> None:
    header["vox_offset"] = 352
    header["magic"] = b"n+1"


def test_voxels_cannot_begin_inside_the_header(tmp_path):
    """ITK reads such a file two voxels early; nibabel refuses it."""

    def early(header) -> None:
        header_offset(header)
        header["vox_offset"] = 348

    with pytest.raises(InputError, match="damaged"):
        read_image(nifti(tmp_path / "a.nii", edit=early))


MOVED = AFFINE.copy()
MOVED[:3, 3] += [10, -5, 30]


@pytest.mark.parametrize("q_code", range(4))
@pytest.mark.parametrize("s_code", range(4))
def test_the_form_that_is_used_is_that_of_itk_and_is_told(q_code, s_code, tmp_path):
    path = nifti(tmp_path / "a.nii", s=MOVED, codes=(q_code, s_code), edit=header_offset)
    notes: list[str] = []
    image = read_image(path, notes)
    expected = sitk.ReadImage(str(path))
    assert Grid.of(image).matches(Grid.of(expected), tolerance_mm=1e-3)
    told = " ".join(notes)
    if q_code and s_code:
        used, other = ("sform", "qform") if s_code == 1 else ("qform", "sform")
        assert f"the {used} is used" in told and "32.0 mm apart" in told.replace("32 mm", "32.0 mm")
        assert f"that use the {other} see the scan elsewhere" in told
    assert ("which side is left is not known" in told) == (q_code == s_code == 0)
    write_image(image, tmp_path / "b.nii.gz")
    written = nib.load(tmp_path / "b.nii.gz")
    assert np.allclose(written.get_qform(), written.get_sform(), atol=1e-4)
    assert written.header["qform_code"] > 0 and written.header["sform_code"] > 0
    assert_place(image, written.affine, 1e-3)


@pytest.mark.parametrize("pixdim", [(1, -0.7, 0.9, 2.5), (1, 0, 0, 0), (1, np.nan, 0.9, 2.5), (1, -0.7, -0.9, -2.5)])
def test_a_sound_sform_replaces_a_broken_spacing(pixdim, tmp_path):
    def edit(header):
        header_offset(header)
        header["pixdim"][:4] = pixdim

    notes: list[str] = []
    for codes in ((0, 2), (1, 1)):
        image = read_image(nifti(tmp_path / "a.nii", codes=codes, edit=edit), notes)
        assert_place(image)
        assert np.array_equal(sitk.GetArrayFromImage(image), ARRAY)
        assert any("spacing of its sform is used" in note for note in notes)
    with pytest.raises(InputError, match="unusable spacing"):
        read_image(nifti(tmp_path / "b.nii", codes=(1, 0), edit=edit))


@pytest.mark.parametrize(("unit", "factor"), [(0, 1), (1, 1e3), (2, 1), (3, 1e-3)])
def test_units_of_length(unit, factor, tmp_path):
    def edit(header):
        header_offset(header)
        header["xyzt_units"] = unit

    notes: list[str] = []
    matrix = np.diag([2.4, 2.4, 2.4, 1.0])
    matrix[:3, :3] /= 1000 if unit == 1 else 1
    image = read_image(nifti(tmp_path / "a.nii", q=matrix, s=matrix, edit=edit), notes)
    assert image.GetSpacing() == pytest.approx((2.4 * factor * (1e-3 if unit == 1 else 1),) * 3, rel=1e-5)
    assert ("names no unit" in " ".join(notes)) == (unit == 0)
    assert ("converted to millimeters" in " ".join(notes)) == (unit in (1, 3))


@pytest.mark.parametrize("noise", [1e-7, 1e-5, 1e-4, 1e-3])
def test_axes_not_quite_at_right_angles_are_straightened_and_told(noise, tmp_path):
    crooked = AFFINE.copy()
    crooked[:3, :3] += noise * np.random.default_rng(0).normal(size=(3, 3))
    notes: list[str] = []
    image = read_image(nifti(tmp_path / "a.nii", s=crooked, codes=(0, 2), edit=header_offset), notes)
    axes = Grid.of(image).axes
    assert np.abs(axes.T @ axes - np.eye(3)).max() < 1e-9
    assert_place(image, crooked, max(40 * noise, 1e-4))
    assert ("straightened" in " ".join(notes)) == (noise >= 1e-3)


def test_sheared_axes_are_refused_or_the_sound_form_is_used(tmp_path):
    sheared = AFFINE.copy()
    sheared[:3, 1] += 0.05 * sheared[:3, 0]
    with pytest.raises(InputError, match="right angles") as caught:
        read_image(nifti(tmp_path / "a.nii", s=sheared, codes=(0, 2), edit=header_offset))
    assert "nibabel.processing.resample_to_output" in caught.value.remedy
    # The remedy is one.
    from nibabel.processing import resample_to_output

    nib.save(resample_to_output(nib.load(tmp_path / "a.nii"), order=0), tmp_path / "b.nii.gz")
    read_image(tmp_path / "b.nii.gz")
    notes: list[str] = []
    assert_place(read_image(nifti(tmp_path / "c.nii", s=sheared, codes=(1, 2), edit=header_offset), notes))
    assert any("sheared; its qform" in note for note in notes)


def test_the_file_that_is_named_is_the_one_that_is_read(tmp_path):
    for name, shift in (("x.nii", 0), ("x.nii.gz", 100), ("x.hdr", 200)):
        form = nib.Nifti1Pair if name == "x.hdr" else nib.Nifti1Image
        nib.save(form(ARRAY.T + np.int16(shift), AFFINE), tmp_path / name.replace(".hdr", ".img"))
    for name, shift in (("x.nii", 0), ("x.nii.gz", 100), ("x.hdr", 200), ("x.img", 200)):
        assert np.array_equal(voxels(tmp_path / name), ARRAY + shift)
    (tmp_path / "x.img.gz").write_bytes(gzip.compress((tmp_path / "x.img").read_bytes()))
    with pytest.raises(InputError, match=r"Beside 'x.hdr' lie 'x.img' and 'x.img.gz'"):
        read_image(tmp_path / "x.hdr")
    (tmp_path / "x.img").unlink()
    (tmp_path / "x.img.gz").unlink()
    with pytest.raises(InputError, match=r"'x.img' is missing beside it"):
        read_image(tmp_path / "x.hdr")


def test_content_decides_not_the_ending(tmp_path):
    nib.save(nib.Nifti1Image(ARRAY.T, AFFINE), tmp_path / "a.nii.gz")
    shutil.copy(tmp_path / "a.nii.gz", tmp_path / "packed.nii")
    shutil.copy(tmp_path / "a.nii.gz", tmp_path / "none")
    (tmp_path / "plain.nii.gz").write_bytes(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    for name in ("packed.nii", "none", "plain.nii.gz"):
        assert np.array_equal(voxels(tmp_path / name), ARRAY)


# ---- NRRD, MetaImage, FreeSurfer


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
@pytest.mark.parametrize("space", ["left-posterior-superior", "RAS", "left-anterior-superior"])
@pytest.mark.parametrize("ending", ["nrrd", "nhdr"])
def test_nrrd_against_pynrrd(encoding, space, ending, tmp_path):
    signs = {"l": (1, 1), "R": (-1, -1)}[space[0]]
    signs = (1, -1) if space == "left-anterior-superior" else signs
    flip = np.diag([*signs, 1.0])  # LPS to the file's space
    lps = np.diag([-1.0, -1, 1]) @ AFFINE[:3]
    header = {
        "space": space,
        "space directions": (flip @ lps[:, :3]).T,
        "space origin": flip @ lps[:, 3],
        "encoding": encoding,
    }
    path = tmp_path / f"a.{ending}"
    nrrd.write(str(path), ARRAY.T, header, detached_header=ending == "nhdr")
    image = read_image(path)
    assert np.array_equal(sitk.GetArrayFromImage(image), nrrd.read(str(path))[0].T)
    assert_place(image)


def nrrd_of_space(path: Path, **fields: str) -> Path:
    """A text NRRD of the voxels of ``ARRAY``; a field of None is left out."""
    given = {
        "type": "short",
        "dimension": "3",
        "sizes": "8 7 6",
        "space": "right-anterior-superior",
        "space directions": "(2,0,0) (0,3,0) (0,0,4)",
        "space origin": "(10,20,30)",
        "encoding": "ascii",
        **fields,
    }
    head = "\n".join(["NRRD0004", *(f"{key}: {value}" for key, value in given.items() if value is not None)])
    path.write_text(head + "\n\n" + "\n".join(map(str, ARRAY.ravel())))
    return path


@pytest.mark.parametrize("space", ["right-anterior-superior-time", "RAST"])
def test_nrrd_of_a_space_with_time_is_not_mirrored(space, tmp_path):
    four = {
        "dimension": "4",
        "sizes": "8 7 6 1",
        "space directions": "(2,0,0,0) (0,3,0,0) (0,0,4,0) (0,0,0,1)",
        "space origin": "(10,20,30,0)",
    }
    notes = []
    assert read_image(nrrd_of_space(tmp_path / "a.nrrd", space=space, **four), notes).GetOrigin() == (-10, -20, 30)
    assert notes == []


@pytest.mark.parametrize("space", [None, "scanner-xyz"])
def test_nrrd_of_an_unknown_space_is_told(space, tmp_path):
    notes = []
    assert read_image(nrrd_of_space(tmp_path / "a.nrrd", space=space), notes).GetOrigin() == (10, 20, 30)
    assert "LPS is assumed" in notes[0]


@pytest.mark.parametrize("field", ["space", "space origin"])
def test_nrrd_with_an_empty_field_of_its_place_is_refused(field, tmp_path):
    with pytest.raises(InputError, match="damaged"):
        read_image(nrrd_of_space(tmp_path / "a.nrrd", **{field: ""}))


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mha", "a.mhd", "raw.nrrd", "raw.mha", "raw.mhd"])
def test_files_of_itk(name, kind, tmp_path):
    array = np.abs(ARRAY % 100).astype(kind)
    sitk.WriteImage(GRID.image(array), str(tmp_path / name), not name.startswith("raw"))
    image = read_image(tmp_path / name)
    assert np.array_equal(sitk.GetArrayFromImage(image), array)
    assert_place(image)


def test_metaimage_by_hand(tmp_path):
    head = "NDims = 3\nDimSize = 8 7 6\nElementType = MET_SHORT\n"
    (tmp_path / "a.mha").write_bytes(
        (head + "ElementSpacing = 0.7 0.9 2.5\nBinaryDataByteOrderMSB = True\nElementDataFile = LOCAL\n").encode()
        + ARRAY.astype(">i2").tobytes()
    )
    assert np.array_equal(voxels(tmp_path / "a.mha"), ARRAY)
    (tmp_path / "b.raw").write_bytes(b"x" * 10 + ARRAY.tobytes())
    (tmp_path / "b.mhd").write_text(head + "HeaderSize = 10\nElementDataFile = b.raw\n")
    notes: list[str] = []
    assert np.array_equal(voxels(tmp_path / "b.mhd", notes=notes), ARRAY)
    assert any("gives no spacing; 1 mm" in note for note in notes)
    (tmp_path / "c.mha").write_text(
        head + "BinaryData = False\nElementDataFile = LOCAL\n" + " ".join(map(str, ARRAY.ravel()))
    )
    assert np.array_equal(voxels(tmp_path / "c.mha"), ARRAY)


@pytest.mark.parametrize("name", ["a.mgh", "a.mgz"])
def test_freesurfer_against_nibabel(name, tmp_path):
    for kind in (np.uint8, np.int16, np.int32, np.float32):
        array = np.abs(ARRAY % 100).astype(kind)
        nib.save(nib.MGHImage(array.T, AFFINE), tmp_path / name)
        image = read_image(tmp_path / name)
        assert np.array_equal(sitk.GetArrayFromImage(image), array)
        assert_place(image)


@pytest.mark.parametrize(
    ("name", "what"),
    [("a.gipl", "a GIPL file"), ("a.vtk", "a VTK file"), ("a.tif", "a picture"), ("a.mnc", "a MINC file")],
)
def test_other_kinds_are_named(name, what, tmp_path):
    try:
        sitk.WriteImage(sitk.GetImageFromArray(ARRAY), str(tmp_path / name))
    except RuntimeError:
        (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600))
    with pytest.raises(InputError, match=what):
        read_image(tmp_path / name)
    nib.save(nib.Spm99AnalyzeImage(ARRAY.T, AFFINE), tmp_path / "old.img")
    with pytest.raises(InputError, match=r"Analyze 7\.5"):
        read_image(tmp_path / "old.hdr")


# ---- damage and malice

NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: {sizes}\nendian: little\nencoding: {encoding}\n\n"
META = "NDims = 3\nDimSize = {sizes}\nCompressedData = {packed}\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"


def packed_files(folder: Path) -> dict[str, Path]:
    """The same volume in every form that is packed."""
    for name in ("a.nrrd", "a.mha", "a.nii.gz"):
        sitk.WriteImage(GRID.image(ARRAY), str(folder / name), True)
    nrrd.write(str(folder / "b.nrrd"), ARRAY.T, {"encoding": "bzip2"})
    nib.save(nib.MGHImage(ARRAY.T, AFFINE), folder / "a.mgz")
    return {name: folder / name for name in ("a.nrrd", "a.mha", "a.nii.gz", "b.nrrd", "a.mgz")}


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.nii.gz", "b.nrrd", "a.mgz"])
def test_every_flipped_byte_of_a_packed_body_is_noticed(name, tmp_path):
    path = packed_files(tmp_path)[name]
    content = path.read_bytes()
    start = max(0, content.find(b"\n\n"), content.find(b"LOCAL\n")) + 20
    for place in range(start, len(content), max(1, (len(content) - start) // 60)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            same = np.array_equal(voxels(path), ARRAY)
        except InputError:
            continue
        assert same, f"byte {place}"  # some bits of a packed stream mean nothing


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
@pytest.mark.parametrize("change", [-2, 2])
def test_a_body_longer_or_shorter_than_its_header_says(name, change, tmp_path):
    for packed in (False, True):
        body = (ARRAY.tobytes() + bytes(8))[: ARRAY.nbytes + change]
        body = (gzip.compress(body) if name == "a.nrrd" else zlib.compress(body)) if packed else body
        if name == "a.nrrd":
            head = NRRD.format(sizes="8 7 6", encoding="gzip" if packed else "raw")
        else:
            head = META.format(sizes="8 7 6", packed=packed)
        (tmp_path / name).write_bytes(head.encode() + body)
        match = "more voxels than its header says" if change > 0 else "damaged or cut off"
        with pytest.raises(InputError, match=match):
            read_image(tmp_path / name)


def test_a_small_file_that_claims_gigabytes_is_refused_at_once(tmp_path):
    body = zlib.compress(bytes(2**16))
    heads = {
        "a.mha": META.format(sizes="4000 4000 4000", packed=True),
        "a.nrrd": NRRD.format(sizes="4000 4000 4000", encoding="gzip"),
        "b.nrrd": NRRD.format(sizes="4000 4000 4000", encoding="raw"),
        "c.nrrd": NRRD.format(sizes="9999999999999 4000 4000", encoding="gzip"),
    }
    for name, head in heads.items():
        (tmp_path / name).write_bytes(head.encode() + body)
        with pytest.raises(InputError, match=r"GiB|damaged"):
            read_image(tmp_path / name)

    def edit(header):
        header_offset(header)
        header["dim"][1:4] = 30000

    nifti(tmp_path / "a.nii", edit=edit)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes()))
    for name in ("a.nii", "a.nii.gz"):
        with pytest.raises(InputError, match=r"GiB|damaged"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("target", ["/etc/passwd", "../b.raw", "sub/b.raw", "C:\\b.raw", "..", "pipe", "gone.raw"])
def test_a_data_file_lies_beside_its_header_and_is_a_file(target, tmp_path):
    (tmp_path / "sub").mkdir()
    for place in (tmp_path.parent / "b.raw", tmp_path / "sub" / "b.raw"):
        place.write_bytes(ARRAY.tobytes())
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.mhd").write_text(
        f"NDims = 3\nDimSize = 8 7 6\nElementType = MET_SHORT\nElementDataFile = {target}\n"
    )
    (tmp_path / "a.nhdr").write_text(
        f"NRRD0004\ntype: short\ndimension: 3\nsizes: 8 7 6\nendian: little\nencoding: raw\ndata file: {target}\n\n"
    )
    for name in ("a.mhd", "a.nhdr"):
        with pytest.raises(InputError, match=r"does not lie beside|not a regular file|does not exist"):
            read_image(tmp_path / name)


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes among files")
def test_pipes_and_devices_are_refused(tmp_path):
    os.mkfifo(tmp_path / "scan.nii.gz")
    (tmp_path / "zero.nii").symlink_to("/dev/zero")
    for name in ("scan.nii.gz", "zero.nii"):
        with pytest.raises(InputError, match="not a regular file"):
            read_image(tmp_path / name)


def test_running_out_of_memory_is_said_as_such(tmp_path, monkeypatch):
    sitk.WriteImage(GRID.image(ARRAY), str(tmp_path / "a.nii.gz"))

    def none_left(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr("barl.images.formats.nifti.unpack", none_left)
    with pytest.raises(DeviceError, match=r"'a.nii.gz' does not fit into the memory"):
        read_image(tmp_path / "a.nii.gz")


# ---- values


def test_a_border_without_values_is_padding_and_told(tmp_path):
    array = np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32)
    array[:, :3] = np.nan  # as SPM's reslicing leaves it, 15 %
    array[10, 10, 10] = np.nan
    nib.save(nib.Nifti1Image(array.T, AFFINE), tmp_path / "a.nii.gz")
    notes: list[str] = []
    read = voxels(tmp_path / "a.nii.gz", notes=notes)
    least = array[np.isfinite(array)].min()
    assert (read[~np.isfinite(array)] == least).all()
    assert np.array_equal(read[np.isfinite(array)], array[np.isfinite(array)])
    assert any("1200 voxels (15%) at the border" in note for note in notes)
    assert any(note.startswith("1 voxels without a finite value") for note in notes)


@pytest.mark.parametrize("value", [-3024, -8192, -32768, -2000, -2048])
def test_padding_is_told_and_does_not_enter_the_statistics(value, tmp_path):
    from barl.images.intensity import ImageStatistics, Normalization

    rng = np.random.default_rng(0)
    scan = rng.normal(40, 30, (20, 20, 20)).astype(np.int16)
    scan[:, :6] = -1000 + rng.integers(0, 30, (20, 6, 20))
    padded = scan.copy()
    padded[:, :, :4] = value
    sitk.WriteImage(sitk.GetImageFromArray(padded), str(tmp_path / "a.nrrd"))
    notes: list[str] = []
    array = voxels(tmp_path / "a.nrrd", notes=notes)
    assert np.array_equal(array, padded)
    assert f"20% of the voxels hold {value}; they are taken for padding." in notes
    assert ImageStatistics.of(padded).looks_like_ct == ImageStatistics.of(scan[:, :, 4:]).looks_like_ct
    window, expected = Normalization("zscore").fitted(padded), Normalization("zscore").fitted(scan[:, :, 4:])
    assert (window.low, window.high, window.mean, window.sd) == pytest.approx(
        (expected.low, expected.high, expected.mean, expected.sd), rel=0.02
    )


def test_volume_reader_gives_the_texts_of_a_segmentation(tmp_path):
    image = GRID.image(np.abs(ARRAY % 3).astype(np.uint8))
    image.SetMetaData("Segment0_Name", "liver")
    sitk.WriteImage(image, str(tmp_path / "a.seg.nrrd"))
    assert read_volume(tmp_path / "a.seg.nrrd").texts["Segment0_Name"] == "liver"


def test_text_and_bzip2_bodies_are_bounded(tmp_path):
    head = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 8 7 6\nendian: little\nencoding: bzip2\n\n"
    (tmp_path / "a.nrrd").write_bytes(head + bz2.compress(ARRAY.tobytes())[:-5])
    with pytest.raises(InputError, match="damaged"):
        read_image(tmp_path / "a.nrrd")
