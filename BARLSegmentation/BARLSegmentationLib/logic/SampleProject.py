# SPDX-License-Identifier: Apache-2.0
"""The entries of the module in Slicer's Sample Data: a scan to predict, and a project to do the whole loop with."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

if TYPE_CHECKING:
    import SampleData

CATEGORY = "BARL"
PROJECT_NAME = "BARLHippocampus"
# Slicer's own sample, by the checksum that Slicer itself asks for.
HEAD_SHA256 = "cc211f0dfd9a05ca3841ce1141b292898b2dd2d3f08286affadf823a7e58df93"
HEAD = f"https://github.com/Slicer/SlicerTestingData/releases/download/SHA256/{HEAD_SHA256}"
# How many subjects of the set become cases, in this order.
OUTLINED, HELD_OUT, UNTOUCHED = 4, 6, 14


def register(icons: Path) -> None:
    """Add the samples to Slicer's Sample Data.

    Args:
        icons: Folder of the thumbnails.
    """
    from barl import hippocampus
    from SampleData import SampleDataLogic

    SampleDataLogic.registerCustomSampleDataCategory(CATEGORY, title=_("BARL"))
    SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=PROJECT_NAME,
        thumbnailFileName=str(icons / "BARLHippocampus.png"),
        uris=hippocampus.ADDRESS,
        fileNames=hippocampus.ARCHIVE_NAME,
        checksums=f"MD5:{hippocampus.MD5}",
        loadFiles=False,
        customDownloader=openSampleProject,
    )
    SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName="BARLHead",
        thumbnailFileName=str(icons / "BARLHead.png"),
        uris=HEAD,
        fileNames="BARLHead.nrrd",
        nodeNames="BARLHead",
        checksums=f"SHA256:{HEAD_SHA256}",
    )


def openSampleProject(source: SampleData.SampleDataSource) -> list[str]:
    """Download the hippocampus set, make a project of some of its scans and open it in the module.

    A project made before is opened as it is: the work done in it stays.

    Args:
        source: Of Sample Data.

    Returns:
        The project's folder, in a list as Sample Data wants it; empty if the set could not be had.
    """
    from barl.errors import BarlError

    folder = Path(slicer.app.defaultScenePath) / "BARL hippocampus sample"
    if not (folder / "project.db").is_file():
        archive = Path(slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory()) / source.fileNames[0]
        with slicer.util.WaitCursor():
            if not slicer.util.downloadFile(source.uris[0], str(archive), source.checksums[0]):
                slicer.util.errorDisplay(_("The hippocampus set could not be downloaded. Check the network."))
                return []
            try:
                makeProject(archive, folder)
            except (BarlError, OSError, tarfile.TarError) as error:
                slicer.util.errorDisplay(_("The sample project could not be made: {reason}").format(reason=error))
                return []
    slicer.util.selectModule("BARLSegmentation")
    session = slicer.util.getModuleWidget("BARLSegmentation").session
    with session.reporting():
        session.openProject(folder)
    return [str(folder)]


def makeProject(
    archive: Path, folder: Path, outlined: int = OUTLINED, heldOut: int = HELD_OUT, untouched: int = UNTOUCHED
) -> None:
    """Make a project from the archive of the Decathlon's hippocampus task.

    One scan of each subject is taken.

    Args:
        archive: The .tar file.
        folder: Of the project; new or empty.
        outlined: How many cases have an accepted outline.
        heldOut: How many outlined cases are held out for evaluation.
        untouched: How many cases have none.

    Raises:
        barl.errors.BarlError: The archive holds too few scans, or the folder cannot be written.
    """
    from barl import hippocampus
    from barl.errors import InputError
    from barl.project.labels import Channel
    from barl.project.store import Project

    with tempfile.TemporaryDirectory() as place:
        hippocampus.unpack(archive, Path(place))
        pairs = hippocampus.one_scan_per_subject(Path(place))[: outlined + heldOut + untouched]
        if len(pairs) < outlined + heldOut + untouched:
            raise InputError("The archive of the hippocampus set is incomplete.", "Delete it and download it again.")
        with Project.create(folder, "Hippocampus sample", hippocampus.LABELS, [Channel("T1")]) as project:
            try:
                for number, (image, label) in enumerate(pairs):
                    project.cases.add(
                        image.name.partition(".")[0].replace("_", " "),
                        [image],
                        label=label if number < outlined + heldOut else None,
                        held_out=outlined <= number < outlined + heldOut,
                        author="Medical Segmentation Decathlon",
                    )
            except BaseException:  # half a project would pass as complete next time
                project.close()
                shutil.rmtree(folder, ignore_errors=True)
                raise
