# SPDX-License-Identifier: Apache-2.0
"""The hippocampus set of the Medical Segmentation Decathlon (Task04), which the demo and Slicer's Sample Data use."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

from barl.project.labels import Code, Label, Terminology

# As in the tables of monai.apps.DecathlonDataset (MONAI 1.6); importing those takes seconds. The set gives no SHA-256.
ADDRESS = "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task04_Hippocampus.tar"
MD5 = "9d24dba78a72977dbd1d2e110310f31b"
ARCHIVE_NAME = "Task04_Hippocampus.tar"
LICENSE = (
    "CC BY-SA 4.0. Simpson et al., arXiv:1902.09063 (2019); Antonelli et al., Nature Communications 13:4128 (2022)."
)
_HIPPOCAMPUS = Terminology(
    Code("SCT", "123037004", "Anatomical Structure"),
    Code("SCT", "5366008", "Hippocampus"),
)
LABELS = (
    Label(1, "Anterior hippocampus", (86, 180, 233), _HIPPOCAMPUS),
    Label(2, "Posterior hippocampus", (230, 159, 0), _HIPPOCAMPUS),
)

_MEMBER = re.compile(r"^(?:\./)?Task04_Hippocampus/(images|labels)Tr/(hippocampus_\d+\.nii\.gz)$")


def unpack(archive: Path, folder: Path) -> None:
    """Write the outlined scans to ``folder/images`` and their label maps to ``folder/labels``, under equal names.

    Nothing else leaves the archive.

    Raises:
        OSError: The folder cannot be written.
        tarfile.TarError: The archive is damaged.
    """
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            match = _MEMBER.match(member.name)
            content = tar.extractfile(member) if match and member.isfile() else None
            if match and content:
                (folder / match[1] / match[2]).write_bytes(content.read())


def one_scan_per_subject(folder: Path) -> list[tuple[Path, Path]]:
    """Scan and label map of each subject in an unpacked set, in the order of the file numbers.

    File numbers 2k-1 and 2k are of one subject (intensities and volumes of such pairs agree, those of other neighbors
    do not), which the set does not say; a split by file would learn from the subjects that it is judged on.
    """
    subjects: dict[int, tuple[Path, Path]] = {}
    for image in sorted((folder / "images").glob("hippocampus_*.nii.gz")):
        label, number = folder / "labels" / image.name, re.search(r"_(\d+)\.nii", image.name)
        if number and label.is_file():
            subjects.setdefault((int(number[1]) + 1) // 2, (image, label))
    return list(subjects.values())
