# SPDX-License-Identifier: Apache-2.0
"""The DICOM files of a folder: scans by series, other objects, and files that are damaged."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from barl.images.dicom.headers import Header, looks_like_dicom, read_header, sop_class_of
from barl.images.dicom.objects import DIRECTORY, SEGMENTATIONS, STRUCTURE_SET, UNKNOWN, is_private

_ENDINGS = (".dcm", ".dicom", ".dic", ".ima")


@dataclass
class Found:
    """What the files of a folder are.

    Attributes:
        scans: The files of each series; patients that share the UID of a series are kept apart.
        others: What the objects that are no scans are, and how many of each there are.
        damaged: Files that are DICOM, or were once, and cannot be read.
    """

    scans: list[list[Header]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    damaged: list[Path] = field(default_factory=list)


def regular_files(folder: Path) -> list[Path]:
    """The files in a folder and the folders in it, without hidden ones, devices and pipes."""
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(root) / name
            if not name.startswith(".") and is_regular(path):
                found.append(path)
    return found


def is_regular(path: Path) -> bool:
    """Whether a path leads to a file with content, not to a pipe, a device or nothing."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def outline_objects(folder: Path) -> list[Path]:
    """The DICOM files in a folder and the folders in it that hold outlines: segmentations and structure sets."""
    outlines = {*SEGMENTATIONS, STRUCTURE_SET}
    return [path for path in regular_files(folder) if looks_like_dicom(path) and sop_class_of(path) in outlines]


def sort_files(paths: Iterable[Path]) -> Found:
    """Read the headers of files and sort them."""
    found = Found()
    by_series: dict[tuple[str, str], list[Header]] = defaultdict(list)
    names: dict[tuple[str, str], str] = {}
    foreign, unknown = [], []
    shapes = set()
    for path in paths:
        if not looks_like_dicom(path):
            foreign.append(path)
            continue
        header = read_header(path)
        if header is None or header.is_damaged:
            found.damaged.append(path)
        elif header.is_scan:
            by_series[header.text("SeriesInstanceUID"), _patient_of(header, names)].append(header)
            shapes.add(_shape(path))
        elif header.kind == UNKNOWN:
            unknown.append(header)
        elif header.sop_class != DIRECTORY:
            found.others[header.kind] += 1
    uids = {uid for uid, _ in by_series}
    for header in unknown:
        is_slice = header.number("Rows") and header.text("SeriesInstanceUID") in uids
        if is_slice or not is_private(header.sop_class):
            found.damaged.append(header.path)
        else:
            found.others[header.kind] += 1
    # A slice whose beginning is lost, or of which nothing is left, is no DICOM file any more but is named like one.
    for path in foreign:
        if path.suffix.lower() in _ENDINGS or (by_series and _shape(path) in shapes):
            found.damaged.append(path)
    found.scans = _join_single_slices(list(by_series.values()))
    return found


def _patient_of(header: Header, names: dict[tuple[str, str], str]) -> str:
    """Who is in a scan: by the patient's number, or else by the first name in that series and study.

    So patients without a number are two only where their names and their studies both differ.

    Args:
        header: A slice.
        names: Series and study -> name; gets what is missing.
    """
    if number := header.text("PatientID"):
        return number
    # The same name may be written with other separators, padding or case.
    name = re.sub(r"[\W_]+", "", header.text("PatientName")).casefold()
    return names.setdefault((header.text("SeriesInstanceUID"), header.text("StudyInstanceUID")), name)


def _shape(path: Path) -> tuple[Path, str]:
    """Folder and name of a file with every number replaced."""
    return path.parent, re.sub(r"\d+", "#", path.name) if re.search(r"\d", path.name) else path.name


def _join_single_slices(series: list[list[Header]]) -> list[list[Header]]:
    """Some programs give every slice a series of its own: slices that agree in all else are one series."""
    result, single = [], defaultdict(list)
    for headers in series:
        if len(headers) > 1 or (headers[0].number("NumberOfFrames") or 1) > 1:
            result.append(headers)
        else:
            single[_looks(headers[0])].extend(headers)
    return result + list(single.values())


def _looks(header: Header) -> tuple[str, ...]:
    keys = "StudyInstanceUID FrameOfReferenceUID Modality SeriesNumber SeriesDescription Rows Columns PixelSpacing"
    return tuple(header.text(key) for key in (*keys.split(), "ImageOrientationPatient"))
