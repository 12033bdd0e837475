# SPDX-License-Identifier: Apache-2.0
"""The handlers of the requests by which data and models of other programs come in and results go out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from barl.project.scans import LeftOut, NewCase
from barl.project.store import Project
from barl.worker import messages
from barl.worker.server import Reports

# What needs torch is imported inside the requests.


def read_dataset(context: Reports, request: messages.ReadDataset) -> messages.DatasetContent:
    from barl.project.datasets import intake

    if request.project is None:
        dataset = intake.read_dataset(Path(request.folder))
        labels, cases, notes = intake.labels_of(dataset), [], list(dataset.notes)
    else:
        with Project.open(request.project, read_only=True) as opened:
            dataset = intake.read_dataset(Path(request.folder), opened.channels)
            planned = intake.prepare_intake(dataset, opened.channels, opened.labels)
        labels, notes = list(planned.labels), list(planned.notes)
        # An outline may be given to a case by hand: its values mean the same.
        meaning = next((case.meaning for case in planned.cases if case.label), ())
        cases = [replace(case, meaning=case.meaning or meaning, looked=dataset.ignore) for case in planned.cases]
    return messages.DatasetContent(
        dataset.layout,
        list(dataset.channels),
        [label.to_json() for label in labels],
        [_case_files(case) for case in cases],
        [_left_out(item) for item in dataset.left_out],
        [str(item.path) for item in dataset.left_out if item.path is not None],
        notes,
    )


def _case_files(case: NewCase) -> messages.CaseFiles:
    return messages.CaseFiles(
        case.name,
        [str(item) if isinstance(item, Path) else [str(path) for path in item] for item in case.channels],
        str(case.label) if case.label else None,
        case.held_out,
        case.group,
        [str(item) for item in case.series] or None,
        meaning=[list(pair) for pair in case.meaning] or None,
        looked=case.looked if isinstance(case.looked, int) else None,
        notes=list(case.notes) or None,
    )


def _left_out(item: LeftOut) -> messages.FailedCase:
    return messages.FailedCase(item.name, item.reason.message, item.reason.remedy)


def list_predictions(context: Reports, request: messages.ListPredictions) -> messages.GivenPredictions:
    from barl.jobs.given_files import find_given_files
    from barl.jobs.given_matching import labels_there, match_given_files

    left_out: list[LeftOut] = []
    path = Path(request.path)
    found = find_given_files(path, left_out, one_case=request.one_case)
    with Project.open(request.project, read_only=True) as opened:
        matched = match_given_files(opened, found)
    cases = {files.name: case.id for case, files in matched.pairs}
    return messages.GivenPredictions(
        [messages.GivenPrediction(item.name, item.in_words(), cases.get(item.name)) for item in found],
        [_left_out(item) for item in left_out],
        labels_there(path, found),
        list(matched.notes),
    )


def store_predictions(context: Reports, request: messages.StorePredictions) -> dict[str, Any]:
    from barl.jobs.given_matching import described_names, plan_chosen
    from barl.jobs.given_predictions import Origin, add_given_predictions

    path = Path(request.path)
    origin = Origin(request.author, request.made, described_names([path]), request.labels or {})
    with Project.open(request.project) as opened:
        plan = plan_chosen(opened, path, request.pairs, one_case=request.one_case)
        return add_given_predictions(opened, plan, origin, resample=request.resample, progress=context.progress)


def export(context: Reports, request: messages.ExportCases) -> messages.ExportedCases:
    from barl.project.export import export_dataset, write_names

    with Project.open(request.project, read_only=True) as opened:
        done = export_dataset(
            opened,
            request.folder,
            request.layout,
            context.progress,
            predictions=request.predictions,
            source=Path(request.source) if request.source else None,
        )
        names = write_names(opened, [*done.training, *done.held_out], done.folder)
    return messages.ExportedCases(str(done.folder), len(done.training), len(done.held_out), str(names), done.notes)


def export_model(context: Reports, request: messages.ExportModel) -> messages.ModelFile:
    from barl.jobs import model_files

    file = Path(request.file)
    with Project.open(request.project, read_only=True) as opened:
        card = model_files.export_model(opened, request.model, file)
    return messages.ModelFile(card.name, str(file), file.stat().st_size)


def import_model(context: Reports, request: messages.ImportModel) -> messages.ImportedModel:
    from barl.jobs import model_files

    with Project.open(request.project) as opened:
        model, notes = model_files.import_model(opened, Path(request.source))
        if request.promote:
            model = opened.models.promote(model.id)
    return messages.ImportedModel(model.id, model.name, model.is_current, notes)


def check_model(context: Reports, request: messages.CheckModel) -> messages.SoundModel:
    from barl.jobs import model_files

    card = model_files.check_model(Path(request.source))
    return messages.SoundModel(card.name, model_files.in_words(card))


HANDLERS: dict[type[messages.Request], Callable[[Any, Any], object]] = {
    messages.ReadDataset: read_dataset,
    messages.ListPredictions: list_predictions,
    messages.StorePredictions: store_predictions,
    messages.ExportCases: export,
    messages.ExportModel: export_model,
    messages.ImportModel: import_model,
    messages.CheckModel: check_model,
}
