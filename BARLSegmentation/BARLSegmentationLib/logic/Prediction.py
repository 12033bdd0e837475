# SPDX-License-Identifier: Apache-2.0
"""Lists models, writes volumes of the scene to files for the worker, and loads its results as nodes."""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.CaseLoader import ROLE_ATTRIBUTE, CaseLoader, segmentationName
from BARLSegmentationLib.logic.Outline import nodeToRAS
from BARLSegmentationLib.logic.Voxels import inOrder, readAhead

if TYPE_CHECKING:
    from barl.project.labels import Label
    from barl.project.store import Project
    from barl.worker.messages import Event, PredictFiles, Request

Answer = TypeVar("Answer")

_PIECE_BYTES = 8 << 20  # what is written at a time: a few milliseconds, so that Slicer's window stays alive
_NRRD_TYPES = {
    "i1": "int8",
    "u1": "uint8",
    "i2": "int16",
    "u2": "uint16",
    "i4": "int32",
    "u4": "uint32",
    "i8": "int64",
    "u8": "uint64",
    "f4": "float",
    "f8": "double",
}


def slicerPython() -> str:
    """The interpreter for the worker: PythonSlicer, which Slicer puts into PATH and which prepares its environment
    itself; outside Slicer this very interpreter."""
    return shutil.which("PythonSlicer") or sys.executable


def callWorker(request: Request[Answer], onEvent: Callable[[Event], None] | None = None) -> Answer:
    """Start a worker, send one request, wait for the answer and end the worker.

    Raises:
        barl.errors.BarlError: What the worker could not do, or that it could not be started.
    """
    from barl.worker.client import WorkerProcess

    with WorkerProcess(slicerPython()) as worker:
        return worker.call(request, on_event=onEvent)


@dataclass(frozen=True)
class Model:
    """The facts of a model that are read without loading it.

    Attributes:
        folder: Holds the model card and the weights.
        id: Its id in the project; empty for others.
        isCurrent: The project predicts with it unless another one is named.
        cleanup: What it does with the pieces and holes of its labels, in words; empty for nothing.
    """

    folder: Path
    name: str
    channels: list[str]
    labels: list[Label]
    id: str = ""
    isCurrent: bool = False
    cleanup: str = ""


def readModel(folder: str | Path) -> Model:
    """Read what is shown of a model from its card.

    Raises:
        barl.errors.ModelError: There is no card, or it cannot be used.
    """
    from barl.project.model_card import read_card

    card = read_card(Path(folder))
    return Model(Path(folder), card.name, card.channels, card.labels, cleanup=card.cleanup_in_words)


def modelsIn(folder: str | Path) -> list[Model]:
    """The models in the subfolders of a folder; what is no model is passed over."""
    from barl.errors import ModelError
    from barl.project.model_card import CARD_FILE

    found = []
    for card in sorted(Path(folder).glob(f"*/{CARD_FILE}")):
        try:
            found.append(readModel(card.parent))
        except ModelError:
            continue
    return found


def projectModels(project: Project) -> list[Model]:
    """The models of an open project, the current one first, then the newest first."""
    from barl.errors import ModelError

    found = []
    for row in project.models.all()[::-1]:
        try:
            model = readModel(row.folder)
        except ModelError:  # its folder is gone: it cannot be chosen
            continue
        found.append(replace(model, name=row.name, id=row.id, isCurrent=row.is_current))
    return sorted(found, key=lambda model: not model.isCurrent)


