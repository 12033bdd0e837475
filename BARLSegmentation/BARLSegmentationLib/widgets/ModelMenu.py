# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.Question import Question
from BARLSegmentationLib.logic.Signal import Signal
from BARLSegmentationLib.logic.Words import readOnlyReason
from BARLSegmentationLib.widgets.Panel import allow

if TYPE_CHECKING:
    from barl.errors import BarlError
    from barl.worker.client import Pending
    from barl.worker.messages import ImportedModel, ModelFile, Request, SoundModel

    from BARLSegmentationLib.logic.Prediction import Model
    from BARLSegmentationLib.logic.Session import Session
    from BARLSegmentationLib.widgets.ModelChoice import ModelChoice
    from BARLSegmentationLib.widgets.WorkerLink import WorkerLink


class ModelMenu:
    """The menu beside the list of models: models come in and go out, are checked, removed, made the current one.

    Args:
        session: What all panels share.
        worker: The process that checks and copies.
        button: The QToolButton of the menu.
        models: The list of models.

    Attributes:
        changed: A job has begun or ended.
    """

    def __init__(self, session: Session, worker: WorkerLink, button: qt.QToolButton, models: ModelChoice) -> None:
        self.session, self.worker, self.models = session, worker, models
        self.changed = Signal()
        self._button = button
        self._pending: Pending | None = None
        self.menu = qt.QMenu(button)
        self.currentAction = self._action(_("Make it the current model"), self.onCurrent)
        self.checkAction = self._action(_("Check it"), self.onCheck)
        self.exportAction = self._action(_("Export as one file..."), self.onExport)
        self.removeAction = self._action(_("Remove"), self.onRemove)
        self.menu.addSeparator()
        self.fileAction = self._action(_("Import a file..."), self.onImportFile)
        self.folderAction = self._action(_("Import a folder (nnU-Net, MONAI, BARL)..."), self.onImportFolder)
        self.menu.connect("aboutToShow()", self.update)
        button.setMenu(self.menu)

    def _action(self, text: str, do: object) -> qt.QAction:
        action = self.menu.addAction(text)
        action.connect("triggered()", do)
        return action

    @property
    def isIdle(self) -> bool:
        return self._pending is None

    def forget(self) -> None:
        """Ignore the answer of what is under way."""
        self._pending = None

    def _model(self) -> Model | None:
        return self.session.ask(self.models.model, otherwise=None)

    def update(self) -> None:
        """Enable what is possible."""
        project, model = self.session.project, self._model()
        busy = "" if self.isIdle else _("Wait until the other model is done")
        none = _("Choose a model first") if model is None else ""
        closed = _("Open a project first") if project is None else readOnlyReason(project)
        foreign = _("The model does not belong to the project") if model is not None and not model.id else ""
        isCurrent = _("It is the current model") if model is not None and model.isCurrent else ""
        own = busy or closed or none or foreign or isCurrent
        allow(self.currentAction, _("Predict with it unless another one is chosen"), own)
        allow(self.removeAction, _("Delete its weights; its card stays with what was made with it"), own)
        allow(self.checkAction, _("Check card, checksum, weights and network"), busy or none)
        noProject = _("Open a project first") if project is None else ""
        allow(self.exportAction, _("Write it into one file that can be sent"), busy or noProject or none)
        for action in (self.fileAction, self.folderAction):
            allow(action, _("Check a model and copy it into the project"), busy or closed)

    # The chosen model

    def onCurrent(self) -> None:
        model = self._model()
        with self.session.reporting() as outcome:
            self.session.project.models.promote(model.id)
        if not outcome.failed:
            self.session.status(_("{name} is the current model now.").format(name=model.name))
        self.session.notifyModels()

    def onCheck(self) -> None:
        from barl.worker.messages import CheckModel

        model = self._model()
        self._ask(CheckModel(str(model.folder)), _("Checking {name}...").format(name=model.name), self._onChecked)

    def _onChecked(self, answer: SoundModel) -> None:
        self.session.status(_("The model is sound. {words}").format(words=answer.words))

    def onExport(self) -> None:
        from barl.worker.messages import ExportModel

        model = self._model()
        name = "".join(letter if letter.isalnum() else "_" for letter in model.name)
        file = qt.QFileDialog.getSaveFileName(
            self._button, _("File for the model {name}").format(name=model.name), f"{name}.zip", "(*.zip)"
        )
        if file:
            file = file if file.lower().endswith(".zip") else f"{file}.zip"
            folder = str(self.session.project.folder)
            request = ExportModel(folder, model.id or str(model.folder), file)
            self._ask(request, _("Writing {name}...").format(name=Path(file).name), self._onExported)

    def _onExported(self, answer: ModelFile) -> None:
        text = _("Wrote {name} to {file} ({size:.1f} MiB).")
        self.session.status(text.format(name=answer.name, file=Path(answer.file).name, size=answer.bytes / 2**20))

    def onRemove(self) -> None:
        model = self._model()
        question = _("Delete the weights of {name} ({id})? It cannot predict any more; its card stays.")
        self.session.inquire(
            Question(
                question.format(name=model.name, id=model.id),
                _("Delete"),
                _("Keep"),
                onYes=lambda: self._remove(model),
            )
        )

    def _remove(self, model: Model) -> None:
        with self.session.reporting() as outcome:
            self.session.project.models.remove(model.id)
        if not outcome.failed:
            self.session.status(_("Deleted the weights of {name}.").format(name=model.name))
        self.session.notifyModels()

    # A model from elsewhere

    def onImportFile(self) -> None:
        file = qt.QFileDialog.getOpenFileName(self._button, _("A model that was exported"), "", "(*.zip)")
        self._import(file)

    def onImportFolder(self) -> None:
        title = _("Folder of an nnU-Net configuration (nnUNetTrainer__...), a MONAI bundle or a model of BARL")
        self._import(qt.QFileDialog.getExistingDirectory(self._button, title, ""))

    def _import(self, source: str) -> None:
        from barl.worker.messages import ImportModel

        if source:
            project = self.session.project
            isFirst = self.session.ask(project.models.current, otherwise=None) is None
            request = ImportModel(str(project.folder), source, promote=isFirst)
            self._ask(request, _("Checking and copying {name}...").format(name=Path(source).name), self._onImported)

    def _onImported(self, answer: ImportedModel) -> None:
        self.session.notifyModels()
        text = (
            _("Imported the model {name} as {id}; it predicts now.")
            if answer.current
            else _("Imported the model {name} as {id}.")
        )
        text = text.format(name=answer.name, id=answer.model)
        self.session.status(" ".join([text, *answer.notes]))

    # The worker

    def _ask(self, request: Request, doing: str, onResult: object) -> None:
        def ended(answer: object) -> None:
            if self._pending is None:
                return
            self._pending = None
            onResult(answer)
            self.changed.emit()

        self._pending = self.worker.request(request, onResult=ended, onError=self._onError)
        self.session.status(doing)
        self.changed.emit()

    def _onError(self, error: BarlError) -> None:
        if self._pending is not None:
            self._pending = None
            self.session.status(str(error), True)
            self.changed.emit()
