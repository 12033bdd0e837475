# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.Prediction import (
    VolumePrediction,
    fitRoi,
    modelsIn,
    objection,
    projectModels,
    readModel,
    roiBounds,
)
from BARLSegmentationLib.widgets.Panel import Panel

# What is predicted, in the order of the list.
CASE_ON_SCREEN, SELECTED_CASES, OPEN_CASES, VOLUMES = range(4)
# Where each stage of a single prediction begins on the bar, and how much of it it takes.
SHARES = {"writing": (0, 5), "loading": (5, 5), "preparing": (10, 5), "predicting": (15, 75), "restoring": (90, 10)}
FOLDER = "folder"  # the choice of a model that is neither the project's nor comes along


class PredictPanel(Panel):
    """Predicts cases of the project, or volumes of the scene that are no case."""

    uiName = "PredictPanel"

    def setup(self):
        self._models = []  # what modelComboBox lists, None last for the folder line
        self._extraRows = []  # label and node selector of each channel behind the first; those too many are hidden
        self._request = None
        self._writing = None  # what is left of the files to write
        self._prediction = None  # of volumes: its files
        self._devicesKnown = False
        self._askingDevices = False
        self._deviceTrouble = ""
        self._watchedRoi = None  # node and tag of its observer

        ui = self.ui
        for text in (_("Case on screen"), "", "", _("Volume in the scene")):
            ui.inputComboBox.addItem(text)
        ui.inputComboBox.currentIndex = VOLUMES
        self._listDevices([])
        ui.inputComboBox.connect("currentIndexChanged(int)", self.onInputChanged)
        ui.modelComboBox.connect("currentIndexChanged(int)", self.onModelChanged)
        ui.modelPathLineEdit.connect("currentPathChanged(QString)", self.onModelChanged)
        ui.modelPathLineEdit.connect("validInputChanged(bool)", self.onModelChanged)  # all that an emptied line tells
        ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.updateApply)
        ui.roiSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onRoiChanged)
        ui.roiSelector.connect("nodeAddedByUser(vtkMRMLNode*)", self.onRoiAdded)
        ui.deviceComboBox.connect("currentIndexChanged(int)", self.onDeviceChosen)
        ui.applyButton.connect("clicked(bool)", self.onApply)
        ui.cancelButton.connect("clicked(bool)", self.onCancel)
        self.session.projectChanged.connect(self.onProjectChanged)
        self.session.casesChanged.connect(self.update)
        self.session.caseOpened.connect(self.update)
        self.session.selectionChanged.connect(self.update)
        self.session.modelsChanged.connect(self.update)
        self.worker.busyChanged.connect(self.onBusyChanged)
        self.update()

    @property
    def busy(self):
        """Whether this panel's prediction is under way."""
        return self._request is not None or self._writing is not None

    @property
    def isIdle(self) -> bool:
        return not self.busy and not self._askingDevices

    def cleanup(self):
        self.onCancel()
        self._request = None  # its answer has nothing left to change
        self._endPrediction()
        self._watchRoi(None)
        Panel.cleanup(self)

    def setParameterNode(self, node):
        if node is None and self.parameterNode is not None and self._prediction is not None:
            self.onCancel()  # the scene closes: nobody is left to show the result to
        Panel.setParameterNode(self, node)
        if node is not None:
            self._showDevice(node.device)

    def expanded(self):
        if not self._devicesKnown and not self._askingDevices:
            self._askingDevices = True
            from barl.worker.messages import SayHello

            self.worker.request(SayHello(), onResult=self.onHello, onError=self.onNoHello)

    # Show the state

    def update(self):
        cases = self.session.ask(self.session.cases, otherwise=[])
        shown = next((case for case in cases if case.id == self.session.caseId), None)
        openCases = [case for case in cases if case.awaits_outline]
        combo = self.ui.inputComboBox
        combo.setItemText(
            CASE_ON_SCREEN, _("Case on screen: {name}").format(name=shown.name) if shown else _("Case on screen")
        )
        combo.setItemText(SELECTED_CASES, _("Selected cases ({n})").format(n=len(self.session.selectedCaseIds())))
        combo.setItemText(OPEN_CASES, _("All cases without an accepted outline ({n})").format(n=len(openCases)))
        self._listModels()
        self._showVolumes()
        self.updateApply()

    def onProjectChanged(self):
        self.ui.inputComboBox.currentIndex = VOLUMES if self.session.project is None else CASE_ON_SCREEN
        self.ui.modelComboBox.currentIndex = 0  # the current model of this project
        self.update()

    def onInputChanged(self, index):
        self._showVolumes()
        self.updateApply()

    def onModelChanged(self, *_arguments):
        self.ui.modelPathLineEdit.visible = self._chosenEntry() == FOLDER
        self._showVolumes()
        self.updateApply()

    def onRoiAdded(self, roi):
        """A new box is as large as the scan, so that its handles can be seen and dragged."""
        volumes = self._volumes() if self.ui.inputComboBox.currentIndex == VOLUMES else []
        if self.session.loaded is not None:
            volumes += self.session.loaded.volumes
        volume = next((one for one in volumes if one is not None and one.GetImageData() is not None), None)
        if volume is not None:
            fitRoi(roi, volume)

    def onRoiChanged(self, *_arguments):
        self._watchRoi(self.ui.roiSelector.currentNode())
        self.updateApply()

    def _watchRoi(self, roi):
        """Apply depends on whether the box has been drawn."""
        if self._watchedRoi is not None:
            before, tag = self._watchedRoi
            before.RemoveObserver(tag)
        event = vtk.vtkCommand.ModifiedEvent
        self._watchedRoi = None if roi is None else (roi, roi.AddObserver(event, self.updateApply))

    def onBusyChanged(self, name):
        self.updateApply()

    def _listModels(self):
        """List the models anew; the one chosen stays chosen, and who was content with the current one stays so."""
        project = self.session.project
        entries = self.session.ask(projectModels, project, otherwise=[]) if project is not None else []
        texts = [_("{name} (current model)").format(name=m.name) if m.isCurrent else m.name for m in entries]
        for model in modelsIn(self.moduleWidget.resourcePath("Models")):
            entries.append(model)
            texts.append(model.name)
        entries.append(FOLDER)
        texts.append(_("Model in another folder"))
        if entries == self._models and texts == self._modelTexts():
            return
        chosen = self._chosenEntry()
        index = self.ui.modelComboBox.currentIndex
        combo = self.ui.modelComboBox
        blocked = combo.blockSignals(True)
        combo.clear()
        combo.addItems(texts)
        self._models = entries
        combo.currentIndex = entries.index(chosen) if index > 0 and chosen in entries else 0
        combo.blockSignals(blocked)
        self.onModelChanged()

    def _modelTexts(self):
        combo = self.ui.modelComboBox
        return [combo.itemText(index) for index in range(combo.count)]

    def _chosenEntry(self):
        index = self.ui.modelComboBox.currentIndex
        return self._models[index] if 0 <= index < len(self._models) else None

    def _model(self):
        """The model chosen, None if there is none; raises ModelError for a folder that holds none."""
        entry = self._chosenEntry()
        if entry != FOLDER:
            return entry
        path = self.ui.modelPathLineEdit.currentPath
        return readModel(path) if path else None

    def _channels(self):
        from barl.errors import ModelError

        try:
            return self._model().channels
        except (ModelError, AttributeError):
            return [""]

    def _showVolumes(self):
        """One selector for each channel of the model, if volumes are to be predicted."""
        channels = self._channels() if self.ui.inputComboBox.currentIndex == VOLUMES else []
        while len(self._extraRows) < len(channels) - 1:
            self._addVolumeRow()
        rows = [(self.ui.volumeLabel, self.ui.volumeSelector), *self._extraRows]
        for index, (label, selector) in enumerate(rows):
            label.visible = selector.visible = index < len(channels)
            if index < len(channels):
                label.text = f"{channels[index]}:" if len(channels) > 1 else _("Volume:")

    def _addVolumeRow(self):
        label, selector = qt.QLabel(), slicer.qMRMLNodeComboBox()
        selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        selector.addEnabled = selector.removeEnabled = selector.showChildNodeTypes = False
        selector.noneEnabled = True
        selector.setMRMLScene(slicer.mrmlScene)
        selector.connect("currentNodeChanged(vtkMRMLNode*)", self.updateApply)
        selector.toolTip = self.ui.volumeSelector.toolTip
        self.ui.inputLayout.insertRow(2 + len(self._extraRows), label, selector)
        self._extraRows.append((label, selector))

    def _volumes(self):
        extra = [selector for _label, selector in self._extraRows[: len(self._channels()) - 1]]
        return [selector.currentNode() for selector in (self.ui.volumeSelector, *extra)]

    def updateApply(self, *_arguments):
        busy = self.busy
        reason = self._reasonAgainst()
        button = self.ui.applyButton
        button.enabled = not reason
        button.toolTip = reason or _("Segment with the chosen model; Slicer can be used meanwhile")
        self.ui.cancelButton.enabled = busy
        self.ui.cancelButton.toolTip = (
            _("Stop; cases that are done stay stored") if busy else _("Nothing is being predicted")
        )
        self.ui.progressBar.visible = self.ui.progressLabel.visible = busy

    def _reasonAgainst(self):
        """Why nothing can be predicted now; empty if it can."""
        from barl.errors import BarlError

        session, scope = self.session, self.ui.inputComboBox.currentIndex
        if self.busy:
            return _("A prediction is under way")
        if self._deviceTrouble:
            return self._deviceTrouble
        if scope != VOLUMES:
            if session.project is None:
                return _("Open a project first, or predict a volume in the scene")
            if session.project.read_only:
                return _("The project is open for reading only")
            if scope == CASE_ON_SCREEN and session.caseId is None:
                return _("Open a case first")
            if scope == SELECTED_CASES and not session.selectedCaseIds():
                return _("Select cases in the table of cases first")
        try:
            model = self._model()
            if model is None:
                return _("Choose a model")
            roiBounds(self.ui.roiSelector.currentNode())
        except BarlError as error:
            return str(error)
        return objection(self._volumes()) if scope == VOLUMES else ""

    # Devices

    def onHello(self, hello):
        self._devicesKnown, self._askingDevices, self._deviceTrouble = True, False, ""
        self._listDevices(hello.devices)
        if self.parameterNode is not None:
            self._showDevice(self.parameterNode.device)
        self.updateApply()

    def onNoHello(self, error):
        self._askingDevices = False  # asked again when the section is opened again
        if error.kind != "WorkerError":  # one that ended is started again by the next request
            self._deviceTrouble = str(error)
        self.session.status(str(error), error=True)
        self.updateApply()

    def _listDevices(self, devices):
        combo = self.ui.deviceComboBox
        blocked = combo.blockSignals(True)
        combo.clear()
        best = f": {deviceText(devices[0])}" if devices else ""
        combo.addItem(_("Automatic") + best, "auto")
        for device in devices:
            combo.addItem(deviceText(device), device.name)
        combo.blockSignals(blocked)

    def _showDevice(self, name):
        combo = self.ui.deviceComboBox
        blocked = combo.blockSignals(True)
        # One that this computer does not have (the scene came from another) counts as automatic.
        combo.currentIndex = max(0, combo.findData(name))
        combo.blockSignals(blocked)

    def onDeviceChosen(self, index):
        if self.parameterNode is not None and index >= 0:
            self.parameterNode.device = self.ui.deviceComboBox.itemData(index)

    # Predict

    def onApply(self, *_arguments):
        if reason := self._reasonAgainst():  # another program has changed the project since, a volume was transformed
            self.session.status(reason, error=True)
            self.updateApply()
            return
        from barl.worker.messages import Predict

        session, ui = self.session, self.ui
        model, scope = self._model(), ui.inputComboBox.currentIndex
        means = (
            ui.deviceComboBox.itemData(ui.deviceComboBox.currentIndex),
            ui.fastCheckBox.checked,
            roiBounds(ui.roiSelector.currentNode()),
        )
        if scope == VOLUMES:
            folder = slicer.app.temporaryPath
            self._prediction = session.ask(VolumePrediction, model, self._volumes(), folder, otherwise=None)
            if self._prediction is not None:
                self._writing = self._prediction.write()
                self._tellProgress("writing", 0.0)
                self._tellStart()
                qt.QTimer.singleShot(0, lambda: self._writeOn(means))
            self.updateApply()
            return
        cases = {CASE_ON_SCREEN: [session.caseId], SELECTED_CASES: session.selectedCaseIds()}.get(scope)
        self._tellProgress("loading", 0.0)
        self._request = self.worker.request(
            Predict(str(session.project.folder), cases, model.id or str(model.folder), *means),
            onEvent=self.onEvent,
            onResult=self.onCasesPredicted,
            onError=self.onFailed,
        )
        self.updateApply()
        self._tellStart()

    def _tellStart(self):
        self.session.status(_("Predicting in the background; Slicer can be used meanwhile."))

    def _writeOn(self, means):
        """Write the next piece of the volumes and come back, until the worker can have them."""
        from barl.errors import BarlError, storage_error

        if self._writing is None:  # cancelled
            return
        try:
            share = next(self._writing, None)
        except BarlError as error:
            self.onFailed(error)
            return
        except OSError as error:
            self.onFailed(storage_error(error, slicer.app.temporaryPath))
            return
        if share is not None:
            self._tellProgress("writing", share)
            qt.QTimer.singleShot(0, lambda: self._writeOn(means))
            return
        self._writing = None
        self._request = self.worker.request(
            self._prediction.request(*means),
            onEvent=self.onEvent,
            onResult=self.onVolumesPredicted,
            onError=self.onFailed,
        )

    def onCancel(self, *_arguments):
        if self._writing is not None:
            self._endPrediction()
            self.session.status(_("Cancelled."))
            self.updateApply()
        elif self._request is not None:
            self.worker.cancel(self._request)
            self.ui.progressLabel.text = _("Stopping")

    def onEvent(self, event):
        if event.event == "progress":
            self._tellProgress(event.stage, event.fraction or 0.0, event.eta_s, event.message)

    def onCasesPredicted(self, predicted):
        if not self.busy:
            return
        session, cases, failed = self.session, predicted.cases, predicted.failed
        self._request = None
        self.updateApply()
        session.notifyCases()
        ids = [case.case for case in cases]
        # A single case is shown; of several only the one that is on screen anyway.
        shown = session.caseId if session.caseId in ids else ids[0] if len(ids) == 1 and not session.caseId else None
        if shown is not None and session.project is not None:
            with session.reporting():
                self._showResult(session.openCase(shown).segmentation)
        # Outlined cases are predicted too, so that the others can be compared with them.
        outlined = sum(case.state == "accepted" for case in cases)
        count = len(cases) - outlined or len(cases)
        words = [_("1 case predicted.") if count == 1 else _("{n} cases predicted.").format(n=count)]
        if count < len(cases):
            words.append(_("{n} outlined cases were predicted too, for comparison.").format(n=outlined))
        words += dict.fromkeys(note for case in cases for note in case.notes)
        words += [f"{case.name}: {case.message} {case.remedy}" for case in failed]
        session.status(" ".join(words), error=bool(failed))

    def onVolumesPredicted(self, predicted):
        if not self.busy:
            return
        prediction, session = self._prediction, self.session
        self._request = None
        nodes = session.ask(prediction.load, otherwise=None)
        self._endPrediction()
        self.updateApply()
        if nodes is None:
            return
        segmentation, uncertainty = nodes
        if segmentation is None:
            session.status(_("The volume was removed meanwhile; its prediction was discarded."), error=True)
            return
        node = self.parameterNode
        if node is not None:
            before = node.segmentation
            if before is not None and session.caseId is None:
                before.SetDisplayVisibility(False)  # two outlines on top of each other could not be told apart
            node.segmentation, node.uncertainty = segmentation, uncertainty
        showVolume(prediction.volumes[0])
        self._showResult(segmentation)
        words = [_("{name} is ready.").format(name=segmentation.GetName()), *predicted.notes]
        session.status(" ".join(words))

    def _showResult(self, segmentation):
        if segmentation is not None and self.ui.closedSurfaceCheckBox.checked:
            segmentation.CreateClosedSurfaceRepresentation()

    def onFailed(self, error):
        from barl.errors import Cancelled

        if not self.busy:  # the module has gone meanwhile
            return
        self._request = None
        words = str(error) if self._prediction is None else self._prediction.inWords(error)
        self._endPrediction()
        self.updateApply()
        self.session.notifyCases()  # those done before stay stored
        self.session.status(words, error=not isinstance(error, Cancelled))

    def _endPrediction(self):
        self._writing = None
        if self._prediction is not None:
            self._prediction.close()
            self._prediction = None

    def _tellProgress(self, stage, fraction, seconds=None, message=""):
        start, share = SHARES.get(stage, (0, 100))
        if self._prediction is None:  # the worker counts through all cases itself
            start, share = (0, 100)
        self.ui.progressBar.value = int(start + share * fraction)
        words = [stageText(stage), message] if message else [stageText(stage)]
        left = f", {timeText(seconds)}" if seconds is not None else ""
        self.ui.progressLabel.text = " ".join(words) + left


def showVolume(volume) -> None:
    """Show a volume in the slice views; views that show it already keep their position."""
    views = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")  # without a main window there are none
    if volume.GetID() not in [view.GetBackgroundVolumeID() for view in views]:
        slicer.util.setSliceViewerLayers(background=volume, fit=True)


def deviceText(device) -> str:
    """A ``barl.worker.messages.Device`` in words."""
    return f"{device.title} ({device.memory_bytes / 2**30:.0f} GB)" if device.memory_bytes else device.title


def stageText(stage: str) -> str:
    """A stage of a prediction in words."""
    return {
        "writing": _("Handing over the scan"),
        "loading": _("Loading the model"),
        "preparing": _("Preparing the scan"),
        "predicting": _("Predicting"),
        "restoring": _("Bringing the result onto the scan"),
    }.get(stage, stage)


def timeText(seconds: float) -> str:
    """A time left in words."""
    if seconds < 90:
        return _("about {n} s left").format(n=max(1, round(seconds)))
    return _("about {n} min left").format(n=round(seconds / 60))
