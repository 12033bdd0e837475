# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.LabelTable import colorFor, terminologyText
from BARLSegmentationLib.logic.Question import Question
from BARLSegmentationLib.logic.Words import readOnlyReason
from BARLSegmentationLib.widgets.Panel import allow, signalsBlocked

if TYPE_CHECKING:
    from barl.project.labels import Label

    from BARLSegmentationLib.logic.Session import Session

VALUE, NAME, MEANING, SIDES = range(4)
CHANNEL, PATTERN = range(2)
MOST_ROWS = 4  # more scroll


class DefinitionTables:
    """Labels and channels of the open project: names and left/right pairs can be changed, labels added.

    Args:
        session: What all panels share.
        widget: An empty widget with a grid layout.

    Attributes:
        labels, channels: The QTableWidgets.
        nameLineEdit, addButton: For a new label.
    """

    def __init__(self, session: Session, widget: qt.QWidget) -> None:
        self.session = session
        self.labels = _table([_("Value"), _("Label"), _("Meaning"), _("L/R")], NAME)
        self.labels.toolTip = _("Double-click a name to change it; values are fixed, for outlines hold them")
        self.channels = _table([_("Channel"), _("In file names")], CHANNEL)
        self.channels.toolTip = _("Double-click to change a name, or the text by which files of the channel are found")
        self.nameLineEdit = qt.QLineEdit()
        self.nameLineEdit.placeholderText = _("name of another label")
        self.addButton = qt.QPushButton(_("Add label"))
        layout = widget.layout()
        layout.addWidget(self.labels, 0, 0, 1, 2)
        layout.addWidget(self.nameLineEdit, 1, 0)
        layout.addWidget(self.addButton, 1, 1)
        layout.addWidget(self.channels, 2, 0, 1, 2)
        self.addButton.connect("clicked(bool)", self.onAdd)
        self.nameLineEdit.connect("returnPressed()", self.onAdd)
        self.nameLineEdit.connect("textChanged(QString)", self._updateButton)
        self.labels.connect("itemChanged(QTableWidgetItem*)", self.onLabelChanged)
        self.channels.connect("itemChanged(QTableWidgetItem*)", self.onChannelChanged)
        self.update()

    def update(self) -> None:
        project = self.session.project
        reason = readOnlyReason(project)
        labels = project.labels if project is not None else []
        rows = [(str(label.value), label.name, terminologyText(label.terminology), "") for label in labels]
        _fill(self.labels, rows, {NAME} if not reason else set())
        with signalsBlocked(self.labels):
            for row, label in enumerate(labels):
                self.labels.item(row, VALUE).setBackground(qt.QBrush(qt.QColor(*label.color)))
                self._showSides(self.labels.item(row, SIDES), label.lateral, not reason)
        channels = project.channels if project is not None else []
        rows = [(channel.name, channel.pattern) for channel in channels]
        _fill(self.channels, rows, {CHANNEL, PATTERN} if not reason else set())
        self._updateButton()

    @staticmethod
    def _showSides(item: qt.QTableWidgetItem, lateral: bool, editable: bool) -> None:
        flags = qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable
        item.setFlags(flags | qt.Qt.ItemIsUserCheckable if editable else flags)
        item.setCheckState(qt.Qt.Checked if lateral else qt.Qt.Unchecked)
        item.setToolTip(
            _("One of a left/right pair: the next training does not mirror scans. Uncheck it if mirroring does no harm")
        )

    def _updateButton(self, _text: str = "") -> None:
        project = self.session.project
        reason = _("Open a project first") if project is None else readOnlyReason(project)
        unnamed = "" if self.nameLineEdit.text.strip() else _("Type a name first")
        allow(self.addButton, _("Add a label to the table; outlines and models stay valid"), reason or unnamed)

    # Changes

    def onLabelChanged(self, item: qt.QTableWidgetItem) -> None:
        label = self.session.project.labels[item.row()]
        name = item.text().strip()
        if item.column() == NAME and name != label.name:
            self._change(lambda: self.session.project.definition.rename_label(label.value, name))
        elif item.column() == SIDES:
            lateral = item.checkState() == qt.Qt.Checked
            if lateral != label.lateral:
                self._change(lambda: self.session.project.definition.set_lateral(label.value, lateral))

    def onChannelChanged(self, item: qt.QTableWidgetItem) -> None:
        channel, text = self.session.project.channels[item.row()], item.text().strip()
        change = self.session.project.definition.change_channel
        if item.column() == CHANNEL and text != channel.name:
            self._change(lambda: change(channel.name, new_name=text or " "))
        elif item.column() == PATTERN and text != channel.pattern:
            self._change(lambda: change(channel.name, pattern=text))

    def onAdd(self, _checked: bool = False) -> None:
        """Add a label; with accepted outlines, ask whether these lack it or have nothing of it."""
        name = self.nameLineEdit.text.strip()
        if not name or not self.addButton.enabled:
            return
        accepted = sum(case.is_accepted for case in self.session.ask(self.session.cases, otherwise=[]))
        if not accepted:
            self._add(name, reopen=False)
            return
        if accepted == 1:
            question = _("One accepted outline lacks {name}. Shall its case be reviewed again for it?")
        else:
            question = _("{n} accepted outlines lack {name}. Shall their cases be reviewed again for it?")
        self.session.inquire(
            Question(
                question.format(n=accepted, name=name),
                _("Review them again"),
                _("They have none"),
                onYes=lambda: self._add(name, reopen=True),
                onNo=lambda: self._add(name, reopen=False),
            )
        )

    def _add(self, name: str, reopen: bool) -> None:
        label = self._newLabel(name)
        if self._change(lambda: self.session.project.definition.add_label(label, reopen=reopen)):
            self.nameLineEdit.text = ""

    def _newLabel(self, name: str) -> Label:
        from barl.project.labels import Label
        from barl.project.sides import sided_values

        labels = self.session.project.labels
        value = max(label.value for label in labels) + 1
        label = Label(value, name, colorFor(len(labels)))
        return Label(value, name, label.color, lateral=value in sided_values([*labels, label]))

    def _change(self, change: Callable[[], list[str]]) -> bool:
        before = self.session.project.labels
        with self.session.reporting() as outcome:
            sentences = change()
        self.session.notifyDefinition(before)
        if outcome.failed:
            return False
        self.session.notifyCases()
        self.session.status(" ".join(sentences))
        return True


def _table(titles: list[str], stretched: int) -> qt.QTableWidget:
    table = qt.QTableWidget(0, len(titles))
    table.setHorizontalHeaderLabels(titles)
    table.verticalHeader().visible = False
    table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + 6)
    table.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)
    header = table.horizontalHeader()
    header.setHighlightSections(False)
    header.setSectionResizeMode(qt.QHeaderView.Stretch)
    if titles[0] != titles[stretched]:
        header.setSectionResizeMode(0, qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(len(titles) - 1, qt.QHeaderView.ResizeToContents)
    return table


def _fill(table: qt.QTableWidget, rows: list[tuple[str, ...]], editable: set[int]) -> None:
    with signalsBlocked(table):
        table.setRowCount(len(rows))
        for number, texts in enumerate(rows):
            for column, text in enumerate(texts):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(text)
                flags = qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable
                item.setFlags(flags | qt.Qt.ItemIsEditable if column in editable else flags)
                table.setItem(number, column, item)
    shown = min(max(len(rows), 1), MOST_ROWS)
    height = table.horizontalHeader().sizeHint.height() + shown * table.verticalHeader().defaultSectionSize + 4
    table.setFixedHeight(height)
