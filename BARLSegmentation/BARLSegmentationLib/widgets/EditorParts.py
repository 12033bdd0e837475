# SPDX-License-Identifier: Apache-2.0
"""Makes room in Slicer's Segment Editor for a panel of 440 x 450 pixels.

Parts are found by the names of the editor's .ui file; a part that another version of Slicer lacks is left out.
"""

from __future__ import annotations

import qt
import slicer

EFFECT_COLUMNS = 3
SEGMENT_ROW, MOST_SEGMENTS = 23, 3  # pixels; more segments scroll
ROW_HEIGHT = 24  # of a row of texts
OPTION_SPACING = 2  # pixels between the rows of an effect's options
# The pressed button shows which effect is in use.
_WITHOUT_TITLE = """
QGroupBox#OptionsGroupBox { margin: 0px; padding: 0px; border: none; }
QGroupBox#OptionsGroupBox::title { height: 0px; width: 0px; color: transparent; }
"""
_MANY_CHECK_BOXES = 3  # in one row: their texts are cut


def compact(editor: slicer.qMRMLSegmentEditorWidget) -> None:
    """Remove frames, margins and empty room from the editor, and keep its options from widening the panel."""
    editor.setEffectColumnCount(EFFECT_COLUMNS)
    editor.layout().setContentsMargins(0, 0, 0, 0)
    _removeSpacers(editor.layout())
    for name in ("EffectsGroupBox", "UndoRedoGroupBox"):
        for box in slicer.util.findChildren(editor, name):
            box.setFrameShape(qt.QFrame.NoFrame)
            box.layout().setContentsMargins(0, 0, 0, 0)
    for box in slicer.util.findChildren(editor, "OptionsGroupBox"):
        box.setSizePolicy(qt.QSizePolicy.Ignored, box.sizePolicy.verticalPolicy())
        box.setStyleSheet(_WITHOUT_TITLE)
        box.layout().setContentsMargins(2, 0, 2, 0)
        _stackCheckBoxes(box)
        _tighten(box)
    for frame in slicer.util.findChildren(editor, "EffectsOptionsFrame"):
        for widget in (frame, *frame.children()):
            if isinstance(widget, qt.QWidget) and widget.layout() is not None:
                widget.layout().setContentsMargins(4, 0, 4, 0)
        for table in frame.findChildren("qMRMLSegmentsTableView"):  # of Logical operators
            table.setMaximumHeight(SEGMENT_ROW * MOST_SEGMENTS)
    for table in slicer.util.findChildren(editor, "SegmentsTableView"):
        table.headerVisible = False


def showRare(editor: slicer.qMRMLSegmentEditorWidget, shown: bool) -> None:
    """Show what the effect in use does, in words, and the effect that changes volumes instead of outlines."""
    for name in ("EffectHelpBrowser", "Mask volume"):
        for widget in slicer.util.findChildren(editor, name):
            widget.visible = shown


def moveUndo(editor: slicer.qMRMLSegmentEditorWidget, layout: qt.QLayout) -> None:
    """Put the buttons Undo and Redo into a row of texts."""
    for box in slicer.util.findChildren(editor, "UndoRedoGroupBox"):
        for button in box.findChildren(qt.QToolButton):
            button.setFixedHeight(ROW_HEIGHT)
        layout.addWidget(box)


def fitTable(editor: slicer.qMRMLSegmentEditorWidget, segments: int) -> None:
    """Make the table of segments as high as its rows; beside an effect with many options it gives way, and scrolls."""
    for frame in slicer.util.findChildren(editor, "SegmentsTableResizableFrame"):
        frame.setMinimumHeight(SEGMENT_ROW + 4)
        frame.setMaximumHeight(SEGMENT_ROW * min(max(segments, 2), MOST_SEGMENTS) + 4)


def _removeSpacers(layout: qt.QLayout) -> None:
    for index in range(layout.count()):
        item = layout.itemAt(index)
        if item.layout() is not None:
            _removeSpacers(item.layout())
        elif item.spacerItem() is not None:
            item.spacerItem().changeSize(0, 0, qt.QSizePolicy.Minimum, qt.QSizePolicy.Expanding)
    layout.invalidate()


def _tighten(box: qt.QWidget) -> None:
    """Put the rows of the effects' options close together, and take the empty frame from what is folded."""
    for layout in box.findChildren(qt.QLayout):
        if isinstance(layout, qt.QGridLayout | qt.QFormLayout):
            layout.setVerticalSpacing(OPTION_SPACING)
        elif not isinstance(layout, qt.QHBoxLayout):
            layout.setSpacing(OPTION_SPACING)
    for name in ("ctkCollapsibleGroupBox", "ctkCollapsibleButton"):
        for fold in box.findChildren(name):
            folded = fold.collapsed
            fold.collapsed = False  # it takes its height when it is folded
            fold.collapsedHeight = 0
            fold.collapsed = folded


def _stackCheckBoxes(box: qt.QWidget) -> None:
    """Put check boxes that stand side by side under each other."""
    for layout in box.findChildren(qt.QHBoxLayout):
        widgets = [layout.itemAt(index).widget() for index in range(layout.count())]
        if len(widgets) >= _MANY_CHECK_BOXES and all(isinstance(widget, qt.QCheckBox) for widget in widgets):
            layout.setDirection(qt.QBoxLayout.TopToBottom)