def roiBounds(
    roi: slicer.vtkMRMLMarkupsROINode | None, volume: slicer.vtkMRMLScalarVolumeNode | None = None
) -> list[float] | None:
    """The box of a ROI node, of a rotated one the box around it: x0, x1, y0, y1, z0, z1 in mm, LPS.

    Args:
        roi: The node; None: no box.
        volume: In whose own coordinates: where it lies under a transform, these are others than the world's.

    Raises:
        barl.errors.InputError: The box has no volume: it was not drawn yet.
    """
    if roi is None:
        return None
    bounds = [0.0] * 6
    roi.GetRASBounds(bounds)
    x0, x1, y0, y1, z0, z1 = bounds
    if not (x0 < x1 and y0 < y1 and z0 < z1):
        from barl.errors import InputError

        raise InputError(f"The region {roi.GetName()} is empty.", "Draw it in the slice views, or choose none.")
    if volume is not None and volume.GetParentTransformNode() is not None:
        corners, corner = [], [0.0] * 3
        for point in itertools.product((x0, x1), (y0, y1), (z0, z1)):
            volume.TransformPointFromWorld(point, corner)
            corners.append(tuple(corner))
        (x0, y0, z0), (x1, y1, z1) = np.min(corners, axis=0).tolist(), np.max(corners, axis=0).tolist()
    return [-x1, -x0, -y1, -y0, z0, z1]


