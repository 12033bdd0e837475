# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.LabelTable import COMMON, colorFor, parseTerminology, terminologyText
from BARLSegmentationLib.logic.ProjectState import stateSentence
from BARLSegmentationLib.logic.SceneVolumes import labelsOf, usersVolumes
from BARLSegmentationLib.widgets.CaseAdder import CaseAdder
from BARLSegmentationLib.widgets.CaseSources import newStaging, removeStaging
from BARLSegmentationLib.widgets.DefinitionTables import DefinitionTables
from BARLSegmentationLib.widgets.Panel import Panel, allow, signalsBlocked
from BARLSegmentationLib.widgets.SceneCases import SceneCases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from barl.errors import BarlError
    from barl.project.labels import Channel, Label
    from barl.worker.client import Pending
    from barl.worker.messages import DatasetContent

RECENT_KEY = "BARLSegmentation/RecentProjects"
RECENT_COUNT = 10
MOST_ROWS = 4  # of a table of labels or channels; more scroll
MOST_SCENE_ROWS = 2  # of the labels beside volumes of the scene
VALUE, NAME, COLOR, TERMINOLOGY, LATERAL = range(5)


class ProjectPanel(Panel):
    """Opens a project or makes one; one line shows its state."""

    uiName = "ProjectPanel"

    def setup(self) -> None:
        ui = self.ui
        self._looksSoon = False
        self._reading: Pending | None = None  # a data set whose labels are wanted
        ui.recentComboBox.connect("activated(int)", self.onRecent)
        ui.openButton.connect("clicked(bool)", self.onOpen)
        ui.closeButton.connect("clicked(bool)", self.onClose)
        ui.addLabelButton.connect("clicked(bool)", self.onAddLabel)
        ui.removeLabelButton.connect("clicked(bool)", self.onRemoveLabel)
        ui.copyButton.connect("clicked(bool)", self.onCopy)
        ui.addChannelButton.connect("clicked(bool)", self.onAddChannel)
        ui.removeChannelButton.connect("clicked(bool)", self.onRemoveChannel)
        ui.likeButton.connect("clicked(bool)", self.onLike)
        ui.createButton.connect("clicked(bool)", self.onCreate)
        ui.newGroupBox.connect("toggled(bool)", self.onNew)
        self.adder = CaseAdder(self.session, self.worker)
        self.scene = SceneCases(ui.sceneWidget)
        self.scene.segmentationChanged.connect(self.onSegmentation)
        ui.sceneCheckBox.connect("toggled(bool)", self.onScene)
        kinds = slicer.vtkMRMLScene
        self._tags = [
            slicer.mrmlScene.AddObserver(event, self.onNodes)
            for event in (kinds.NodeAddedEvent, kinds.NodeRemovedEvent, kinds.EndImportEvent, kinds.EndCloseEvent)
        ]
        ui.newFolderPathLineEdit.filters = ctk.ctkPathLineEdit.Dirs | ctk.ctkPathLineEdit.Drives
        for signal in (self.session.projectChanged, self.session.casesChanged, self.session.modelsChanged):
            signal.connect(self.update)
        self.session.projectChanged.connect(self.onProjectChanged)
        self.definition = DefinitionTables(self.session, ui.definitionWidget)
        self.session.definitionChanged.connect(lambda _labels: self.definition.update())

        ui.labelsTable.verticalHeader().setDefaultSectionSize(ui.labelsTable.fontMetrics().height() + 8)
        header = ui.labelsTable.horizontalHeader()
        for column in (VALUE, COLOR, LATERAL):
            header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        for column in (NAME, TERMINOLOGY):
            header.setSectionResizeMode(column, qt.QHeaderView.Stretch)
        ui.channelsTable.horizontalHeader().setSectionResizeMode(qt.QHeaderView.Stretch)
        self._addLabel(1)
        self._addChannel("image")
        self.onProjectChanged()

    @property
    def isIdle(self) -> bool:
        return self.adder.isIdle and self._reading is None

    def cleanup(self) -> None:
        for tag in self._tags:
            slicer.mrmlScene.RemoveObserver(tag)
        self.adder.removeStaging()
        super().cleanup()

    def update(self, *_arguments: object) -> None:
        project = self.session.project
        if project is None:
            sentence = _("No project is open. Open one, or make a new one below.")
            if count := len(usersVolumes()):
                text = (
                    _("It can begin with the volume of the scene.")
                    if count == 1
                    else _("It can begin with the {n} volumes of the scene.")
                )
                sentence = f"{sentence} {text.format(n=count)}"
        else:
            sentence = self.session.ask(stateSentence, project, otherwise="")
            if sentence and project.read_only:
                sentence = f"{sentence} {_('Opened for reading only.')}"
        self.ui.stateLabel.text = sentence
        folded = self.ui.newGroupBox.collapsed  # the form of a new project takes the room of the open one
        self.ui.stateLabel.visible, self.ui.definitionGroupBox.visible = folded, folded and project is not None
        none = project is None
        allow(self.ui.closeButton, _("Close the project"), _("No project is open") if none else "")
        allow(
            self.ui.copyButton,
            _("Replace the tables by the labels and channels of the open project"),
            _("Open the project whose labels and channels shall be copied first") if none else "",
        )

    def onProjectChanged(self) -> None:
        project = self.session.project
        if project is not None:
            self._remember(str(project.folder))
        self._showRecent()
        self.definition.update()
        self.update()

    # Open

    def onOpen(self) -> None:
        recent = self._recent()
        start = str(Path(recent[0]).parent) if recent else ""
        folder = qt.QFileDialog.getExistingDirectory(self.widget, _("Folder of a BARL project"), start)
        if folder:
            self.open(folder)

    def onRecent(self, index: int) -> None:
        folder = self.ui.recentComboBox.itemData(index)
        if folder:
            self.open(folder)

    def open(self, folder: str) -> None:
        """Open a project; if that fails, the one that is open stays open and the status line says why."""
        readOnly = self.ui.readOnlyCheckBox.checked
        with self.session.reporting() as outcome, slicer.util.WaitCursor():
            self.session.openProject(folder, readOnly)
        # If only reading was possible, the session has said so.
        if not outcome.failed and self.session.project.read_only == readOnly:
            self.session.status(_("Opened the project {name}.").format(name=self.session.project.name))
        self._showRecent()  # back to the project that is open

    def onClose(self) -> None:
        with self.session.reporting():
            self.session.closeProject()
            self.session.status(_("Closed the project."))

    def _recent(self) -> list[str]:
        stored = qt.QSettings().value(RECENT_KEY)
        folders = [stored] if isinstance(stored, str) else list(stored or [])  # a list of one comes back as a text
        return [folder for folder in folders if folder]

    def _remember(self, folder: str) -> None:
        folders = [folder, *(other for other in self._recent() if other != folder)]
        qt.QSettings().setValue(RECENT_KEY, folders[:RECENT_COUNT])

    def _showRecent(self) -> None:
        combo, project = self.ui.recentComboBox, self.session.project
        folders = self._recent()
        with signalsBlocked(combo):
            combo.clear()
            if project is None:
                combo.addItem(_("Recent projects") if folders else _("No recent project"), "")
            for folder in folders:
                combo.addItem(f"{Path(folder).name}  ({Path(folder).parent})", folder)
                combo.setItemData(combo.count - 1, folder, qt.Qt.ToolTipRole)
            combo.setCurrentIndex(max(combo.findData(str(project.folder)), 0) if project is not None else 0)

    # New, from volumes of the scene

    def onNew(self, open_: bool = True) -> None:
        """The form is unfolded or folded: with volumes in the scene, it begins with these."""
        self.update()
        if open_:
            self.scene.refresh()
            self.ui.sceneCheckBox.visible = self.ui.sceneCheckBox.checked = bool(self.scene.rows)

    def onNodes(self, *_arguments: object) -> None:
        """The scene has other nodes: look at them when all of them are there."""
        if not self.ui.newGroupBox.collapsed and not self._looksSoon:
            self._looksSoon = True
            qt.QTimer.singleShot(0, self._onNodesThere)

    def _onNodesThere(self) -> None:
        self._looksSoon = False
        before = bool(self.scene.rows)
        self.scene.refresh()
        there = bool(self.scene.rows)
        self.ui.sceneCheckBox.visible = there
        if there != before:
            self.ui.sceneCheckBox.checked = there

    def onScene(self, checked: bool) -> None:
        """Show the volumes of the scene in the place of the channels, whose names stand with the volumes."""
        ui = self.ui
        ui.sceneWidget.visible = checked
        for widget in (
            ui.labelsLabel,
            ui.copyButton,
            ui.channelsLabel,
            ui.channelsTable,
            ui.addChannelButton,
            ui.removeChannelButton,
            ui.likeButton,
        ):
            widget.visible = not checked
        ui.createButton.text = _("Create project and add cases") if checked else _("Create project")
        _fitHeight(ui.labelsTable, MOST_SCENE_ROWS if checked else MOST_ROWS)

    def onSegmentation(self, segmentation: slicer.vtkMRMLSegmentationNode | None) -> None:
        """The labels of the project are those of the segmentation."""
        if segmentation is None:
            return
        self.ui.labelsTable.setRowCount(0)
        for segmentId, label in labelsOf(segmentation):
            self._addLabel(label.value, label.name, label.color, terminologyText(label.terminology), label.lateral)
            self.ui.labelsTable.item(self.ui.labelsTable.rowCount - 1, VALUE).setData(qt.Qt.UserRole, segmentId)

    def _segmentValues(self) -> dict[str, int]:
        """Id of a segment -> value of the label that it has in the table."""
        table = self.ui.labelsTable
        items = [table.item(row, VALUE) for row in range(table.rowCount)]
        return {item.data(qt.Qt.UserRole): int(item.text()) for item in items if item.data(qt.Qt.UserRole)}

    def _createFromScene(self, folder: str, name: str) -> None:
        from barl.project.labels import check_labels

        labels = check_labels(self.labels())
        staging = newStaging()
        try:
            cases, note = self.scene.write(staging, labels, self._segmentValues())
            self._create(folder, name, labels, self.scene.channels())
        except BaseException:
            removeStaging(staging)
            raise
        self.adder.start(cases, staging, note)

    # New

    def onAddLabel(self) -> None:
        values = [int(text) for text in self._column(self.ui.labelsTable, VALUE) if text.isdecimal()]
        self._addLabel(max(values, default=0) + 1)
        self.ui.labelsTable.setCurrentCell(self.ui.labelsTable.rowCount - 1, NAME)

    def onRemoveLabel(self) -> None:
        self._removeRow(self.ui.labelsTable)

    def onAddChannel(self) -> None:
        self._addChannel("")
        self.ui.channelsTable.setCurrentCell(self.ui.channelsTable.rowCount - 1, 0)

    def onRemoveChannel(self) -> None:
        self._removeRow(self.ui.channelsTable)

    def onCopy(self) -> None:
        self._showTables(self.session.project.labels, self.session.project.channels)

    def _showTables(self, labels: Sequence[Label], channels: Sequence[Channel]) -> None:
        """Replace the tables of the new project."""
        self.ui.labelsTable.setRowCount(0)
        for label in labels:
            self._addLabel(label.value, label.name, label.color, terminologyText(label.terminology), label.lateral)
        self.ui.channelsTable.setRowCount(0)
        for channel in channels:
            self._addChannel(channel.name, channel.pattern)

    def onLike(self) -> None:
        """Ask the worker for the labels and channels of a data set."""
        from barl.worker.messages import ReadDataset

        title = _("Data set folder (with dataset.json, or BIDS)")
        folder = qt.QFileDialog.getExistingDirectory(self.widget, title, "")
        if folder:
            self._reading = self.worker.request(
                ReadDataset(folder), onResult=self._onDataset, onError=self._onNoDataset
            )

    def _onDataset(self, content: DatasetContent) -> None:
        from barl.project.labels import Channel, Label

        self._reading = None
        labels = [Label.from_json(label) for label in content.labels]
        if labels:
            self._showTables(labels, [Channel(name) for name in content.channels or ["image"]])
        text = (
            _("{layout}: {labels}, {channels}. {notes}")
            if labels
            else _("The data set ({layout}) does not say what its values mean: type the labels. {notes}")
        )
        words = text.format(
            layout=content.layout,
            labels=_("1 label") if len(labels) == 1 else _("{n} labels").format(n=len(labels)),
            channels=_channelsInWords(content.channels),
            notes=" ".join(content.notes),
        )
        self.session.status(words.strip(), error=not labels)

    def _onNoDataset(self, error: BarlError) -> None:
        self._reading = None
        self.session.status(str(error), True)

    def onCreate(self) -> None:
        folder = self.ui.newFolderPathLineEdit.currentPath.strip()
        name, fromScene = self.ui.newNameLineEdit.text.strip(), self.ui.sceneCheckBox.checked
        with self.session.reporting() as outcome, slicer.util.WaitCursor():
            if fromScene:
                self._createFromScene(folder, name)
            else:
                self._create(folder, name, self.labels(), self.channels())
        if outcome.failed:
            return
        self.session.stepWanted.emit("Cases")
        self.ui.newGroupBox.collapsed = True
        self.ui.newNameLineEdit.text = ""
        made = _("Made the project {name}.").format(name=self.session.project.name)
        more = _("Adding the volumes...") if fromScene else _("Add cases to it next.")
        self.session.status(f"{made} {more}")

    def _create(self, folder: str, name: str, labels: list[Label], channels: list[Channel]) -> None:
        from barl.errors import InputError

        if not folder:
            raise InputError(_("The project has no folder."), _("Choose a new or empty folder."))
        if not Path(folder).is_absolute():  # it would be made wherever Slicer was started
            raise InputError(
                _("The folder {folder!r} is not a full path.").format(folder=folder),
                _("Choose it with the ... button."),
            )
        self.session.createProject(folder, name or Path(folder).name, labels, channels)

    def labels(self) -> list:
        """The label table as typed (``barl.project.labels.Label``).

        Raises:
            barl.errors.InputError: A value is no number, or a terminology cannot be read.
        """
        from barl.errors import InputError
        from barl.project.labels import Label

        table, labels = self.ui.labelsTable, []
        _endEditing(table)
        for row in range(table.rowCount):
            value = table.item(row, VALUE).text().strip()
            if not value.isdecimal():
                raise InputError(
                    _("The label value {value!r} is not a whole number.").format(value=value),
                    _("Use a number from 1 to 65535."),
                )
            color = table.cellWidget(row, COLOR).color
            labels.append(
                Label(
                    int(value),
                    table.item(row, NAME).text().strip(),
                    (color.red(), color.green(), color.blue()),
                    parseTerminology(table.cellWidget(row, TERMINOLOGY).currentText),
                    table.item(row, LATERAL).checkState() == qt.Qt.Checked,
                )
            )
        return labels

    def channels(self) -> list:
        """The channels as typed (``barl.project.labels.Channel``)."""
        from barl.project.labels import Channel

        table = self.ui.channelsTable
        _endEditing(table)
        names, patterns = self._column(table, 0), self._column(table, 1)
        return [Channel(name, pattern) for name, pattern in zip(names, patterns, strict=True)]

    def _addLabel(
        self,
        value: int,
        name: str = "",
        color: tuple[int, int, int] | None = None,
        terminology: str = "",
        lateral: bool = False,
    ) -> None:
        table = self.ui.labelsTable
        row = table.rowCount
        table.setRowCount(row + 1)
        table.setItem(row, VALUE, qt.QTableWidgetItem(str(value)))
        table.setItem(row, NAME, qt.QTableWidgetItem(name))
        button = ctk.ctkColorPickerButton()
        button.displayColorName = False
        button.color = qt.QColor(*(color or colorFor(row)))
        button.toolTip = _("Color of the label; click to change it")
        table.setCellWidget(row, COLOR, button)
        table.setCellWidget(row, TERMINOLOGY, self._terminologyComboBox(terminology))
        side = qt.QTableWidgetItem("")
        side.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable | qt.Qt.ItemIsUserCheckable)
        side.setCheckState(qt.Qt.Checked if lateral else qt.Qt.Unchecked)
        side.setToolTip(_("One of a left/right pair: scans are then never mirrored in training and prediction"))
        table.setItem(row, LATERAL, side)
        _fitHeight(table, MOST_SCENE_ROWS if self.ui.sceneCheckBox.checked else MOST_ROWS)

    def onTerminologyChosen(self, _index: int = 0) -> None:
        """Show the beginning of long ones: it is what tells them apart."""
        table = self.ui.labelsTable
        for row in range(table.rowCount):
            table.cellWidget(row, TERMINOLOGY).lineEdit().setCursorPosition(0)

    def _terminologyComboBox(self, text: str) -> qt.QComboBox:
        # Slicer's own terminology selector hands over C++ structures that Python cannot make.
        combo = qt.QComboBox()
        combo.editable = True
        combo.insertPolicy = qt.QComboBox.NoInsert
        combo.addItems(COMMON)
        combo.sizeAdjustPolicy = qt.QComboBox.AdjustToMinimumContentsLengthWithIcon
        combo.minimumContentsLength = 8
        combo.setCurrentIndex(-1)
        combo.setEditText(text)
        combo.lineEdit().setCursorPosition(0)
        combo.connect("activated(int)", self.onTerminologyChosen)
        combo.toolTip = _(
            "Coded meaning, for files that others shall understand: type, modifier and category, separated by "
            "semicolons, each as Meaning (Scheme Code). Choose one or type it; it may stay empty."
        )
        return combo

    def _addChannel(self, name: str, pattern: str = "") -> None:
        table = self.ui.channelsTable
        row = table.rowCount
        table.setRowCount(row + 1)
        table.setItem(row, 0, qt.QTableWidgetItem(name))
        table.setItem(row, 1, qt.QTableWidgetItem(pattern))
        _fitHeight(table)

    def _removeRow(self, table: qt.QTableWidget) -> None:
        row = table.currentRow() if table.currentRow() >= 0 else table.rowCount - 1
        if row >= 0:
            table.removeRow(row)
            _fitHeight(table)

    @staticmethod
    def _column(table: qt.QTableWidget, column: int) -> list[str]:
        return [table.item(row, column).text().strip() for row in range(table.rowCount)]


def _fitHeight(table: qt.QTableWidget, most: int = MOST_ROWS) -> None:
    """As high as its rows, up to ``most``; more scroll."""
    rows = min(max(table.rowCount, 1), most)
    table.setFixedHeight(
        table.horizontalHeader().sizeHint.height() + rows * table.verticalHeader().defaultSectionSize + 4
    )


def _endEditing(table: qt.QTableWidget) -> None:
    """Take over what is being typed: on macOS a click on a button does not take the focus from the cell."""
    table.setCurrentCell(-1, -1)


def _channelsInWords(names: list[str]) -> str:
    if not names:
        return _("channels without names")
    text = _("channel {names}") if len(names) == 1 else _("channels {names}")
    return text.format(names=", ".join(names))
