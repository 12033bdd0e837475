# SPDX-License-Identifier: Apache-2.0
"""Prediction of the cases of a project, or of one scan without a project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from barl.errors import InputError
from barl.images.geometry import Roi
from barl.images.reading import read_channels, write_image
from barl.inference.predictor import Predictor
from barl.jobs.choice import choose_cases, choose_model
from barl.models.disk import check_channels
from barl.progress import Progress, silent
from barl.project.model_card import read_card
from barl.project.states import RevisionKind
from barl.project.store import Project

#: Where a stage of one prediction begins and how much of it it is, so that one bar runs through all cases.
_SHARES = {"preparing": (0.0, 0.05), "predicting": (0.05, 0.85), "restoring": (0.9, 0.1)}


class WarmPredictors:
    """Predictors kept loaded, so that the second request pays for the network's time alone.

    Args:
        keep: How many; one model is the rule, a second one for comparisons.
    """

    def __init__(self, keep: int = 2) -> None:
        self._keep = keep
        self._loaded: dict[tuple, Predictor] = {}

    def get(self, folder: Path, device: str = "auto", fast: bool = False) -> Predictor:
        """The predictor of a model folder, loaded anew if the model there has changed.

        Raises:
            ModelError: The folder holds no model that can be used.
            DeviceError: There is no such device.
        """
        card = read_card(folder)
        key = (card.id, card.weights_sha256, device, fast)
        predictor = self._loaded.pop(key, None)
        if predictor is None:
            while len(self._loaded) >= self._keep:  # before loading: two models at once may be one too many
                self._loaded.pop(next(iter(self._loaded)))
            predictor = Predictor.load(folder, device=device, fast=fast)
        self._loaded[key] = predictor  # the newest last
        return predictor


def predict_cases(
    project: Project,
    case_ids: Sequence[str] | None = None,
    *,
    model: str | Path | None = None,
    device: str = "auto",
    fast: bool = False,
    roi: Roi | None = None,
    progress: Progress = silent,
    warm: WarmPredictors | None = None,
) -> dict[str, Any]:
    """Predict cases and store each result as a revision; an accepted outline stays what it is.

    A scan that cannot be used does not keep the others waiting: it is told under ``failed``.

    Args:
        project: Open for writing.
        case_ids: Ids or names; by default those of ``choose_cases``.
        model: Id or folder; by default the current model.
        device: As for ``choose_device``.
        fast: One branch instead of both.
        roi: Only inside this box of each scan; outside is background.
        progress: Told after every window; may raise ``Cancelled``: cases done before stay stored.
        warm: Loaded predictors to use and to add to.

    Returns:
        ``model``; ``cases``: what was stored, and ``Prediction.details``, per case;
        ``failed``: name, message and remedy per case;
        ``compared``: names of outlined cases whose place in the feature space was measured, without a prediction.

    Raises:
        InputError: There is nothing to predict, or the only scan asked for cannot be used.
        BarlError: Of model, device or disk.
    """
    folder, model_id = choose_model(project, model)
    cases = choose_cases(project, case_ids, model_id)
    check_channels(read_card(folder), [channel.name for channel in project.channels])
    progress("loading", 0.0, "")
    predictor = (warm or WarmPredictors()).get(folder, device, fast)
    done, failed, compared = [], [], []
    for number, case in enumerate(cases):

        def told(stage: str, fraction: float, message: str = "", number: int = number, name: str = case.name) -> None:
            start, share = _SHARES.get(stage, (0.0, 1.0))
            progress("predicting", (number + start + share * fraction) / len(cases), name)

        try:
            prediction = predictor.predict(read_channels(project.cases.image_paths(case.id)), roi=roi, progress=told)
            if (
                case.is_accepted and not case_ids
            ):  # nobody asked for its prediction: only ``rank_cases`` needs its place
                project.cases.score(case.id, prediction.case_uncertainty, prediction.embedding, model_id)
                compared.append(case.name)
                continue
            revision = project.revisions.store(
                case.id,
                prediction.label,
                RevisionKind.PREDICTION,
                author=f"BARL {model_id or folder.name}",
                model_id=model_id,
                uncertainty=prediction.uncertainty,
                case_uncertainty=prediction.case_uncertainty,
                embedding=prediction.embedding,
                details=prediction.details(),
            )
        except InputError as error:
            if len(cases) == 1:
                raise
            failed.append({"case": case.id, "name": case.name, "message": error.message, "remedy": error.remedy})
            continue
        done.append(
            {
                "case": case.id,
                "name": case.name,
                "state": project.cases.get(case.id).state,
                "revision": revision.id,
                "label": revision.path,
                "uncertainty": revision.uncertainty_path,
                **prediction.details(),
            }
        )
    progress("predicting", 1.0, "")
    return {"model": model_id or str(folder), "cases": done, "failed": failed, "compared": compared}


def predict_files(
    model: Path,
    scans: Sequence[Path],
    output: Path,
    *,
    uncertainty: Path | None = None,
    device: str = "auto",
    fast: bool = False,
    roi: Roi | None = None,
    progress: Progress = silent,
    warm: WarmPredictors | None = None,
) -> dict[str, Any]:
    """Predict one scan without a project.

    Args:
        model: A model's folder.
        scans: One file or DICOM folder per channel, in the model's order.
        output: Where the label map goes, on the scan's own grid (NIfTI, NRRD or MHA by its ending).
        uncertainty: Where the uncertainty goes, if wanted.

    Returns:
        The paths written and what ``Prediction.details`` says.

    Raises:
        BarlError: Of input, model, device or disk.
    """
    for path in filter(None, (output, uncertainty)):  # before the work, not after it
        if not Path(path).resolve().parent.is_dir():
            raise InputError(f"There is no folder {Path(path).parent} to write to.", "Make it, or choose another one.")
    check_channels(read_card(model), len(scans))
    channels = read_channels([Path(scan) for scan in scans])
    progress("loading", 0.0, "")
    predictor = (warm or WarmPredictors()).get(Path(model), device, fast)
    prediction = predictor.predict(channels, roi=roi, progress=progress)
    write_image(prediction.label, Path(output))
    if uncertainty is not None:
        write_image(prediction.uncertainty, Path(uncertainty))
    return {"label": Path(output), "uncertainty": uncertainty, **prediction.details()}