def fitRoi(roi: slicer.vtkMRMLMarkupsROINode | None, volume: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Give a ROI node that has no extent yet that of a volume; one that was drawn is left as it is."""
    bounds = [0.0] * 6
    roi.GetRASBounds(bounds)
    if bounds[0] < bounds[1]:
        return
    volume.GetRASBounds(bounds)
    low, high = np.array(bounds[::2]), np.array(bounds[1::2])
    roi.SetCenter(*((low + high) / 2))
    roi.SetSize(*(high - low))


def objection(volumes: Sequence) -> str:
    """Why these volumes cannot be predicted, in one sentence; empty if they can.

    Transforms are refused, not applied: the segmentation would otherwise not lie where its scan lies.
    """
    for volume in volumes:
        if volume is None:
            return _("Choose a volume for each channel.")
        if volume.GetImageData() is None or volume.GetImageData().GetNumberOfPoints() == 0:
            return _("The volume {name} is empty.").format(name=volume.GetName())
        if volume.GetImageData().GetNumberOfScalarComponents() != 1:
            return _("The volume {name} has several values per voxel; choose one with a single value.").format(
                name=volume.GetName()
            )
        if volume.GetParentTransformNode() is not None:
            return _("The volume {name} is transformed: harden its transform first (Data module).").format(
                name=volume.GetName()
            )
    if len({volume.GetID() for volume in volumes}) < len(volumes):
        return _("A volume is chosen for two channels.")
    return ""


class VolumePrediction:
    """Predicts volumes that belong to no case: writes them to files for the worker and loads its results as nodes.

    Args:
        model: What predicts.
        volumes: One for each of its channels.
        folder: Where temporary files may lie; they go with ``close``.
    """

    def __init__(self, model: Model, volumes: Sequence, folder: str | Path | None = None) -> None:
        self.model = model
        self.volumes = list(volumes)
        self._written = [_stateOf(volume) for volume in self.volumes]
        # Windows does not remove a file that the worker has open: what is left then goes with Slicer's own folder.
        self._folder = tempfile.TemporaryDirectory(prefix="BARL-", dir=folder, ignore_cleanup_errors=True)
        home = Path(self._folder.name)
        self._scans = [home / f"channel{number}.nrrd" for number in range(len(self.volumes))]
        self._label, self._uncertainty = home / "label.nii.gz", home / "uncertainty.nii.gz"

    def request(self, device: str, fast: bool, roi: list[float] | None, cleanUp: bool = True) -> PredictFiles:
        """What to ask the worker for once the volumes are written; ``roi``: as ``roiBounds`` gives it."""
        from barl.worker.messages import PredictFiles

        return PredictFiles(
            model=str(self.model.folder),
            scans=[str(path) for path in self._scans],
            output=str(self._label),
            uncertainty=str(self._uncertainty),
            device=device,
            fast=fast,
            roi=roi,
            cleanup=cleanUp,
        )

    def write(self) -> Iterator[float]:
        """Write the volumes piece by piece; gives the share done, so that the window can be served in between.

        Raises:
            OSError: The disk is full or cannot be written.
            barl.errors.InputError: A volume was emptied meanwhile.
        """
        from barl.errors import InputError

        for number, (volume, path) in enumerate(zip(self.volumes, self._scans, strict=True)):
            if reason := objection([volume]):
                raise InputError(reason)
            for share in writeNrrd(volume, path):
                yield (number + share) / len(self.volumes)

    def changed(self) -> list[str]:
        """Names of volumes that hold something else than what is predicted: another time point, a filter's output."""
        pairs = zip(self.volumes, self._written, strict=True)
        return [volume.GetName() for volume, written in pairs if _stateOf(volume) != written]

    def readAhead(self) -> Generator[None, None, dict[Path, np.ndarray]]:
        """Read the results piece by piece; gives what ``load`` takes."""
        return readAhead([self._label, self._uncertainty])

    def load(self, ahead: Mapping[Path, np.ndarray] | None = None) -> tuple:
        """The results as nodes: segmentation and uncertainty; None if the scan is no longer in the scene."""
        scan = self.volumes[0]
        if scan.GetScene() is None:
            return None, None
        loader = CaseLoader(scan.GetScene(), inOrder(ahead or {}, scan))
        name = scan.GetName()
        unique = scan.GetScene().GetUniqueNameByString
        segmentation = loader.readSegmentation(
            self._label, unique(segmentationName(name)), self.model.labels, scan, {ROLE_ATTRIBUTE: "label"}
        )
        uncertainty = loader.readUncertainty(
            self._uncertainty, unique(f"{name} uncertainty"), {ROLE_ATTRIBUTE: "uncertainty"}, scan
        )
        for node in (segmentation, uncertainty):
            forgetFile(node)
        return segmentation, uncertainty

    def inWords(self, error: Exception) -> str:
        """Replace file names by volume names in the worker's message."""
        text = str(error)
        for path, volume in zip(self._scans, self.volumes, strict=True):
            text = text.replace(path.name, volume.GetName())
        return text

    def close(self) -> None:
        self._folder.cleanup()


def _stateOf(volume: slicer.vtkMRMLScalarVolumeNode) -> tuple:
    """Differs if the voxels of a volume or its place were changed meanwhile."""
    image = volume.GetImageData()
    return (None if image is None else image.GetMTime(), nodeToRAS(volume).tolist())


def forgetFile(node: slicer.vtkMRMLStorableNode) -> None:
    """Forget the node's temporary file, so that saving the scene asks for a new path."""
    storage = node.GetStorageNode()
    if storage is not None:
        node.GetScene().RemoveNode(storage)


def writeNrrd(volume: slicer.vtkMRMLScalarVolumeNode, path: Path, voxels: np.ndarray | None = None) -> Iterator[float]:
    """Write a scalar volume node, without its transform, as NRRD; gives the share done after each piece.

    ``voxels``: Instead of its own, ``[k, j, i]``.

    Written by hand because Slicer's and SimpleITK's writers hold up the window until the whole file is written: 0.2 s
    and more for a large scan.
    """
    array = slicer.util.arrayFromVolume(volume) if voxels is None else voxels
    kind = array.dtype.newbyteorder("<")
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    columns = [[matrix.GetElement(row, column) for row in range(3)] for column in range(4)]
    words = ["({!r},{!r},{!r})".format(*column) for column in columns]
    header = (
        "NRRD0004",
        f"type: {_NRRD_TYPES[kind.str[1:]]}",
        "dimension: 3",
        "space: right-anterior-superior",
        "sizes: " + " ".join(str(size) for size in reversed(array.shape)),
        "space directions: " + " ".join(words[:3]),
        "kinds: domain domain domain",
        "endian: little",
        "encoding: raw",
        f"space origin: {words[3]}",
    )
    step = max(1, _PIECE_BYTES // max(1, array[0].nbytes))
    with path.open("wb") as file:
        file.write(("\n".join(header) + "\n\n").encode("ascii"))
        for start in range(0, len(array), step):
            file.write(np.ascontiguousarray(array[start : start + step], kind).data)
            yield min(1.0, (start + step) / len(array))
