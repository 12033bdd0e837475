# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import vtk
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.Prediction import fitRoi, objection, roiBounds
from BARLSegmentationLib.logic.Words import readOnlyReason, stageText, timeLeftText
from BARLSegmentationLib.widgets.DeviceChoice import DeviceChoice
from BARLSegmentationLib.widgets.ModelChoice import ModelChoice
from BARLSegmentationLib.widgets.ModelMenu import ModelMenu
from BARLSegmentationLib.widgets.Panel import Panel, allow
from BARLSegmentationLib.widgets.PredictCases import PredictCases
from BARLSegmentationLib.widgets.PredictVolumes import PredictVolumes
from BARLSegmentationLib.widgets.VolumeRows import VolumeRows

if TYPE_CHECKING:
    from barl.errors import BarlError
    from barl.worker.messages import Event, Hello
    from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode


# What is predicted, in the order of the list.
CASE_ON_SCREEN, SELECTED_CASES, OPEN_CASES, VOLUMES = range(4)
# Where each stage of the prediction of volumes begins on the bar, and how much of it it takes, in percent. The worker
# counts through several cases itself.
SHARES = {"writing": (0, 5), "loading": (5, 5), "preparing": (10, 5), "predicting": (15, 75), "restoring": (90, 10)}


class PredictPanel(Panel):
    """Predicts cases of the project, or volumes that belong to no case."""

    uiName = "PredictPanel"

    def setup(self) -> None:
        self._devicesKnown = self._askingDevices = False
        self._deviceTrouble = ""
        self._watchedRoi = None  # node and tag of its observer
        ui = self.ui
        self.cases = PredictCases(self.session, self.worker)
        self.volumes = PredictVolumes(self.session, self.worker)
        self.models = ModelChoice(
            self.session, ui.modelComboBox, ui.modelPathLineEdit, self.moduleWidget.resourcePath("Models")
        )
        self.modelMenu = ModelMenu(self.session, self.worker, ui.modelButton, self.models)
        self.devices = DeviceChoice(ui.deviceComboBox)
        self.volumeRows = VolumeRows(ui.inputWidget.layout(), 1, ui.volumeLabel, ui.volumeSelector)
        for text in (_("Case on screen"), "", "", _("Volume in the scene")):
            ui.inputComboBox.addItem(text)
        ui.inputComboBox.currentIndex = VOLUMES
        self._connect()
        self.update()

    def _connect(self) -> None:
        ui, session = self.ui, self.session
        ui.inputComboBox.connect("currentIndexChanged(int)", self.onInputChanged)
        ui.roiSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onRoiChanged)
        ui.roiSelector.connect("nodeAddedByUser(vtkMRMLNode*)", self.onRoiAdded)
        ui.applyButton.connect("clicked(bool)", self.onApply)
        ui.cancelButton.connect("clicked(bool)", self.onCancel)
        self.models.changed.connect(self.onInputChanged)
        self.devices.chosen.connect(self.onDeviceChosen)
        self.volumeRows.changed.connect(self.updateApply)
        session.projectChanged.connect(self.onProjectChanged)
        for signal in (session.casesChanged, session.caseOpened, session.selectionChanged, session.modelsChanged):
            signal.connect(self.update)
        self.worker.busyChanged.connect(self.updateApply)
        for job in (self.cases, self.volumes):
            job.progressed.connect(self.onProgress)
        self.cases.ended.connect(self.onCasesEnded)
        self.volumes.ended.connect(self.onVolumesEnded)

    @property
    def busy(self) -> bool:
        """Whether this panel's prediction is under way."""
        return not (self.cases.isIdle and self.volumes.isIdle)

    @property
    def isIdle(self) -> bool:
        return not self.busy and not self._askingDevices and self.modelMenu.isIdle

    def cleanup(self) -> None:
        self.cases.forget()
        self.volumes.forget()
        self.modelMenu.forget()
        self._watchRoi(None)
        super().cleanup()

    def sceneCloses(self) -> None:
        if not self.volumes.isIdle:
            self.volumes.cancel()  # the volumes close with the scene

    def setParameterNode(self, node: object) -> None:
        super().setParameterNode(node)
        if node is not None:
            self.devices.select(node.device)

    def opened(self) -> None:
        from barl.worker.messages import SayHello

        if not self._devicesKnown and not self._askingDevices:
            self._askingDevices = True
            self.worker.request(SayHello(), onResult=self.onHello, onError=self.onNoHello)

    # Show the state

    def update(self) -> None:
        cases = self.session.ask(self.session.cases, otherwise=[])
        shown = next((case for case in cases if case.id == self.session.caseId), None)
        count = sum(case.wants_prediction for case in cases)
        combo = self.ui.inputComboBox
        combo.setItemText(
            CASE_ON_SCREEN, _("Case on screen: {name}").format(name=shown.name) if shown else _("Case on screen")
        )
        combo.setItemText(SELECTED_CASES, _("Selected cases ({n})").format(n=len(self.session.selectedCaseIds())))
        combo.setItemText(OPEN_CASES, _("All cases without an accepted outline ({n})").format(n=count))
        self.models.update()
        self.onInputChanged()

    def onProjectChanged(self) -> None:
        self.ui.inputComboBox.currentIndex = VOLUMES if self.session.project is None else CASE_ON_SCREEN
        self.models.chooseCurrent()
        self.update()

    def onInputChanged(self, _index: int = 0) -> None:
        """One selector for each channel of the model, if volumes are to be predicted."""
        self.volumeRows.show(self.models.channels() if self._scope() == VOLUMES else [])
        self.updateApply()

    def _scope(self) -> int:
        return self.ui.inputComboBox.currentIndex

    def onRoiAdded(self, roi: vtkMRMLMarkupsROINode) -> None:
        """A new box is as large as the scan, so that its handles can be seen and dragged."""
        volumes = self.volumeRows.volumes() + (self.session.loaded.volumes if self.session.loaded is not None else [])
        volume = next((one for one in volumes if one is not None and one.GetImageData() is not None), None)
        if volume is not None:
            fitRoi(roi, volume)

    def onRoiChanged(self, *_arguments: object) -> None:
        self._watchRoi(self.ui.roiSelector.currentNode())
        self.updateApply()

    def _watchRoi(self, roi: vtkMRMLMarkupsROINode | None) -> None:
        """Apply depends on whether the box has been drawn."""
        if self._watchedRoi is not None:
            before, tag = self._watchedRoi
            before.RemoveObserver(tag)
        event = vtk.vtkCommand.ModifiedEvent
        self._watchedRoi = None if roi is None else (roi, roi.AddObserver(event, self.updateApply))

    def updateApply(self, *_arguments: object) -> None:
        ui, busy = self.ui, self.busy
        allow(ui.applyButton, _("Segment with the chosen model; Slicer can be used meanwhile"), self._reasonAgainst())
        self._showCleanup()
        nothing = "" if busy else _("Nothing is being predicted")
        allow(ui.cancelButton, _("Stop; cases that are done stay stored"), nothing)
        ui.progressBar.visible = ui.progressLabel.visible = busy

    def _showCleanup(self) -> None:
        rules = self.models.cleanup()
        tip = _("Treat pieces and holes as the model's card says ({rules}); removed pieces are listed as hot-spots")
        none = "" if rules else _("The model's card names no cleanup: pieces and holes stay as they are predicted")
        allow(self.ui.cleanUpCheckBox, tip.format(rules=rules), none)

    def _reasonAgainst(self) -> str:
        """Why nothing can be predicted now; empty if it can."""
        from barl.errors import BarlError
        from barl.torch_support import reason_against

        if self.busy:
            return _("A prediction is under way")
        if not self.worker.computer and (reason := reason_against()):
            return reason
        if self._deviceTrouble:
            return self._deviceTrouble
        if self._scope() != VOLUMES and (reason := self._reasonAgainstCases()):
            return reason
        try:
            if self.models.model() is None:
                return _("Choose a model")
            roiBounds(self.ui.roiSelector.currentNode())
        except BarlError as error:
            return str(error)
        return objection(self.volumeRows.volumes()) if self._scope() == VOLUMES else ""

    def _reasonAgainstCases(self) -> str:
        session, scope = self.session, self._scope()
        if session.project is None:
            return _("Open a project first, or predict a volume in the scene")
        if reason := readOnlyReason(session.project):
            return reason
        if scope == CASE_ON_SCREEN and session.caseId is None:
            return _("Open a case first")
        if scope == SELECTED_CASES and not session.selectedCaseIds():
            return _("Select cases in the table of cases first")
        return ""

    # Devices

    def onHello(self, hello: Hello) -> None:
        self._devicesKnown, self._askingDevices, self._deviceTrouble = True, False, ""
        self.devices.show(hello.devices)
        self.updateApply()

    def onNoHello(self, error: BarlError) -> None:
        self._askingDevices = False  # asked again when the section is opened again
        if error.kind != "WorkerError":  # one that ended is started again by the next request
            self._deviceTrouble = str(error)
        self.session.status(str(error), error=True)
        self.updateApply()

    def onDeviceChosen(self, name: str) -> None:
        if self.parameterNode is not None:
            self.parameterNode.device = name

    # Predict

    def onApply(self, *_arguments: object) -> None:
        from barl.worker.messages import Event

        if reason := self._reasonAgainst():  # another program has changed the project since, a volume was transformed
            self.session.status(reason, error=True)
            self.updateApply()
            return
        ui, session, scope, model = self.ui, self.session, self._scope(), self.models.model()
        # The scans of cases are read from files: the box is drawn on the picture, which a transform may have moved.
        volume = None if scope == VOLUMES or session.loaded is None else session.loaded.volumes[0]
        roi = roiBounds(ui.roiSelector.currentNode(), volume)
        means = (self.devices.device, ui.fastCheckBox.checked, roi, ui.cleanUpCheckBox.checked)
        if scope == VOLUMES:
            self.volumes.start(model, self.volumeRows.volumes(), *means)
        else:
            chosen = {CASE_ON_SCREEN: [session.caseId], SELECTED_CASES: session.selectedCaseIds()}
            self.cases.start(model, chosen.get(scope), *means)
        if self.busy:
            self.onProgress(Event("progress", "writing" if scope == VOLUMES else "loading", 0.0))
            session.status(_("Predicting in the background; Slicer can be used meanwhile."))
        self.updateApply()

    def onCancel(self, *_arguments: object) -> None:
        for job in (self.cases, self.volumes):
            if not job.isIdle:
                self.ui.progressLabel.text = _("Stopping")
                job.cancel()

    def onProgress(self, event: Event) -> None:
        start, share = SHARES.get(event.stage, (0, 100)) if self.cases.isIdle else (0, 100)
        self.ui.progressBar.value = int(start + share * (event.fraction or 0.0))
        text = " ".join(filter(None, [stageText(event.stage), event.message]))
        left = f", {timeLeftText(event.eta_s)}" if event.eta_s is not None else ""
        self.ui.progressLabel.text = text + left

    def onCasesEnded(self, segmentation: vtkMRMLSegmentationNode | None) -> None:
        self.updateApply()
        self._showResult(segmentation)

    def onVolumesEnded(
        self, segmentation: vtkMRMLSegmentationNode | None, uncertainty: vtkMRMLScalarVolumeNode | None
    ) -> None:
        self.updateApply()
        node = self.parameterNode
        if node is not None and segmentation is not None:
            before = node.segmentation
            if before is not None and self.session.caseId is None:
                before.SetDisplayVisibility(False)  # two outlines on top of each other could not be told apart
            node.segmentation, node.uncertainty = segmentation, uncertainty
        self._showResult(segmentation)

    def _showResult(self, segmentation: vtkMRMLSegmentationNode | None) -> None:
        if segmentation is not None and self.ui.closedSurfaceCheckBox.checked:
            segmentation.CreateClosedSurfaceRepresentation()
