# SPDX-License-Identifier: Apache-2.0
"""Rows of exchange.py: data sets, segmentations, surfaces, tables and models that go out."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from _exchange import ROOT, AbsentError, Place, array, barl, difference
from barl.images.geometry import Grid
from barl.project.labels import Channel, Label
from barl.project.store import Project

LABELS = [Label(1, "Anterior", (220, 10, 5)), Label(2, "Posterior", (0, 200, 255))]


def study(place: Place, count: int = 4, partial: bool = False) -> Path:
    """A project of hippocampus cases, the last one held out; with ``partial`` a mask of some planes in the first."""
    folder = place.home / "study"
    Project.create(folder, "P", LABELS, [Channel("T1")]).close()
    for number, (image, label) in enumerate(place.hippocampus(count)):
        words = ["--held-out"] if number == count - 1 else []
        if partial and number == 0:
            looked = sitk.GetArrayFromImage(sitk.ReadImage(str(label)))
            looked[:] = 0
            looked[::3] = 1
            mask = sitk.GetImageFromArray(looked)
            mask.CopyInformation(sitk.ReadImage(str(label)))
            sitk.WriteImage(mask, str(place.home / "looked.nii.gz"))
            words += ["--looked", str(place.home / "looked.nii.gz")]
        barl("add", folder, image, "--name", f"c{number}", "--label", label, *words)
    return folder


def nnunet_out(place: Place) -> tuple[str, str]:
    try:
        from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
        from nnunetv2.utilities.label_handling.label_handling import LabelManager
    except ImportError as error:
        raise AbsentError("nnunetv2 is not installed") from error
    out = place.home / "Dataset004_Hippocampus"
    barl("export", study(place, partial=True), out)
    verify_dataset_integrity(str(out), 1)
    manager = LabelManager(json.loads((out / "dataset.json").read_text())["labels"], None)
    ignored = manager.ignore_label
    image, label = place.hippocampus(1)[0]
    ours, theirs = array(out / "labelsTr/case_0001.nii.gz"), array(label)
    looked = np.zeros(ours.shape, bool)
    looked[::3] = True
    wrong = np.count_nonzero(ours != np.where(looked, theirs, ignored))
    second = place.hippocampus(2)[1]
    apart = [
        difference(out / "imagesTr/case_0001_0000.nii.gz", image),
        difference(out / "imagesTr/case_0002_0000.nii.gz", second[0]),
        difference(out / "labelsTr/case_0002.nii.gz", second[1]),
    ]
    moved = max(m for _, m in apart)
    voxels = wrong + sum(v for v, _ in apart)
    said = f"no complaint; ignore label {ignored}; {voxels} voxels differ, affines within {moved:.1g} mm"
    return "nnunetv2: verify_dataset_integrity, LabelManager; nibabel", said


def monai_out(place: Place) -> tuple[str, str]:
    from monai.data import load_decathlon_datalist
    from monai.transforms import LoadImage

    out = place.home / "out"
    barl("export", study(place), out, "--layout", "monai")
    training = load_decathlon_datalist(out / "dataset.json", True, "training")
    validation = load_decathlon_datalist(out / "dataset.json", True, "validation")
    differing, moved = 0, 0.0
    for entry, (image, label) in zip([*training, *validation], place.hippocampus(4), strict=True):
        for ours, theirs in ((entry["image"], image), (entry["label"], label)):
            one, other = (LoadImage(image_only=True)(path) for path in (ours, theirs))
            one = one[0] if one.ndim == 4 else one
            differing += int((one.as_tensor() != other.as_tensor()).sum())
            moved = max(moved, float((one.affine - other.affine).abs().max()))
    count = f"{len(training)} + {len(validation)} cases"
    return (
        "MONAI: load_decathlon_datalist, LoadImage",
        f"{count}: {differing} voxels differ, affines within {moved:.1g} mm",
    )


def seg_nrrd(place: Place) -> tuple[str, str]:
    """Out, through Slicer's own reader and writer, and in again."""
    try:
        import slicer
    except ImportError as error:
        raise AbsentError("slicer-core is not installed") from error
    import nrrd

    scene = slicer.vtkMRMLScene()
    folder, out = study(place), place.home / "out"
    barl("export", folder, out, "--layout", "seg-nrrd")
    label = place.hippocampus(1)[0][1]
    read, _ = nrrd.read(str(out / "case_0001.seg.nrrd"), index_order="C")
    differing = {"pynrrd": np.count_nonzero(read != array(label))}
    image = sitk.ReadImage(str(out / "case_0001.seg.nrrd"))
    differing["SimpleITK"] = np.count_nonzero(sitk.GetArrayFromImage(image) != array(label))
    moved = np.abs(np.array(image.GetOrigin()) - sitk.ReadImage(str(label)).GetOrigin()).max()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    scene.AddNode(storage)
    storage.SetFileName(str(out / "case_0001.seg.nrrd"))
    assert storage.ReadData(node)
    segments = node.GetSegmentation()
    names = sorted(segments.GetNthSegment(n).GetName() for n in range(segments.GetNumberOfSegments()))
    assert names == ["Anterior", "Posterior"]
    storage.SetFileName(str(place.home / "written.seg.nrrd"))
    assert storage.WriteData(node)
    scan = place.hippocampus(1)[0][0]
    barl("add", folder, scan, "--name", "again", "--label", place.home / "written.seg.nrrd", "--allow", "same-scan")
    with Project.open(folder, read_only=True) as project:
        back = project.revisions.accepted_label("again")
    differing["Slicer's reader and writer, and in again"] = np.count_nonzero(array(back) != array(label))
    said = ", ".join(f"{name} {count}" for name, count in differing.items())
    return "slicer-core, SimpleITK, pynrrd", f"voxels that differ: {said}; origin within {moved:.1g} mm"


