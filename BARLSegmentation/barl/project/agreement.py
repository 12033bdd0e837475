# SPDX-License-Identifier: Apache-2.0
"""Agreement of predictions with the outlines accepted after them: measured once, kept in the journal."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from barl.errors import ProjectError
from barl.images.overlap import dice_by_label
from barl.images.quiet import quiet
from barl.progress import SILENT, Progress, Stage
from barl.project.database import Database
from barl.project.definition import Definition
from barl.project.files import inside
from barl.project.journal import Journal

_ACTION = "agreement measured"
# The newest accepted outline of each case and the last prediction before it. A later prediction had no part in it.
_PAIRS = """
SELECT a.case_id, p.id AS prediction, p.file AS prediction_file, a.id AS correction, a.file AS correction_file
FROM revisions a JOIN revisions p ON p.number = (
    SELECT MAX(number) FROM revisions WHERE case_id = a.case_id AND kind = 'prediction' AND number < a.number)
WHERE a.number IN (SELECT MAX(number) FROM revisions WHERE kind = 'accepted' GROUP BY case_id)
"""


@dataclass(frozen=True, slots=True)
class Agreement:
    """A prediction and the accepted outline that came after it.

    Attributes:
        case_id: Their case.
        prediction: Id of the predicted revision.
        correction: Id of the accepted one.
        measured: Whether they have been compared.
        dice: Mean over the labels that either has; None: not measured, or both are empty.
    """

    case_id: str
    prediction: str
    correction: str
    measured: bool
    dice: float | None


class Agreements:
    """The predictions of a project, compared with their corrections."""

    def __init__(self, database: Database, definition: Definition, journal: Journal) -> None:
        self._database = database
        self._definition = definition
        self._journal = journal

    def all(self) -> dict[str, Agreement]:
        """Case id -> its newest pair of prediction and accepted outline, of the cases that have one."""
        measured = self._measured()
        pairs = {row["case_id"]: (row["prediction"], row["correction"]) for row in self._database.rows(_PAIRS)}
        return {case: Agreement(case, *pair, pair in measured, measured.get(pair)) for case, pair in pairs.items()}

    def measure(self, progress: Progress = SILENT) -> int:
        """Compare the pairs that have not been compared yet and enter the result in the journal; returns how many.

        Raises:
            ProjectError: A label map is damaged or missing, or another program is changing the project.
        """
        self._database.must_be_writable()
        measured = self._measured()
        pairs = [row for row in self._database.rows(_PAIRS) if (row["prediction"], row["correction"]) not in measured]
        for row, _ in progress.stage(Stage.MEASURING).each(pairs):
            home = inside(self._database.folder / "cases", row["case_id"], "revisions")
            prediction, correction = (
                _read(inside(home, row[f"{which}_file"])) for which in ("prediction", "correction")
            )
            if looked := self._looked(row["correction"]):
                mask = _read(inside(home, looked))
                prediction, correction = prediction * mask, correction * mask
            by_label = dice_by_label(prediction, correction, self._definition.values)
            mean = round(float(np.mean(list(by_label.values()))), 4) if by_label else None
            self._journal.log(
                _ACTION,
                row["case_id"],
                prediction=row["prediction"],
                correction=row["correction"],
                dice=mean,
                labels={str(value): round(share, 4) for value, share in by_label.items()},
            )
        return len(pairs)

    def _looked(self, revision: str) -> str | None:
        """The mask of the voxels that were looked at for an outline; None: the whole scan."""
        row = self._database.one("SELECT * FROM revisions WHERE id = ?", (revision,))
        return row["looked_file"] if "looked_file" in row.keys() else None  # noqa: SIM118 (a row is no dict)

    def _measured(self) -> dict[tuple[str, str], float | None]:
        rows = self._database.rows("SELECT facts FROM journal WHERE action = ?", (_ACTION,))
        with self._database.decoding():
            facts = [json.loads(row["facts"]) for row in rows]
            return {(fact["prediction"], fact["correction"]): fact["dice"] for fact in facts}


def _read(path: Path) -> np.ndarray:
    try:
        with quiet():
            return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError:
        raise ProjectError(f"The file {path.name} cannot be read.", "Restore it from a backup.") from None
