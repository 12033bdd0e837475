# SPDX-License-Identifier: Apache-2.0
"""Bad input through the command line: one sentence and a remedy, the right exit code, nothing saved is changed."""

from __future__ import annotations

import hashlib
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.cli import main
from barl.errors import StorageError
from barl.project.store import Project

SIZE = (12, 14, 16)  # k, j, i
TINY = ["--device", "cpu", "--set", "widths=[4,8]", "--set", "patch=[8,8,8]", "--set", "loader_workers=0"]
INPUT, PROJECT, MODEL, DEVICE, DISK = 2, 3, 4, 5, 6


def volume(value: float = 0.0, size=SIZE, spacing=(1.0, 1.0, 1.0), dtype=np.float32) -> sitk.Image:
    array = np.random.default_rng(0).normal(100, 10, size)
    array[(size[0] // 2,) * 2] += value
    image = sitk.GetImageFromArray(array.astype(dtype))
    image.SetSpacing(spacing)
    return image


def outline(value: int = 1, size=SIZE, voxels: int = 4) -> sitk.Image:
    array = np.zeros(size, np.uint8)
    array[4 : 4 + voxels, 4 : 4 + voxels, 4 : 4 + voxels] = value
    return sitk.GetImageFromArray(array)


def shifted(image: sitk.Image) -> sitk.Image:
    image.SetOrigin((0.5, 0.0, 0.0))
    return image


def write(image: sitk.Image, path: Path) -> Path:
    sitk.WriteImage(image, str(path))
    return path


def run(*words) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def templates(tmp_path_factory) -> Path:
    """``good``: outlined, untouched, held-out cases and a model; ``bare``: one untouched case."""
    place = tmp_path_factory.mktemp("templates")
    write(volume(), place / "scan.nii.gz")
    label = write(outline(), place / "label.nii.gz")
    for name in ("good", "bare"):
        assert run("project", "new", place / name, "--label", "1=ball", "--channel", "CT") == 0
    scans = {name: write(volume() + shift, place / f"{name}.nii.gz") for shift, name in enumerate("abhn", 1)}
    for name in ("a", "b"):
        assert run("add", place / "good", scans[name], "--name", name, "--label", label) == 0
    assert run("add", place / "good", scans["h"], "--name", "h", "--label", label, "--held-out") == 0
    for name in ("good", "bare"):
        assert run("add", place / name, scans["n"], "--name", "new") == 0
    assert run("train", place / "good", "--iterations", 1, *TINY) == 0
    return place


class Place:
    """A folder with copies of the template projects and somewhere for bad files."""

    def __init__(self, templates: Path, folder: Path) -> None:
        self.folder = folder
        self.good = Path(shutil.copytree(templates / "good", folder / "good"))
        self.bare = Path(shutil.copytree(templates / "bare", folder / "bare"))
        self.scan = Path(shutil.copy(templates / "scan.nii.gz", folder / "scan.nii.gz"))
        self.model = self.good / "models" / "model_0001"

    def file(self, name: str, content: bytes) -> Path:
        (self.folder / name).write_bytes(content)
        return self.folder / name

    def image(self, name: str, image: sitk.Image) -> Path:
        return write(image, self.folder / name)

    def add(self, scan, *words) -> list:
        return ["add", self.good, scan, *words]

    def database(self, project: Path, statement: str) -> None:
        with closing(sqlite3.connect(project / "project.db")) as database:
            database.execute(statement)
            database.commit()


@pytest.fixture
def place(templates, tmp_path) -> Place:
    return Place(templates, tmp_path)


def saved(project: Path) -> dict[str, str]:
    """What a project holds, file by file, and its database's rows; leaves out what no user saved."""
    passing = re.compile(r"project\.(writer|backup\.db|db-journal|db)|barl\.log|fingerprint\.json|\.tmp-.*")
    files = {
        str(path.relative_to(project)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(project.rglob("*"))
        if path.is_file() and not passing.fullmatch(path.name)
    }
    try:
        with closing(sqlite3.connect(f"file:{project / 'project.db'}?mode=ro", uri=True)) as database:
            rows = "\n".join(database.iterdump())
    except sqlite3.DatabaseError:
        rows = hashlib.sha256((project / "project.db").read_bytes()).hexdigest()
    return files | {"project.db": rows}


def truncated(place: Place) -> Path:
    data = place.image("whole.nii.gz", volume()).read_bytes()
    return place.file("cut.nii.gz", data[: len(data) // 2])


def with_value(value: float) -> sitk.Image:
    array = np.full(SIZE, value, np.float32)
    array[0] = 1
    return sitk.GetImageFromArray(array)


def nrrd_with_spacing(place: Place, spacing: str) -> Path:
    head = f"NRRD0004\ntype: float\ndimension: 3\nsizes: 4 4 4\nspacings: {spacing}\nencoding: raw\nendian: little\n\n"
    return place.file("spacing.nrrd", head.encode() + np.ones((4, 4, 4), "<f4").tobytes())


def two_channels(place: Place) -> list:
    project = place.folder / "two"
    assert run("project", "new", project, "--label", "1=a", "--channel", "T1", "--channel", "T2") == 0
    return ["add", project, place.scan, place.image("other.nii.gz", volume(size=(12, 14, 20)))]


def dicom_without_a_slice(place: Place) -> Path:
    """A series of evenly spaced slices of which one is missing."""
    folder = place.folder / "series"
    folder.mkdir()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in [0, 1, 2, 4, 5]:
        image = sitk.GetImageFromArray(np.full((1, 8, 8), k, np.int16))
        for key, value in {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2", "0008|0060": "CT", "0020|000e": "1.2.3", "0020|000d": "1.2",
            "0008|0018": f"1.2.3.{k + 1}", "0020|0032": f"0\\0\\{3 * k}", "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0013": str(k),
        }.items():  # fmt: skip
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{k}.dcm"))
        writer.Execute(image)
    return folder


def empty_outlines(place: Place) -> list:
    for name in ("a", "b"):
        empty = place.image("empty.nii.gz", outline(voxels=0))
        words = ("--allow", "empty", "--allow", "different")
        assert run("project", "accept", place.good, name, empty, *words) == 0
    return ["train", place.good, "--from-scratch", "--iterations", 1, *TINY]


def newer_project(place: Place) -> list:
    place.database(place.good, "PRAGMA user_version = 99")
    return ["project", "show", place.good]


def damaged_database(place: Place) -> list:
    path = place.good / "project.db"
    path.write_bytes(b"SQLite format 3\0" + b"\xa5" * 4096)
    return ["predict", place.good]


def no_held_out(place: Place) -> list:
    assert run("project", "mark", place.good, "h", "--held-out", "no") == 0
    return ["evaluate", place.good]


def spoil_model(place: Place, edit: Callable[[Path], None]) -> list:
    edit(place.model)
    return ["predict", place.good, "new"]


def flip_a_weight(model: Path) -> None:
    data = bytearray((model / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (model / "weights.safetensors").write_bytes(data)


def cut_weights(model: Path) -> None:
    data = (model / "weights.safetensors").read_bytes()
    (model / "weights.safetensors").write_bytes(data[: len(data) // 2])


def replace_in_card(old: str, new: str) -> Callable[[Path], None]:
    def edit(model: Path) -> None:
        card = model / "model.json"
        assert old in card.read_text()
        card.write_text(card.read_text().replace(old, new, 1))

    return edit


# What is wrong, the command line, the exit code, words that the sentence must hold.
TABLE: list[tuple[str, Callable[[Place], list], int, str]] = [
    ("missing file", lambda p: p.add(p.folder / "nowhere.nii.gz"), INPUT, "does not exist"),
    ("empty file", lambda p: p.add(p.file("empty.nii.gz", b"")), INPUT, "is empty"),
    ("truncated file", lambda p: p.add(truncated(p)), INPUT, "cut off|damaged"),
    ("not an image", lambda p: p.add(p.file("text.nii.gz", b"hello, world\n" * 99)), INPUT, "not an image|damaged"),
    ("2D", lambda p: p.add(p.image("flat.nrrd", sitk.Image(8, 8, sitk.sitkFloat32))), INPUT, "two-dimensional|single"),
    ("4D", lambda p: p.add(p.image("time.nii.gz", sitk.Image([8, 8, 8, 3], sitk.sitkInt16))), INPUT, "four dimensions"),
    ("RGB", lambda p: p.add(p.image("rgb.mha", sitk.Image([8, 8, 8], sitk.sitkVectorUInt8, 3))), INPUT, "per voxel"),
    ("one slice", lambda p: p.add(p.image("one.nii.gz", volume(size=(1, 14, 16)))), INPUT, "single slice"),
    ("NaN", lambda p: p.add(p.image("nan.nii.gz", with_value(np.nan))), INPUT, "finite"),
    ("infinite", lambda p: p.add(p.image("inf.nii.gz", with_value(np.inf))), INPUT, "finite"),
    ("zero spacing", lambda p: p.add(nrrd_with_spacing(p, "0 1 1")), INPUT, "spacing"),
    ("absurd spacing", lambda p: p.add(nrrd_with_spacing(p, "4000 1 1")), INPUT, "spacing"),
    ("label on another grid",
     lambda p: p.add(p.scan, "--label", p.image("l.nii.gz", shifted(outline()))), INPUT, "grid"),
    ("label value not in the table",
     lambda p: p.add(p.scan, "--label", p.image("l.nii.gz", outline(value=7))), INPUT, r"value\(s\) 7"),
    ("channels of different geometry", two_channels, INPUT, "channels of one case"),
    ("too many channels", lambda p: p.add(p.scan, p.scan), INPUT, "2 image"),
    ("uneven DICOM slices", lambda p: p.add(dicom_without_a_slice(p)), INPUT, "unevenly spaced"),
    ("folder without a scan", lambda p: ["add", p.good, "--images", p.model], INPUT, "no NIfTI"),
    ("name taken", lambda p: p.add(p.scan, "--name", "a"), INPUT, "already"),
    ("no labelled case", lambda p: ["train", p.bare, *TINY], INPUT, "accepted outline"),
    ("all labels empty", empty_outlines, INPUT, "empty"),
    ("no held-out case", no_held_out, INPUT, "held-out"),
    ("nothing to predict with", lambda p: ["predict", p.bare], MODEL, "no model"),
    ("unknown device", lambda p: ["predict", p.good, "--device", "gpu7"], DEVICE, "gpu7"),
    ("device that is not there", lambda p: ["train", p.good, "--device", "cuda:99"], DEVICE, "cuda:99"),
    ("unknown plan value", lambda p: ["train", p.good, "--set", "patsch=[8,8,8]"], INPUT, "patsch"),
    ("plan value of a wrong kind", lambda p: ["train", p.good, *TINY, "--set", "batch_labelled=x"], INPUT, "batch_l"),
    ("plan value of a wrong length", lambda p: ["train", p.good, *TINY, "--set", "patch=[8]"], INPUT, "patch"),
    ("a rate of 0", lambda p: ["train", p.good, *TINY, "--set", "learning_rate=0"], INPUT, "from 1e-09 to 1"),
    ("a share above 1", lambda p: ["train", p.good, *TINY, "--set", "foreground=5"], INPUT, "from 0 to 1"),
    ("half an option", lambda p: ["train", p.good, *TINY, "--minute", "1"], INPUT, "Did you mean --minutes"),
    ("empty batch", lambda p: ["train", p.good, *TINY, "--set", "batch_labelled=0"], INPUT, "batch_l"),
    ("unknown method", lambda p: ["train", p.good, *TINY, "--method", "magic"], INPUT, "magic"),
    ("no time", lambda p: ["train", p.good, "--minutes", "-1"], INPUT, "above 0|possible"),
    ("unknown case", lambda p: ["predict", p.good, "nobody"], PROJECT, "nobody"),
    ("unknown run", lambda p: ["train", p.good, "--resume", "run_9"], PROJECT, "run_9"),
    ("time for a run that has a plan", lambda p: ["train", p.good, "--resume", "--minutes", "9"], INPUT, "--minutes"),
    ("a device for a run", lambda p: ["train", p.good, "--attach", "--device", "cpu"], INPUT, "--device"),
    ("settings of no job", lambda p: ["train", p.good, "--cluster-set", "mem=9G"], INPUT, "--cluster slurm"),
    ("parts of no job", lambda p: ["predict", p.good, "--jobs", "3"], INPUT, "--cluster"),
    ("a job of a scan", lambda p: ["predict", p.scan, "--model", p.model, "--cluster", "local"], INPUT, "of a project"),
    ("a computer for a scan", lambda p: ["predict", p.scan, "--model", p.model, "--computer", "x"], INPUT, "project"),
    ("nothing runs", lambda p: ["train", p.good, "--stop"], PROJECT, "finished"),
    ("project missing", lambda p: ["predict", p.folder / "nowhere"], PROJECT, "no project folder"),
    ("not a project", lambda p: ["project", "show", p.model], PROJECT, "not a BARL project"),
    ("project of a newer version", newer_project, PROJECT, "newer version"),
    ("corrupt database", damaged_database, PROJECT, "damaged|not a BARL"),
    ("project there already", lambda p: ["project", "new", p.good, "--label", "1=a"], PROJECT, "already|not empty"),
    ("no label", lambda p: ["project", "new", p.folder / "x"], INPUT, "label table is empty"),
    ("label without a name", lambda p: ["project", "new", p.folder / "x", "--label", "tumor"], INPUT, "VALUE=NAME"),
    ("altered weights", lambda p: spoil_model(p, flip_a_weight), MODEL, "altered"),
    ("truncated weights", lambda p: spoil_model(p, cut_weights), MODEL, "truncated"),
    ("model of the future", lambda p: spoil_model(p, replace_in_card('"format": 1', '"format": 9')), MODEL, "format 9"),
    ("model of another channel", lambda p: spoil_model(p, replace_in_card('"CT"', '"MR"')), MODEL, "MR"),
    ("model that is none", lambda p: ["predict", p.good, "--model", p.folder], MODEL, "no model.json"),
    ("scan with too many channels",
     lambda p: ["predict", "--model", p.model, "--output", p.folder / "o.nii.gz", p.scan, p.scan], MODEL, "channel"),
    ("output without a folder",
     lambda p: ["predict", "--model", p.model, "--output", p.folder / "no" / "o.nii.gz", p.scan], INPUT, "no folder"),
    ("output of no known kind",
     lambda p: ["predict", "--model", p.model, "--output", p.folder / "o.txt", p.scan], INPUT, "o.txt"),
    ("region outside the scan",
     lambda p: ["predict", p.good, "new", "--roi", *["900", "910", "900", "910", "900", "910"]], INPUT, "outside"),
    ("export onto a file", lambda p: ["export", p.good, p.scan], INPUT, "scan.nii.gz"),
    ("unknown command", lambda p: ["segment"], INPUT, "segment"),
    ("argument missing", lambda p: ["train"], INPUT, "PROJECT"),
]  # fmt: skip


def check(code: int, out: str, err: str, expected: int, words: str) -> None:
    """One line on standard error: a sentence, then what to do; nothing on standard output."""
    assert code == expected, err
    assert out == ""
    assert len(err.splitlines()) == 1 and err.startswith("barl: "), err
    assert "Traceback" not in err and re.search(words, err), err
    sentence, _, remedy = err.removeprefix("barl: ").strip().partition(". ")
    assert sentence and len(remedy) > 5, f"no remedy: {err}"


@pytest.mark.parametrize(("arrange", "expected", "words"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_bad_input(place, capfd, arrange, expected, words):
    line = arrange(place)
    before = saved(place.good), saved(place.bare)
    capfd.readouterr()
    code = run(*line)
    out, err = capfd.readouterr()
    check(code, out, err, expected, words)
    assert (saved(place.good), saved(place.bare)) == before


def test_the_json_form_says_the_same(place, capfd):
    import json

    assert run("predict", place.bare, "--json") == MODEL
    error = json.loads(capfd.readouterr().out)["error"]
    assert error["class"] == "ModelError" and error["exit_code"] == MODEL and error["message"] and error["remedy"]


def test_one_labelled_case_goes_on_with_a_note(place, capfd):
    assert run("project", "mark", place.good, "b", "h", "--exclude") == 0
    assert run("train", place.good, "--from-scratch", "--iterations", 1, *TINY) == 0
    assert "Only one case is outlined" in capfd.readouterr().err


def test_the_tilted_uneven_ct(place, data_dir, capfd):
    with tarfile.open(data_dir / "fullsize" / "ct_ge_tilt_dicom" / "ge.tar.xz") as archive:
        archive.extractall(place.folder / "ge", filter="data")
    before = saved(place.good)
    code = run("add", place.good, place.folder / "ge", "--name", "ge")
    check(code, *capfd.readouterr(), INPUT, "unevenly spaced slices")
    assert saved(place.good) == before


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of its own, 2 MB large."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if not sys.platform.startswith("linux") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk(place, small_disk, capfd):
    project = Path(shutil.copytree(place.good, small_disk / "p"))
    large = place.image("large.nii.gz", volume(size=(120, 120, 120)))
    before = saved(project)
    check(run("add", project, large), *capfd.readouterr(), DISK, "full")
    room = shutil.disk_usage(small_disk).free
    (small_disk / "filler").write_bytes(bytes(max(0, room - 4096)))
    check(run("predict", project, "new", "--device", "cpu"), *capfd.readouterr(), DISK, "full")
    check(run("train", project, *TINY, "--iterations", 1), *capfd.readouterr(), DISK, "full")
    with Project.open(project) as opened, pytest.raises(StorageError, match="The disk is full"):
        opened.models.add(place.model, {})
    after = saved(project)
    assert {name: after[name] for name in before if name != "project.db"} == {
        name: digest for name, digest in before.items() if name != "project.db"
    }
    (small_disk / "filler").unlink()
    assert run("project", "verify", project) == 0
    assert run("predict", project, "new", "--device", "cpu") == 0


def test_a_read_only_disk(place, small_disk, capfd):
    project = Path(shutil.copytree(place.good, small_disk / "p"))
    before = saved(project)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for words in (["predict", project], ["train", project], ["add", project, place.scan, "--name", "x"]):
        check(run(*words), *capfd.readouterr(), DISK, "cannot be written|read-only")
    assert run("project", "show", project) == 0  # reading goes on
    assert run("evaluate", project, "--device", "cpu") == 0
    assert saved(project) == before