def surfaces_out(place: Place) -> tuple[str, str]:
    import vtk

    folder, worst, closed = study(place), {}, 0
    grid = Grid.of(sitk.ReadImage(str(place.hippocampus(1)[0][1])))
    voxels = array(place.hippocampus(1)[0][1])
    for form, reader in (("stl", vtk.vtkSTLReader()), ("obj", vtk.vtkOBJReader())):
        barl("export", folder, place.home / form, "--layout", form)
        apart = []
        for label in LABELS:
            reader.SetFileName(str(place.home / form / f"case_0001/{label.value}_{label.name}.{form}"))
            reader.Update()
            edges = vtk.vtkFeatureEdges()
            edges.SetInputData(reader.GetOutput())
            edges.FeatureEdgesOff()
            edges.ManifoldEdgesOff()
            edges.Update()
            closed += edges.GetOutput().GetNumberOfCells() == 0
            mass = vtk.vtkMassProperties()
            mass.SetInputData(reader.GetOutput())
            mass.Update()
            ml = np.count_nonzero(voxels == label.value) * grid.voxel_ml
            apart.append(abs(mass.GetVolume() / 1000 / ml - 1))
        worst[form] = max(apart)
    said = ", ".join(f"{form} within {100 * share:.1f} %" for form, share in worst.items())
    return "VTK: readers, vtkFeatureEdges, vtkMassProperties", f"{closed} of 4 surfaces closed; volumes: {said}"


def table_out(place: Place) -> tuple[str, str]:
    import csv

    folder = study(place)
    barl("export", folder, place.home / "out", "--layout", "table")
    with (place.home / "out/volumes.csv").open(encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    labels = {f"case_{number:04d}": label for number, (_, label) in enumerate(place.hippocampus(4), 1)}
    apart, counts = 0.0, 0
    for row in rows:
        image = sitk.ReadImage(str(labels[row["case"]])) == int(row["label"])
        shape = sitk.LabelShapeStatisticsImageFilter()
        shape.Execute(image)
        apart = max(apart, abs(float(row["volume_ml"]) - shape.GetPhysicalSize(1) / 1000))
        pieces = sitk.ConnectedComponentImageFilter()
        pieces.FullyConnectedOn()
        pieces.Execute(image)
        counts += pieces.GetObjectCount() != int(row["lesions"])
    return "SimpleITK: LabelShapeStatistics, ConnectedComponent", (
        f"{len(rows)} rows: volumes within {apart:.1g} ml, {counts} counts of pieces differ"
    )


def model_out(place: Place) -> tuple[str, str]:
    from safetensors.numpy import load, load_file

    shipped = ROOT / "BARLSegmentation/Resources/Models/hippocampus"
    shutil.copytree(shipped, place.home / "model")
    for name, model in (("sender", "model"), ("receiver", "model.zip")):
        Project.create(place.home / name, "P", LABELS, [Channel("T1")]).close()
        barl("models", "import", place.home / name, place.home / model, "--promote")
        if name == "sender":
            barl("models", "export", place.home / name, place.home / "model.zip")
    barl("models", "check", place.home / "model.zip")
    expected = load_file(shipped / "weights.safetensors")
    with zipfile.ZipFile(place.home / "model.zip") as file:
        (name,) = (name for name in file.namelist() if name.endswith(".safetensors"))
        sent = load(file.read(name))
    with Project.open(place.home / "receiver", read_only=True) as project:
        back = load_file(project.models.current().folder / "weights.safetensors")
    differing = sum(
        not (np.array_equal(sent[key], values) and np.array_equal(back[key], values))
        for key, values in expected.items()
    )
    megabytes = (place.home / "model.zip").stat().st_size / 1e6
    return "zipfile, safetensors", f"{differing} of {len(expected)} tensors differ ({megabytes:.1f} MB)"
