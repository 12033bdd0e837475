# SPDX-License-Identifier: Apache-2.0
"""Prediction of the cases of a project, or of one scan without a project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from barl.errors import Cancelled, ProjectError, StorageError
from barl.images.geometry import Roi
from barl.images.reading import read_channels
from barl.images.writing import check_outputs, write_image
from barl.jobs.choice import choose_cases, choose_model
from barl.jobs.compute import AUTOMATIC, Compute
from barl.jobs.failures import explain
from barl.jobs.outputs import Output
from barl.models.disk import check_channels
from barl.progress import SILENT, Progress, Stage
from barl.project.channel_patterns import check_order
from barl.project.labels import Channel
from barl.project.model_card import read_card
from barl.project.states import RevisionKind
from barl.project.store import Project


def predict_cases(
    project: Project,
    case_ids: Sequence[str] | None = None,
    *,
    model: str | Path | None = None,
    compute: Compute = AUTOMATIC,
    roi: Roi | None = None,
    progress: Progress = SILENT,
    output: Output | None = None,
) -> dict[str, Any]:
    """Predict cases and store each result as a revision; accepted outlines stay.

    A scan that cannot be used is listed under ``failed``; the others are predicted.

    Args:
        project: Open for writing.
        case_ids: Ids or names; by default those of ``choose_cases``.
        model: Id or folder; by default the current model.
        compute: Device and loaded models.
        roi: Only inside this box of each scan; outside is background.
        progress: Gets the stages loading and predicting; cases done before a cancel stay stored.
        output: Write files named after the cases as well.

    Returns:
        ``model``; ``cases``: what was stored, ``Prediction.details`` and, with ``output``, the files ``written``, per
        case;
        ``failed``: name, message and remedy per case;
        ``compared``: names of outlined cases whose place in the feature space was measured, without a prediction.

    Raises:
        InputError: There is nothing to predict, or the only scan asked for cannot be used.
        BarlError: Of model, device or disk.
    """
    folder, model_id = choose_model(project, model)
    cases = choose_cases(project, case_ids, model_id)
    card = read_card(folder)
    check_channels(card, project.definition.channel_names_for(card.channels))
    wanted = [case.name for case in cases if case_ids or case.wants_prediction]
    names = output.prepare(wanted, card.labels) if output else {}
    progress.stage(Stage.LOADING).at(0.0)
    predictor = compute.predictor(folder)
    probabilities = output is not None and output.probabilities
    done, failed, compared = [], [], []
    for case, part in progress.stage(Stage.PREDICTING).each(cases, lambda case: case.name):
        try:
            channels = read_channels(project.cases.sound_images(case.id))
            prediction = predictor.predict(
                channels, roi=roi, want_probabilities=probabilities, progress=part, cleanup=compute.cleanup
            )
            if not case_ids and not case.wants_prediction:
                # Its prediction was not requested: ``rank_cases`` needs its embedding only.
                project.cases.score(case.id, prediction.case_uncertainty, prediction.embedding or None, model_id)
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
                embedding=prediction.embedding or None,
                details=prediction.details(),
            )
            written = output.write(names[case.name], prediction, card.labels) if output else None
        except Exception as error:
            cause = explain(error, project.folder)
            if len(cases) == 1 or isinstance(cause, Cancelled | ProjectError | StorageError):
                raise cause from error
            failed.append({"case": case.id, "name": case.name, "message": cause.message, "remedy": cause.remedy})
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
                **({"written": written} if written else {}),
            }
        )
    return {"model": model_id or str(folder), "cases": done, "failed": failed, "compared": compared}


def predict_files(
    model: Path,
    scans: Sequence[Path],
    output: Path,
    *,
    uncertainty: Path | None = None,
    compute: Compute = AUTOMATIC,
    roi: Roi | None = None,
    progress: Progress = SILENT,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Predict one scan without a project.

    Args:
        model: A model's folder.
        scans: One file or DICOM folder per channel, in the model's order.
        output: Where the label map goes, on the scan's own grid (NIfTI, NRRD or MHA by its ending).
        uncertainty: Where the uncertainty goes, if wanted.
        overwrite: Replace files that are there already; a scan is never replaced.

    Returns:
        The paths written and what ``Prediction.details`` says.

    Raises:
        BarlError: Of input, model, device or disk.
    """
    card = read_card(model)
    check_channels(card, len(scans))
    check_order([Path(scan) for scan in scans], [Channel(name) for name in card.channels])
    check_outputs([path for path in (output, uncertainty) if path is not None], scans, overwrite)
    notes: list[str] = []
    channels = read_channels([Path(scan) for scan in scans], notes)
    progress.stage(Stage.LOADING).at(0.0)
    predictor = compute.predictor(Path(model))
    prediction = predictor.predict(channels, roi=roi, progress=progress, cleanup=compute.cleanup)
    write_image(prediction.label, Path(output))
    if uncertainty is not None:
        write_image(prediction.uncertainty, Path(uncertainty))
    details = prediction.details()
    notes += details["notes"]
    return {"label": Path(output), "uncertainty": uncertainty, **details, "notes": notes}
