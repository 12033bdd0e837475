# SPDX-License-Identifier: Apache-2.0
"""What passes between the window and the process that fills: arrays in a folder of files. Any thread may do it."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from BARLSegmentationLib.logic.Drawing import Drawn, Fill, digestOf

if TYPE_CHECKING:
    from barl.project.records import Revision
    from barl.worker.messages import FilledScan, FillScan, PrepareFill

LABELS, DRAWN, FILLED, UNCERTAINTY = "labels.npy", "drawn.npy", "filled.npy", "uncertainty.npy"


@dataclass(frozen=True)
class Filled:
    """The outcome of a fill.

    Attributes:
        labels: The whole outline ``[k, j, i]``.
        digest: Of it.
        fill: What is kept of it.
        filledBy: Program and version.
    """

    labels: np.ndarray
    digest: bytes
    fill: Fill
    filledBy: str


class FillExchange:
    """A folder of the files, in Slicer's temporary folder; made when first needed.

    Args:
        parent: Where it is made.
    """

    def __init__(self, parent: str | Path | None = None) -> None:
        self._parent = parent
        self._folder: Path | None = None

    def write(self, labels: np.ndarray, drawn: Drawn) -> None:
        """The label map, and what of it counts as drawn."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="barl-fill-", dir=self._parent))
        np.save(self._folder / LABELS, labels)
        np.save(self._folder / DRAWN, np.packbits(drawn.mask()))

    def request(self, scans: list[Path], prior: Revision | None) -> FillScan:
        """What to ask the process for, after ``write``; arguments as of ``preparation``."""
        from barl.worker.messages import FillScan

        return FillScan(folder=str(self._folder), **_files(scans, prior))

    @staticmethod
    def preparation(scans: list[Path], prior: Revision | None) -> PrepareFill:
        """What has the process start and read the scan.

        Args:
            scans: One file per channel.
            prior: The prediction that is corrected; None: there is none.
        """
        from barl.worker.messages import PrepareFill

        return PrepareFill(**_files(scans, prior))

    def read(self, answer: FilledScan, shape: tuple[int, ...], kind: np.dtype) -> Filled:
        """What the process has made."""
        part = np.load(self._folder / FILLED, allow_pickle=False)
        unsure = np.load(self._folder / UNCERTAINTY, allow_pickle=False)
        box = tuple(slice(a, a + n) for a, n in zip(answer.start, part.shape, strict=True))
        labels = np.zeros(shape, kind)
        labels[box] = part
        fill = Fill(box, unsure, answer.hotspots, answer.volume_ml, answer.unsure_ml, answer.expected)
        return Filled(labels, digestOf(labels), fill, answer.filled_by)

    def close(self) -> None:
        """Remove the files: they show a patient's anatomy."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _files(scans: list[Path], prior: Revision | None) -> dict:
    uncertainty = prior.uncertainty_path if prior is not None else None
    return {
        "scans": [str(scan) for scan in scans],
        "prior": str(prior.path) if prior is not None else None,
        "prior_uncertainty": str(uncertainty) if uncertainty is not None else None,
    }
