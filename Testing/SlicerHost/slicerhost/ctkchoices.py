# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for CTK's widgets that choose: combo boxes, paths, folders, colors; and its text and message widgets."""

from __future__ import annotations

import re
from collections.abc import Iterable

from PySide6 import QtCore, QtGui, QtWidgets

from . import uiloader
from .pythonqt import stored

P, S, Qt = QtCore.Property, QtCore.Signal, QtCore.Qt


@uiloader.register("ctkComboBox")
class ctkComboBox(QtWidgets.QComboBox):
    """A combo box that can show a text while nothing is chosen."""

    returnRelease = S()

    def keyReleaseEvent(self, event: QtGui.QKeyEvent) -> None:
        if event.key() in (Qt.Key_Return, Qt.Key_Enter):
            self.returnRelease.emit()
        super().keyReleaseEvent(event)

    def setCurrentUserDataAsString(self, data: str) -> None:
        index = next((i for i in range(self.count) if str(self.itemData(i) or "") == data), -1)
        if index >= 0:
            self.setCurrentIndex(index)

    currentUserDataAsString = P(str, lambda self: str(self.currentData or ""), setCurrentUserDataAsString)
    defaultText = stored(str, "", "update")
    defaultIcon = stored(QtGui.QIcon, QtGui.QIcon(), "update")
    forceDefault = stored(bool, False, "update")
    elideMode = stored(int, int(Qt.ElideNone), "update")
    scrollWheelEffect = stored(int, 1)

    def wheelEvent(self, event: QtGui.QWheelEvent) -> None:
        if self.scrollWheelEffect == 0:
            event.ignore()
        else:
            super().wheelEvent(event)

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionComboBox()
        self.initStyleOption(option)
        if self.currentIndex == -1 or self.forceDefault:
            option.currentText = self.defaultText
        painter.drawComplexControl(QtWidgets.QStyle.CC_ComboBox, option)
        painter.drawControl(QtWidgets.QStyle.CE_ComboBoxLabel, option)


@uiloader.register("ctkCheckableComboBox")
class ctkCheckableComboBox(QtWidgets.QComboBox):
    """A combo box with a check mark at every item; it shows None, All, or what is checked."""

    checkedIndexesChanged = S()
    returnRelease = S()

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        self._checked = []
        super().__init__(parent)
        self.setCheckableModel(self.model())
        self.view().viewport().installEventFilter(self)

    def setCheckableModel(self, model: QtCore.QAbstractItemModel) -> None:
        if model is not self.model():
            self.setModel(model)
        model.connect("dataChanged(QModelIndex,QModelIndex)", self._changed)
        model.connect("rowsInserted(QModelIndex,int,int)", self._inserted)
        self._inserted()

    def checkableModel(self) -> QtCore.QAbstractItemModel:
        return self.model()

    def _indexes(self):
        return [self.model().index(row, 0) for row in range(self.count)]

    def _inserted(self):
        for index in self._indexes():
            item = self.model().itemFromIndex(index)
            if not item.isCheckable():
                item.setCheckable(True)
                item.setCheckState(Qt.Unchecked)

    def _changed(self):
        rows = [i.row() for i in self._indexes() if self.checkState(i) == Qt.Checked]
        if rows != self._checked:
            self._checked = rows
            self.checkedIndexesChanged.emit()
        self.update()

    def checkedIndexes(self) -> tuple[QtCore.QModelIndex, ...]:
        return tuple(i for i in self._indexes() if self.checkState(i) == Qt.Checked)

    def allChecked(self) -> bool:
        return len(self.checkedIndexes()) == self.count

    def allPatiallyChecked(self) -> bool:
        return all(self.checkState(i) == Qt.PartiallyChecked for i in self._indexes())

    def noneChecked(self) -> bool:
        return all(self.checkState(i) == Qt.Unchecked for i in self._indexes())

    def setCheckState(self, index: QtCore.QModelIndex, state: int) -> None:
        self.model().setData(index, int(state), Qt.CheckStateRole)

    def checkState(self, index: QtCore.QModelIndex) -> int:
        return Qt.CheckState(int(self.model().data(index, Qt.CheckStateRole) or 0))

    def eventFilter(self, watched: QtCore.QObject, event: QtCore.QEvent) -> bool:
        if event.type() == QtCore.QEvent.MouseButtonRelease and self.view().visible:
            index = self.view().currentIndex()
            if index.isValid():
                self.setCurrentIndex(index.row())
                self.setCheckState(index, Qt.Unchecked if self.checkState(index) == Qt.Checked else Qt.Checked)
            return True
        return False

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionComboBox()
        self.initStyleOption(option)
        texts = [self.itemText(i.row()) for i in self.checkedIndexes()]
        option.currentText = "None" if not texts else "All" if len(texts) == self.count else ", ".join(texts)
        painter.drawComplexControl(QtWidgets.QStyle.CC_ComboBox, option)
        painter.drawControl(QtWidgets.QStyle.CE_ComboBoxLabel, option)


