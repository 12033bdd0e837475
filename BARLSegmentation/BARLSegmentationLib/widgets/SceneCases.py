# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.CaseIntake import referenceVolume, writeSegmentation, writeVolumes
from BARLSegmentationLib.logic.Prediction import objection
from BARLSegmentationLib.logic.SceneVolumes import nameOf, proposedNames, usersVolumes
from BARLSegmentationLib.logic.Signal import Signal
from BARLSegmentationLib.widgets.CaseSources import comboWidget, nodeWidget
from BARLSegmentationLib.widgets.Panel import signalsBlocked

if TYPE_CHECKING:
    from barl.project.labels import Channel, Label
    from barl.worker.messages import CaseFiles

VOLUME, CASE, CHANNEL = range(3)
FIRST_CHANNEL = "image"
MOST_ROWS = 3  # of the table on a small screen; more scroll


@dataclass
class Row:
    """A volume of the scene in the table: what case and what channel it becomes."""

    volume: slicer.vtkMRMLScalarVolumeNode
    case: str
    channel: str = FIRST_CHANNEL
    wanted: bool = True


class SceneCases:
    """The first cases of a new project, from volumes of the scene: a table of these, and a segmentation of one of them.

    Volumes with the same case name are the channels of one case.

    Args:
        widget: An empty widget with a grid layout.

    Attributes:
        segmentationChanged: Another segmentation is chosen (the node, or None).
        table: The QTableWidget.
        segmentationSelector: Its labels become the project's.
        outlineComboBox: The case of which the segmentation is the accepted outline.
    """

    def __init__(self, widget: qt.QWidget) -> None:
        self.segmentationChanged = Signal()
        self.rows: list[Row] = []
        self.table = qt.QTableWidget(0, 3)
        self._setUpTable()
        tip = _("Names, colors and terminology of its segments become the labels of the project")
        selector: slicer.qMRMLNodeComboBox = nodeWidget(tip, "vtkMRMLSegmentationNode")
        selector.connect("currentNodeChanged(vtkMRMLNode*)", self._onSegmentation)
        self.segmentationSelector = selector
        tip = _("The case whose accepted outline the segmentation is; or take the labels only")
        self.outlineComboBox = comboWidget(tip, [])
        self.outlineComboBox.minimumContentsLength = 8
        layout = widget.layout()
        layout.addWidget(self.table, 0, 0, 1, 4)
        layout.addWidget(qt.QLabel(_("Labels of:")), 1, 0)
        layout.addWidget(self.segmentationSelector, 1, 1)
        layout.addWidget(qt.QLabel(_("outline of:")), 1, 2)
        layout.addWidget(self.outlineComboBox, 1, 3)
        layout.setColumnStretch(1, 1)
        layout.setColumnStretch(3, 1)
        self._showCases()

    def _setUpTable(self) -> None:
        table = self.table
        table.setHorizontalHeaderLabels([_("Volume"), _("Case"), _("Channel")])
        table.verticalHeader().visible = False
        table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + 6)
        table.setTextElideMode(qt.Qt.ElideMiddle)
        table.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)
        table.toolTip = _(
            "Tick the volumes to add. The case's name is stored as it stands here: use no patient name. Volumes with "
            "one case name are the channels of that case."
        )
        header = table.horizontalHeader()
        header.setHighlightSections(False)
        for column in (VOLUME, CASE, CHANNEL):
            header.setSectionResizeMode(column, qt.QHeaderView.Stretch)
        table.connect("itemChanged(QTableWidgetItem*)", self._onItemChanged)

    # What there is

    def refresh(self) -> None:
        """Show the volumes that the scene has now; what was typed stays."""
        # A closed scene gives its ids away again.
        known = {row.volume.GetID(): row for row in self.rows if row.volume.GetScene() is not None}
        volumes = usersVolumes()
        fresh = [volume for volume in volumes if volume.GetID() not in known]
        kept = [row.case for row in self.rows]
        names = proposedNames([nameOf(volume) for volume in fresh], kept)
        known |= {volume.GetID(): Row(volume, name) for volume, name in zip(fresh, names, strict=True)}
        self.rows = [known[volume.GetID()] for volume in volumes]
        self._show()

    def _show(self) -> None:
        table = self.table
        with signalsBlocked(table):
            table.setRowCount(len(self.rows))
            for number, row in enumerate(self.rows):
                volume = qt.QTableWidgetItem(row.volume.GetName())
                volume.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable | qt.Qt.ItemIsUserCheckable)
                volume.setCheckState(qt.Qt.Checked if row.wanted else qt.Qt.Unchecked)
                volume.setToolTip(row.volume.GetName())
                table.setItem(number, VOLUME, volume)
                table.setItem(number, CASE, qt.QTableWidgetItem(row.case))
                table.setItem(number, CHANNEL, qt.QTableWidgetItem(row.channel))
        rows = min(max(len(self.rows), 1), MOST_ROWS)
        height = table.horizontalHeader().sizeHint.height() + rows * table.verticalHeader().defaultSectionSize + 4
        table.setFixedHeight(height)
        self._showCases()

    def _onItemChanged(self, item: qt.QTableWidgetItem) -> None:
        row = self.rows[item.row()]
        if item.column() == VOLUME:
            row.wanted = item.checkState() == qt.Qt.Checked
        elif item.column() == CASE:
            before, row.case = row.case, item.text().strip()
            alone = all(other.case != before for other in self.rows if other.wanted)
            self._showCases({before: row.case} if row.wanted and alone else {})
            return
        else:
            row.channel = item.text().strip()
        self._showCases()

    def _onSegmentation(self, *_arguments: object) -> None:
        segmentation = self.segmentationSelector.currentNode()
        self._showCases()
        if segmentation is not None:
            drawnOn = referenceVolume(segmentation)
            # Of several cases only the one that it was drawn on: which of them a file belongs to, its user must say.
            names = [row.case for row in self.rows if row.volume is drawnOn or len(self.rows) == 1]
            self.outlineComboBox.setCurrentIndex(max(self.outlineComboBox.findData(names[0]), 0) if names else 0)
        self.segmentationChanged.emit(segmentation)

    def _showCases(self, renamed: Mapping[str, str] | None = None) -> None:
        """List the cases of which the segmentation can be the outline; the chosen one stays, also under a new name."""
        combo = self.outlineComboBox
        before = combo.currentText if combo.currentIndex > 0 else ""
        chosen = (renamed or {}).get(before, before)
        names = list(dict.fromkeys(row.case for row in self.rows if row.wanted))
        with signalsBlocked(combo):
            combo.clear()
            combo.addItem(_("no case"), "")
            for name in names:
                combo.addItem(name, name)
            combo.setCurrentIndex(names.index(chosen) + 1 if chosen in names else 0)
        combo.enabled = self.segmentationSelector.currentNode() is not None

    # What becomes of it

    def channels(self) -> list[Channel]:
        """The channels as typed, in the order of the table."""
        from barl.project.labels import Channel

        return [Channel(name) for name in dict.fromkeys(row.channel for row in self.rows if row.wanted)]

    def cases(self) -> dict[str, list[slicer.vtkMRMLScalarVolumeNode]]:
        """Name of a case -> its volume of each channel.

        Raises:
            barl.errors.InputError: No volume is ticked, a name is missing, a case lacks a channel or has one twice, or
                a volume cannot be a scan.
        """
        from barl.errors import InputError
        from barl.project.names import check_name

        self.table.setCurrentCell(-1, -1)  # what is being typed counts
        wanted = [row for row in self.rows if row.wanted]
        if not wanted:
            raise InputError(_("No volume is ticked."), _("Tick the volumes that are cases of the project."))
        channels = [channel.name for channel in self.channels()]
        found: dict[str, dict[str, slicer.vtkMRMLScalarVolumeNode]] = {}
        for row in wanted:
            volumes = found.setdefault(check_name(row.case, "case"), {})
            if row.channel in volumes:
                raise InputError(
                    _("Two volumes are the channel {channel} of the case {case}.").format(
                        channel=row.channel, case=row.case
                    ),
                    _("Give the second one another case name, or another channel."),
                )
            volumes[row.channel] = row.volume
        for name, volumes in found.items():
            missing = [channel for channel in channels if channel not in volumes]
            if missing:
                raise InputError(
                    _("The case {case} has no volume of the channel {channel}.").format(case=name, channel=missing[0]),
                    _("Untick its volumes, or correct the column Channel: each case needs each channel."),
                )
            if problem := objection(list(volumes.values())):
                raise InputError(problem)
        return {name: [volumes[channel] for channel in channels] for name, volumes in found.items()}

    def write(self, staging: Path, labels: Sequence[Label], values: Mapping[str, int]) -> tuple[list[CaseFiles], str]:
        """Write the volumes and the outline to files.

        Args:
            staging: An empty folder for them.
            labels: The table of the project.
            values: Id of a segment -> value of its label.

        Returns:
            What to ask the worker for, and a sentence for the user.

        Raises:
            barl.errors.BarlError: See ``cases``; or nothing is outlined where the scan lies.
        """
        from barl.worker.messages import CaseFiles

        segmentation, outlined = self.segmentationSelector.currentNode(), self.outlineComboBox.currentText
        if self.outlineComboBox.currentIndex <= 0:
            outlined = ""
        cases, note = [], ""
        for number, (name, volumes) in enumerate(self.cases().items()):
            folder = staging / str(number)
            folder.mkdir()
            paths, label = writeVolumes(volumes, self.channels(), folder), None
            if segmentation is not None and name == outlined:
                label, note = writeSegmentation(segmentation, volumes, paths[0], labels, values)
            cases.append(CaseFiles(name, [str(path) for path in paths], str(label) if label else None))
        return cases, note
