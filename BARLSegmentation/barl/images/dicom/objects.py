# SPDX-License-Identifier: Apache-2.0
"""Which DICOM objects are scans, and names for those that are not (DICOM PS3.4, table B.5-1)."""

from __future__ import annotations

import re

from pydicom.uid import UID

_STORAGE = "1.2.840.10008.5.1.4.1.1."

# Images whose frames say where they lie in the patient.
_SCANS = {
    "2",  # CT
    "2.1",
    "2.2",
    "4",  # MR
    "4.1",
    "4.4",
    "128",  # PET
    "130",
    "128.1",
    "20",  # nuclear medicine
    "6.2",  # ultrasound volume
    "13.1.1",  # X-ray 3D
    "13.1.2",
    "13.1.3",
    "77.1.5.4",  # optical coherence tomography
}

# The longest beginning that fits decides.
_OTHERS = {
    "66.4": "a segmentation (DICOM SEG)",
    "66.7": "a segmentation (DICOM SEG)",
    "66.5": "a surface segmentation",
    "66": "raw data or a registration",
    "481.3": "a structure set (RTSTRUCT)",
    "481.2": "a dose map (RTDOSE)",
    "481": "a radiotherapy object",
    "7": "a secondary capture (a screenshot or a processed copy)",
    "104": "an encapsulated document (PDF)",
    "88": "a structured report (SR)",
    "11": "a presentation state",
    "30": "a parametric map",
    "1": "a projection image (X-ray)",
    "12": "a projection image (angiography)",
    "13": "a projection image",
    "3": "an ultrasound recording",
    "6": "an ultrasound image",
    "9": "a waveform",
    "4.2": "a spectrum (MR spectroscopy)",
    "4.3": "a color image",
    "77": "a photograph",
}
_SCAN_MODALITIES = {"CT", "MR", "PT", "NM"}
SEGMENTATIONS = (_STORAGE + "66.4", _STORAGE + "66.7")
STRUCTURE_SET = _STORAGE + "481.3"
DIRECTORY = "1.2.840.10008.1.3.10"
UNKNOWN = "an object of an unknown kind"
NUCLEAR_MEDICINE = _STORAGE + "20"


def is_scan(sop_class: str, modality: str) -> bool:
    """Whether an object is a scan; where the class is missing (old files), the modality decides."""
    return sop_class.removeprefix(_STORAGE) in _SCANS if sop_class else modality in _SCAN_MODALITIES


def describe(sop_class: str) -> str:
    """What an object that is no scan is, with an article."""
    if sop_class == DIRECTORY:
        return "the table of contents of a disc (DICOMDIR)"
    parts = sop_class.removeprefix(_STORAGE).split(".") if sop_class.startswith(_STORAGE) else []
    for length in range(len(parts), 0, -1):
        if name := _OTHERS.get(".".join(parts[:length])):
            return name
    name = UID(sop_class).name if sop_class else ""
    return f"an object of another kind ({name})" if name and name != sop_class else UNKNOWN


def is_private(sop_class: str) -> bool:
    """Whether a class is a manufacturer's own; what else is unknown is damaged."""
    return re.fullmatch(r"[0-2](\.(0|[1-9]\d*))+", sop_class) is not None and not sop_class.startswith("1.2.840.10008.")