def patternOf(nameFilters: Iterable[str]) -> str:
    """The regular expression by which ctkPathLineEdit judges a path: `Images (*.nii *.mha)`, or `*.nii`.

    As CTK's own (ctkUtils.cpp): of `*.nii.gz` it takes the first ending only, so that a file x.nii.gz does not fit.
    """
    wildcards = []
    for one in nameFilters:
        inside = re.search(r"\(([^)]*)\)", one)
        wildcards += (inside[1] if inside else one).split()
    found = [re.search(r"\*\.(\w+)", wildcard) for wildcard in wildcards]
    parts = [rf".*\.{match[1]}?$" for match in found if match]
    return f"({'|'.join(parts)})" if parts else ".+"


@uiloader.register("ctkPathLineEdit")
class ctkPathLineEdit(QtWidgets.QWidget):
    """A line for a path with its history, and a button that opens the file dialog.

    currentPathChanged comes only for a text that fits `nameFilters`; whether the file exists is never looked at.
    """

    validInputChanged = S(bool)
    currentPathChanged = S(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._valid, self._key, self._nameFilters = False, "", ()
        self._combo = QtWidgets.QComboBox(self)
        self._combo.setEditable(True)
        self._combo.setInsertPolicy(QtWidgets.QComboBox.NoInsert)
        self._validator = QtGui.QRegularExpressionValidator(QtCore.QRegularExpression(".+"), self)
        self._line = self._combo.lineEdit()
        self._line.setValidator(self._validator)
        self._button = QtWidgets.QToolButton(self)
        self._button.setText("...")
        self._button.setToolTip("Open a dialog")
        self._button.setSizePolicy(QtWidgets.QSizePolicy.Fixed, QtWidgets.QSizePolicy.Ignored)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addWidget(self._combo, 1)
        row.addWidget(self._button)
        self.setSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Fixed)
        self._combo.setMinimumContentsLength(5)
        self._combo.setSizeAdjustPolicy(QtWidgets.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        self.setFocusProxy(self._line)
        self._button.clicked.connect(self.browse)
        self._line.textChanged.connect(self._edited)

    def _edited(self, text):
        before, self._valid = self._valid, self._line.acceptableInput
        if self._valid:
            self.currentPathChanged.emit(text)
        if self._valid != before:
            self.validInputChanged.emit(self._valid)

    def setCurrentPath(self, path: str) -> None:
        self._line.setText(path)

    def comboBox(self) -> QtWidgets.QComboBox:
        return self._combo

    def browse(self) -> None:
        if not self.filters & self.Files:
            path = QtWidgets.QFileDialog.getExistingDirectory(self, "Select a directory...", self._line.text)
        else:
            ask = "getSaveFileName" if self.filters & self.Writable else "getOpenFileName"
            title = "Select a file to save " if self.filters & self.Writable else "Open a file"
            filters = ";;".join(self._nameFilters)
            path = getattr(QtWidgets.QFileDialog, ask)(self, title, self._line.text, filters)
        if path:
            self.setCurrentPath(path)

    def _settingName(self):
        return f"ctkPathLineEdit/{self._key or self.objectName}"

    def _history(self):
        stored = QtCore.QSettings().value(self._settingName())
        return [stored] if isinstance(stored, str) else list(stored or ())

    def retrieveHistory(self) -> None:
        path, blocked = self._line.text, self.blockSignals(True)
        self._combo.clear()
        self._combo.addItems(self._history()[:5])
        if path:
            self.setCurrentPath(path)
        self.blockSignals(blocked)
        if not path:
            self._combo.setCurrentIndex(0)

    def addCurrentPathToHistory(self) -> None:
        path = self._line.text
        if path:
            QtCore.QSettings().setValue(self._settingName(), [path, *(p for p in self._history() if p != path)])
            self.retrieveHistory()

    def _setNameFilters(self, filters):
        self._nameFilters = tuple(filters)
        self._validator.setRegularExpression(QtCore.QRegularExpression(patternOf(filters)))

    def _setSettingKey(self, key):
        self._key = key
        self.retrieveHistory()

    currentPath = P(str, lambda self: self._line.text, setCurrentPath)
    nameFilters = P("QStringList", lambda self: self._nameFilters, _setNameFilters)
    filters = stored(int, 0x1057)  # all entries but `.` and `..`, readable, executable
    options = stored(int, 0)
    label = stored(str, "")
    settingKey = P(str, lambda self: self._key, _setSettingKey)
    showBrowseButton = P(
        bool, lambda self: not self._button.isHidden(), lambda self, shown: self._button.setVisible(shown)
    )
    sizeAdjustPolicy = stored(int, 2)
    minimumContentsLength = stored(int, 0)


@uiloader.register("ctkDirectoryButton")
class ctkDirectoryButton(QtWidgets.QWidget):
    """A button that shows a folder and asks for another one."""

    directoryChanged = S(str)
    directorySelected = S(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._directory, self._text = ".", ""
        self._button = QtWidgets.QPushButton(self)
        self._button.setIcon(self.style().standardIcon(QtWidgets.QStyle.SP_DirIcon))
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._button)
        self._button.clicked.connect(self.browse)
        self._display()

    def _display(self):
        self._button.setText(self._text or QtCore.QDir(self._directory).absolutePath())

    def _setDirectory(self, directory):
        path = QtCore.QDir(directory).absolutePath()
        changed = path != QtCore.QDir(self._directory).absolutePath()
        if changed:
            self._directory = path
            self._display()
        self.directorySelected.emit(path)
        if changed:
            self.directoryChanged.emit(path)

    def browse(self) -> str:
        path = QtWidgets.QFileDialog.getExistingDirectory(self, self.caption or self.toolTip, self._directory)
        if path:
            self._setDirectory(path)
        return path

    def _setText(self, text):
        self._text = text
        self._display()

    directory = P(str, lambda self: self._directory, _setDirectory)
    caption = stored(str, "")
    text = P(str, lambda self: self._button.text, _setText)
    acceptMode = stored(int, 0)
    options = stored(int, 1)
    elideMode = stored(int, int(Qt.ElideNone))


@uiloader.register("ctkColorPickerButton")
class ctkColorPickerButton(QtWidgets.QPushButton):
    """A button that shows a color and asks for another one."""

    colorChanged = S(QtGui.QColor)
    colorNameChanged = S(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._color = QtGui.QColor(0, 0, 0)
        self.clicked.connect(self.changeColor)
        self._display()

    def _display(self):
        swatch = QtGui.QPixmap(16, 16)
        swatch.fill(self._color)
        self.setIcon(QtGui.QIcon(swatch))
        self.update()

    def setColor(self, color: QtGui.QColor) -> None:
        if color != self._color:
            self._color = QtGui.QColor(color)
            self._display()
            self.colorChanged.emit(self._color)

    def setDisplayColorName(self, shown: bool) -> None:
        self._named = shown
        self._display()

    def _setColorName(self, name):
        if name != self._name:
            self._name = name
            self._display()
            self.colorNameChanged.emit(name)

    def changeColor(self) -> None:
        color = QtWidgets.QColorDialog.getColor(self._color, self)
        if color.isValid():
            self.setColor(color)
            self._setColorName("")

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionButton()
        self.initStyleOption(option)
        option.text = (self._name or self._color.name()) if self._named else self.text
        painter.drawControl(QtWidgets.QStyle.CE_PushButton, option)

    _named, _name = True, ""
    color = P(QtGui.QColor, lambda self: QtGui.QColor(self._color), setColor)
    colorName = P(str, lambda self: self._name, _setColorName)
    displayColorName = P(bool, lambda self: self._named, setDisplayColorName)
    dialogOptions = stored(int, 0)


@uiloader.register("ctkSearchBox")
class ctkSearchBox(QtWidgets.QLineEdit):
    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.setClearButtonEnabled(True)

    showSearchIcon = stored(bool, True)
    searchIcon = stored(QtGui.QIcon, QtGui.QIcon())
    clearIcon = stored(QtGui.QIcon, QtGui.QIcon())


@uiloader.register("ctkFittedTextBrowser")
class ctkFittedTextBrowser(QtWidgets.QTextBrowser):
    """A text as high as it needs to be; of a collapsible text the first line shows and a link opens the rest."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._source, self._html = "", False
        self.setSizePolicy(QtWidgets.QSizePolicy.Ignored, QtWidgets.QSizePolicy.Preferred)
        self.textChanged.connect(self._fit)
        self.connect("anchorClicked(QUrl)", self._follow)

    def _fit(self):
        wanted = int(self.document.size.height()) + 2 * self.frameWidth
        self.setMinimumHeight(wanted)
        self.setMaximumHeight(wanted)

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def wheelEvent(self, event: QtGui.QWheelEvent) -> None:
        if not self.disableMouseScroll:
            super().wheelEvent(event)

    def collapsibleText(self) -> str:
        return self._source

    def setCollapsibleText(self, text: str) -> None:
        self._take(text, "<html>" in text)

    def setCollapsibleHtml(self, text: str) -> None:
        self._take(text, True)

    def setCollapsiblePlainText(self, text: str) -> None:
        self._take(text, "<html>" in text)

    def _take(self, text, html):
        self._source, self._html = text, html
        self._display()

    def _display(self):
        head, found, rest = self._source.partition("<br>" if self._html else "\n")
        if not found:
            self.setHtml(self._source)
        elif self.collapsed:
            self.setHtml(f'{head}&hellip; <a href="#more">{self.showDetailsText}</a>')
        else:
            rest = rest if self._html else rest.replace("\n", "<br>")
            self.setHtml(f'{head}{rest} <a href="#less">{self.hideDetailsText}</a>')

    def _follow(self, url):
        if url.fragment() in ("more", "less"):
            self.collapsed = url.fragment() == "less"

    collapsed = stored(bool, True, "_display")
    showDetailsText = stored(str, "Show details...", "_display")
    hideDetailsText = stored(str, "Hide details.", "_display")
    disableMouseScroll = stored(bool, False)


@uiloader.register("ctkMessageBox")
class ctkMessageBox(QtWidgets.QMessageBox):
    """A message box that can be told not to come again."""

    def _offer(self):
        if self.dontShowAgainVisible and self.checkBox() is None:
            box = QtWidgets.QCheckBox("Don't show this message again", self)
            self.setCheckBox(box)
        if self.checkBox() is not None:
            self.checkBox().setVisible(self.dontShowAgainVisible)
            self.checkBox().setChecked(self._hidden)

    def setDontShowAgain(self, hidden: bool) -> None:
        self._hidden = hidden
        self._offer()

    def onFinished(self, result: int) -> None:
        if self.checkBox() is not None:
            self._hidden = self.checkBox().checked
        if self.dontShowAgainSettingsKey:
            QtCore.QSettings().setValue(self.dontShowAgainSettingsKey, result if self._hidden else 0)

    _hidden = False
    dontShowAgain = P(bool, lambda self: self._hidden, setDontShowAgain)
    dontShowAgainVisible = stored(bool, False, "_offer")
    dontShowAgainSettingsKey = stored(str, "")
