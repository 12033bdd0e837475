# SPDX-License-Identifier: Apache-2.0
"""What is usable but probably a mistake: it is taken only if the user confirms it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from enum import Enum, StrEnum, auto

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError
from barl.project.records import Revision

# An outline that differs from the accepted one in more than this share of the voxels that either has is a doubt.
LARGEST_DIFFERENCE = 0.5
_VALUES_OF_A_LABEL_MAP = 20


class Doubt(StrEnum):
    """Why something is taken only if it is confirmed; the values are those of ``--allow``."""

    EMPTY = "empty"
    DIFFERENT = "different"
    REPLACES = "replaces"
    NEWER = "newer"
    SAME_SCAN = "same-scan"
    LABEL_MAP = "label-map"
    NAME = "name"


class DoubtError(InputError):
    """Something that is taken only if the user confirms it.

    Args:
        doubt: What must be allowed so that it is taken.
        message: What is doubtful.
        remedy: What to do if it is a mistake; how to confirm it on the command line is added.
    """

    def __init__(self, doubt: Doubt, message: str, remedy: str) -> None:
        option = "--replace" if doubt is Doubt.REPLACES else f"--allow {doubt}"
        super().__init__(message, f"{remedy} If it is right, confirm it (on the command line: {option}).")
        self.doubt = doubt


def as_doubts(names: Collection[str]) -> list[Doubt]:
    """The doubts with these names; a text by itself is one name.

    Raises:
        InputError: There is no such doubt.
    """
    names = [names] if isinstance(names, str) else names
    unknown = sorted(set(names) - set(Doubt))
    if unknown:
        raise InputError(f"There is no doubt {unknown[0]!r} to allow.", f"Use: {', '.join(Doubt)}.")
    return [Doubt(name) for name in names]


class MaskDoubt(Enum):
    """What is probably wrong with the mask of what was looked at."""

    UNSEEN = auto()  # it leaves out every labeled voxel
    OUTLINE = auto()  # it holds the labeled voxels and no others


def check_not_empty(is_empty: bool, case_name: str, allow: Collection[Doubt]) -> None:
    """Refuse an outline without any voxel.

    Raises:
        DoubtError: The outline is empty, and ``allow`` lacks ``Doubt.EMPTY``.
    """
    if Doubt.EMPTY not in allow and is_empty:
        raise DoubtError(
            Doubt.EMPTY,
            f"The outline of {case_name!r} is empty.",
            "An accepted empty outline teaches that the case has none of the labels.",
        )


def mask_doubt(label: sitk.Image, looked: sitk.Image) -> MaskDoubt | None:
    """What is probably wrong with the mask of what was looked at of an outline; None: nothing, or either is empty.

    Args:
        label: Label map.
        looked: Mask on the same grid, not 0 where somebody has looked.
    """
    views = [sitk.GetArrayViewFromImage(image) for image in (label, looked)]
    if not (views[0].any() and views[1].any()):
        return None
    planes = [(plane != 0, mask != 0) for plane, mask in zip(*views, strict=True)]
    if not any((labeled & seen).any() for labeled, seen in planes):
        return MaskDoubt.UNSEEN
    if all(np.array_equal(labeled, seen) for labeled, seen in planes) and not views[0].all():
        return MaskDoubt.OUTLINE
    return None


def check_mask(doubt: MaskDoubt | None, case_name: str, allow: Collection[Doubt]) -> None:
    """Refuse an outline whose mask is probably another one, or the outline itself.

    Raises:
        DoubtError: There is a ``doubt``, and ``allow`` lacks ``Doubt.EMPTY``: no voxel of a label, or none of the
            background, was looked at.
    """
    if doubt is MaskDoubt.UNSEEN and Doubt.EMPTY not in allow:
        raise DoubtError(
            Doubt.EMPTY,
            f"All labeled voxels of the outline of {case_name!r} lie outside of the mask of what was looked at.",
            "The mask must not be 0 where somebody has looked; it may be inverted or that of another outline.",
        )
    if doubt is MaskDoubt.OUTLINE and Doubt.EMPTY not in allow:
        raise DoubtError(
            Doubt.EMPTY,
            f"The mask of what was looked at of {case_name!r} is the outline itself: no background was looked at.",
            "Give the masks as files of their own, or none if the whole scan was outlined.",
        )


def check_alike(
    label: sitk.Image,
    accepted: sitk.Image,
    case_name: str,
    revision: Revision,
    allow: Collection[Doubt],
    looked: Sequence[sitk.Image] = (),
) -> float:
    """Refuse an outline that is unlike the accepted one of the same case.

    Args:
        label, accepted: Label maps on one grid.
        revision: The accepted one.
        looked: Masks on the same grid; only voxels that are not 0 in all of them are compared.

    Returns:
        Share of the voxels outlined in either of them in which they differ; 0 if both are empty.

    Raises:
        DoubtError: The share is above ``LARGEST_DIFFERENCE``, and ``allow`` lacks ``Doubt.DIFFERENT``.
    """
    outlined = different = 0
    views = [sitk.GetArrayViewFromImage(image) for image in (label, accepted, *looked)]
    for new, old, *masks in zip(*views, strict=True):  # slice by slice: no copies of whole scans
        compared = np.logical_and.reduce([(new != 0) | (old != 0), *(mask != 0 for mask in masks)])
        outlined += int(np.count_nonzero(compared))
        different += int(np.count_nonzero(compared & (new != old)))
    share = different / outlined if outlined else 0.0
    if share > LARGEST_DIFFERENCE and Doubt.DIFFERENT not in allow:
        raise DoubtError(
            Doubt.DIFFERENT,
            f"The outline differs from the accepted one of {case_name!r} in {share:.0%} of their voxels "
            f"({revision.id}, by {revision.author}, {revision.created[:16].replace('T', ' ')} UTC).",
            "Check that it belongs to this case.",
        )
    return share


def voxel_digest(image: sitk.Image) -> str:
    """SHA-256 of the size and the values of a scan, whatever its pixel type and geometry."""
    digest = hashlib.sha256(repr(image.GetSize()).encode())
    for part in sitk.GetArrayViewFromImage(image):
        digest.update(np.ascontiguousarray(part, dtype="<f4").data)
    return digest.hexdigest()


def check_not_a_label_map(scan: sitk.Image, case_name: str, allow: Collection[Doubt]) -> None:
    """Refuse a scan that looks like a label map: mostly 0, and a few other values that are whole and not negative.

    Raises:
        DoubtError: It looks like one, and ``allow`` lacks ``Doubt.LABEL_MAP``.
    """
    if Doubt.LABEL_MAP in allow:
        return
    values: set[float] = set()
    background = 0
    for part in sitk.GetArrayViewFromImage(scan):
        values.update(np.unique(part).tolist())
        background += int(np.count_nonzero(part == 0))
        if len(values) > _VALUES_OF_A_LABEL_MAP:
            return
    if len(values) == 1 or background < scan.GetNumberOfPixels() / 2:
        return
    if all(value >= 0 and value == int(value) for value in values):
        raise DoubtError(
            Doubt.LABEL_MAP,
            f"The scan of {case_name!r} has only {len(values)} different values, like a label map.",
            "Give the scan itself; an outline is given as the label.",
        )
