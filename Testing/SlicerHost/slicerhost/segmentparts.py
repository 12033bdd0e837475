# SPDX-License-Identifier: Apache-2.0
"""The parts of the Segment Editor's widget, in the layouts and under the names of Slicer's .ui file."""

from __future__ import annotations

import slicer
from PySide6 import QtWidgets

from .ctknumbers import ctkSliderWidget
from .mrmlwidgets import qMRMLNodeComboBox
from .segmentwidgets import qMRMLSegmentsTableView

OPTIONS_WIDTH = 410  # pixels that the options of Slicer's Paint ask for
_Policy = QtWidgets.QSizePolicy.Policy


class SegmentEditorParts:
    """Makes the parts; the editor's slots are in the class that inherits this one."""

    def _build(self):
        """The parts in Slicer's layouts and under Slicer's names."""
        root = QtWidgets.QGridLayout(self)
        root.addLayout(self._selectors(), 0, 0)
        root.addLayout(self._actions(), 1, 0)
        row = QtWidgets.QHBoxLayout()
        root.addLayout(row, 3, 0)
        left, right = QtWidgets.QVBoxLayout(), QtWidgets.QVBoxLayout()
        row.addLayout(left)
        row.addLayout(right)
        for part in (self._effectsBox(), self._undoBox()):
            left.addWidget(part)
        for part in (self._segmentsFrame(), self._optionsBox(), self._maskingBox()):
            right.addWidget(part)
        for column in (left, right):
            column.addItem(QtWidgets.QSpacerItem(20, 40, _Policy.Minimum, _Policy.Expanding))

    def _selectors(self):
        form = QtWidgets.QFormLayout()
        self._segmentationLabel = QtWidgets.QLabel("Segmentation:", self)
        self._segmentations = qMRMLNodeComboBox(self)
        self._segmentations.nodeTypes = ["vtkMRMLSegmentationNode"]
        self._segmentations.currentNodeChanged.connect(self._onSegmentationChosen)
        form.addRow(self._segmentationLabel, self._segmentations)
        self._volumeLabel = QtWidgets.QLabel("Source volume:", self)
        self._volumes = qMRMLNodeComboBox(self)
        self._volumes.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self._volumes.hideChildNodeTypes = ["vtkMRMLLabelMapVolumeNode"]
        self._volumes.addEnabled = False
        self._volumes.currentNodeChanged.connect(self._onVolumeChosen)
        form.addRow(self._volumeLabel, self._volumes)
        return form

    def _actions(self):
        row = QtWidgets.QHBoxLayout()
        self._add, self._remove = self._button("Add", row, self._onAdd), self._button("Remove", row, self._onRemove)
        self._show3D = self._button("Show 3D", row, self._onShow3D, checkable=True)
        self._goToSegmentations = self._button("Segmentations...", row, self._onGoToSegmentations)
        return row

    def _effectsBox(self):
        box = QtWidgets.QFrame(self)
        box.setObjectName("EffectsGroupBox")
        box.setFrameShape(QtWidgets.QFrame.Shape.StyledPanel)
        self._effectsGrid, self._effectColumns = QtWidgets.QGridLayout(box), 2
        self._effectsGrid.setSpacing(3)
        self._effectButtons = {}
        for name in ("None", *self._effects):
            button = self._button(name, self._effectsGrid, self._onEffectButton, checkable=True)
            button.setAutoExclusive(True)
            self._effectButtons[name] = button
        self.setEffectColumnCount(self._effectColumns)
        return box

    def _undoBox(self):
        box = QtWidgets.QFrame(self)
        box.setObjectName("UndoRedoGroupBox")
        box.setFrameShape(QtWidgets.QFrame.Shape.StyledPanel)
        grid = QtWidgets.QGridLayout(box)
        self._undo, self._redo = self._button("Undo", grid, self.undo), self._button("Redo", grid, self.redo)
        grid.addWidget(self._redo, 0, 1)
        return box

    def _segmentsFrame(self):
        self._table = qMRMLSegmentsTableView(self)
        self._table.setObjectName("SegmentsTableView")
        self._table.setSelectionMode(QtWidgets.QAbstractItemView.SingleSelection)
        self._table.selectionChanged.connect(self._onSegmentChosen)
        frame = QtWidgets.QFrame(self)
        frame.setObjectName("SegmentsTableResizableFrame")
        QtWidgets.QVBoxLayout(frame).setContentsMargins(0, 0, 0, 0)
        frame.layout().addWidget(self._table)
        return frame

    def _optionsBox(self):
        self._options = QtWidgets.QGroupBox(self)
        self._options.setObjectName("OptionsGroupBox")
        column = QtWidgets.QVBoxLayout(self._options)
        self._help = QtWidgets.QTextBrowser(self)
        self._help.setObjectName("EffectHelpBrowser")
        self._help.setSizePolicy(_Policy.Ignored, _Policy.Minimum)
        self._help.setMaximumHeight(32)
        column.addWidget(self._help)
        frame = QtWidgets.QFrame(self)
        frame.setObjectName("EffectsOptionsFrame")
        column.addWidget(frame)
        form = QtWidgets.QVBoxLayout(frame)
        self._diameter = ctkSliderWidget(self)
        self._diameter.minimum, self._diameter.maximum, self._diameter.singleStep = 0.1, 100.0, 0.1
        self._diameter.valueChanged.connect(self._onDiameter)
        form.addWidget(self._diameter)
        boxes = QtWidgets.QHBoxLayout()
        form.addLayout(boxes)
        self._sphere = QtWidgets.QCheckBox("Sphere brush", self)
        self._sphere.toggled.connect(self._onSphere)
        boxes.addWidget(self._sphere)
        for text in ("Edit in 3D views", "Color smudge"):  # as wide as in Slicer; without effect here
            box = QtWidgets.QCheckBox(text, self)
            box.setEnabled(False)
            boxes.addWidget(box)
        form.addItem(QtWidgets.QSpacerItem(OPTIONS_WIDTH, 0))
        return self._options

    def _maskingBox(self):
        self._masking = QtWidgets.QGroupBox("Masking", self)
        form = QtWidgets.QFormLayout(self._masking)
        self._maskMode, self._overwrite = QtWidgets.QComboBox(self), QtWidgets.QComboBox(self)
        for combo in (self._maskMode, self._overwrite):
            combo.setSizeAdjustPolicy(QtWidgets.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        form.addRow("Editable area:", self._maskMode)
        kind = slicer.vtkMRMLSegmentEditorNode
        for text, mode in (
            ("Overwrite all", kind.OverwriteAllSegments),
            ("Overwrite visible", kind.OverwriteVisibleSegments),
            ("Allow overlap", kind.OverwriteNone),
        ):
            self._overwrite.addItem(text, mode)
        form.addRow("Modify other segments:", self._overwrite)
        self._maskMode.activated.connect(self._onMaskMode)
        self._overwrite.activated.connect(self._onOverwrite)
        return self._masking

    @staticmethod
    def _button(text, row, slot, checkable=False):
        button = QtWidgets.QToolButton()
        button.setText(text)
        button.setCheckable(checkable)
        button.connect("clicked(bool)", slot)
        row.addWidget(button)
        return button
