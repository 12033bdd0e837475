# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for CTK's widgets: sections that fold, buttons, frames; and the module `ctk`.

Import after pythonqt.install().
They offer what CTK's headers declare (see `declared`) and behave as CTK does where a module can tell; sizes and looks
are close, not equal.
"""

from __future__ import annotations

import sys
import types

from PySide6 import QtCore, QtGui, QtWidgets

from . import declared, pythonqt, uiloader
from .pythonqt import OwnHints, stored

P, S, Qt = QtCore.Property, QtCore.Signal, QtCore.Qt
QStyle = QtWidgets.QStyle
_LEFT = int(Qt.AlignLeft | Qt.AlignVCenter)


class Folding:
    """What ctkCollapsibleButton and ctkCollapsibleGroupBox share: children hidden while folded, and no longer.

    A child that the module hides or shows while the section is folded appears as wanted when it is unfolded.
    """

    _forcing = False

    def _follow(self, child):
        if isinstance(child, QtWidgets.QWidget):
            child.installEventFilter(self)
            self._applyTo(child)

    def _applyTo(self, child):
        if not self.testAttribute(Qt.WA_WState_Created):
            return
        wanted = pythonqt.property(child, "visibilityToParent") is not False
        self._forcing = True
        child.setVisible(wanted and not self.collapsed)
        if wanted:  # not as if somebody had shown or hidden this child on purpose
            child.setAttribute(Qt.WA_WState_ExplicitShowHide, False)
        self._forcing = False

    def _applyToAll(self):
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget):
                self._applyTo(child)

    def childEvent(self, event: QtCore.QChildEvent) -> None:
        if event.type() == QtCore.QEvent.ChildAdded:
            self._follow(event.child())
        super().childEvent(event)

    def eventFilter(self, child: QtCore.QObject, event: QtCore.QEvent) -> bool:
        kind = event.type()
        if kind in (QtCore.QEvent.ShowToParent, QtCore.QEvent.HideToParent) and not self._forcing:
            shown = kind == QtCore.QEvent.ShowToParent
            if not shown or self.collapsed or pythonqt.property(child, "visibilityToParent") is not None:
                child.setProperty("visibilityToParent", shown)
            if self.collapsed and shown:
                self._applyTo(child)
        return False

    def showEvent(self, event: QtGui.QShowEvent) -> None:
        if self.collapsed:
            self._applyToAll()
        super().showEvent(event)


@uiloader.register("ctkCollapsibleButton")
class ctkCollapsibleButton(OwnHints, Folding, QtWidgets.QAbstractButton):
    """A section under a wide button; `checked` is the opposite of `collapsed`."""

    contentsCollapsed = S(bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        self._collapsed = False
        super().__init__(parent)
        self._hints(sizeHint=_hintOfSection, minimumSizeHint=_minimumOfSection)
        self._unfoldedHeight = self.maximumHeight
        self.setCheckable(True)
        self.setChecked(True)
        self.setSizePolicy(QtWidgets.QSizePolicy.Minimum, QtWidgets.QSizePolicy.Preferred)
        self.setContentsMargins(0, self._buttonSize().height(), 0, 0)
        self.setBackgroundRole(QtGui.QPalette.Window)
        self.toggled.connect(self._collapse)

    def _buttonSize(self):
        """Size of the button without what is below it."""
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        metric = self.style().pixelMetric
        text = self.fontMetrics().size(Qt.TextShowMnemonic, self.text or "XXXX")
        width = metric(QStyle.PM_IndicatorWidth, option, self) + metric(QStyle.PM_CheckBoxLabelSpacing, option, self)
        if self.text:
            width += text.width()
        height = max(metric(QStyle.PM_IndicatorHeight, option, self), text.height())
        return self.style().sizeFromContents(QStyle.CT_PushButton, option, QtCore.QSize(width, height), self)

    def _headerHeight(self):
        return self._buttonSize().height()

    def _setCollapsed(self, folded):
        if self.checkable:
            self.setChecked(not folded)
        else:
            self._collapse(not folded)

    def _collapse(self, unfolded):
        folded = not unfolded
        if folded == self._collapsed:
            return
        self._collapsed = folded
        if folded:
            self._unfoldedHeight = self.maximumHeight
            self.setMaximumHeight(self.sizeHint.height())
        else:
            self.setMaximumHeight(self._unfoldedHeight)
            self.updateGeometry()
        self._applyToAll()
        parent = self.parentWidget()
        if not folded and (parent is None or parent.layout() is None):
            self.resize(self.sizeHint)
        else:
            self.updateGeometry()
        self.contentsCollapsed.emit(folded)

    collapsed = P(bool, lambda self: self._collapsed, _setCollapsed)
    collapsedHeight = stored(int, 14, "updateGeometry")
    flat = stored(bool, False, "update")
    contentsFrameShape = stored(int, 0)
    contentsFrameShadow = stored(int, 16)
    contentsLineWidth = stored(int, 1)
    contentsMidLineWidth = stored(int, 0)
    buttonTextAlignment = stored(int, _LEFT, "update")
    indicatorAlignment = stored(int, _LEFT, "update")

    def hitButton(self, position: QtCore.QPoint) -> bool:
        return QtCore.QRect(0, 0, self.width, self._headerHeight()).contains(position)

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, self.width, self._headerHeight())
        option.state = int(option.state) | int(QStyle.State_Sunken if self.down else QStyle.State_Raised)
        if not self.flat:
            painter.drawControl(QStyle.CE_PushButtonBevel, option)
        arrow = QtWidgets.QStyleOption()
        arrow.initFrom(self)
        side = max(self._headerHeight() // 2, 8)
        arrow.rect = QtCore.QRect(6, (self._headerHeight() - side) // 2, side, side)
        painter.drawPrimitive(QStyle.PE_IndicatorArrowRight if self._collapsed else QStyle.PE_IndicatorArrowDown, arrow)
        left = side + 12
        area = QtCore.QRect(left, 0, self.width - left - 6, self._headerHeight())
        alignment = int(self.buttonTextAlignment) | int(Qt.TextShowMnemonic)  # "&&" is drawn as one "&"
        painter.drawItemText(area, alignment, self.palette, self.enabled, self.text)


def _hintOfSection(button):
    size = button._buttonSize() + QtCore.QSize(0, button.collapsedHeight)
    if button.collapsed or button.layout() is None:
        return size
    return button.layout().totalSizeHint().expandedTo(size)


def _minimumOfSection(button):
    if button.collapsed:
        return button._buttonSize() + QtCore.QSize(0, button.collapsedHeight)
    size = button._buttonSize()
    return size if button.layout() is None else button.layout().totalMinimumSize().expandedTo(size)


@uiloader.register("ctkCollapsibleGroupBox")
class ctkCollapsibleGroupBox(Folding, QtWidgets.QGroupBox):
    """A group box folded by its check mark."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._unfoldedHeight = self.maximumHeight
        self.setCheckable(True)
        self.toggled.connect(self._expand)

    def _expand(self, unfolded):
        self._applyToAll()
        if unfolded:
            self.setMaximumHeight(self._unfoldedHeight)
        else:
            self._unfoldedHeight = self.maximumHeight
            option = QtWidgets.QStyleOptionGroupBox()
            self.initStyleOption(option)
            label = self.style().subControlRect(QStyle.CC_GroupBox, option, QStyle.SC_GroupBoxLabel, self)
            self.setMaximumHeight(label.height() + self.collapsedHeight)

    collapsed = P(bool, lambda self: not self.checked, lambda self, folded: self.setChecked(not folded))
    collapsedHeight = stored(int, 14)


@uiloader.register("ctkPushButton")
class ctkPushButton(QtWidgets.QPushButton):
    buttonTextAlignment = stored(int, int(Qt.AlignHCenter | Qt.AlignVCenter), "update")
    iconAlignment = stored(int, _LEFT, "update")
    elideMode = stored(int, int(Qt.ElideNone), "update")


@uiloader.register("ctkCheckablePushButton")
class ctkCheckablePushButton(ctkPushButton):
    """A push button whose check box, if `checkBoxControlsButton`, makes the button itself checkable."""

    checkBoxToggled = S(bool)
    checkStateChanged = S(int)

    def _setState(self, state):
        if state != self._state:
            self._state = state
            if self.checkBoxControlsButton:
                self.setCheckable(state == 2)
            self.checkBoxToggled.emit(state == 2)
            self.checkStateChanged.emit(state)

    _state = 0
    indicatorAlignment = stored(int, _LEFT, "update")
    checkState = P(int, lambda self: self._state, _setState)
    checkBoxControlsButton = stored(bool, True)
    checkBoxControlsButtonToggleState = stored(bool, True)
    checkBoxUserCheckable = stored(bool, True)


@uiloader.register("ctkMenuButton")
class ctkMenuButton(QtWidgets.QPushButton):
    """A push button with an arrow that opens the menu given by setMenu()."""


@uiloader.register("ctkCheckBox")
class ctkCheckBox(QtWidgets.QCheckBox):
    indicatorIcon = stored(QtGui.QIcon, QtGui.QIcon())
    indicatorIconSize = stored(QtCore.QSize, QtCore.QSize())


@uiloader.register("ctkExpandButton")
class ctkExpandButton(QtWidgets.QToolButton):
    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._turn()

    def _turn(self):
        self.setArrowType(Qt.RightArrow if self.orientation == 1 else Qt.DownArrow)

    orientation = stored(int, 1, "_turn")
    mirrorOnExpand = stored(bool, False)


@uiloader.register("ctkExpandableWidget")
class ctkExpandableWidget(QtWidgets.QFrame):
    """A frame with a size grip; the grip is not drawn here."""

    orientations = stored(int, int(Qt.Horizontal | Qt.Vertical))
    sizeGripInside = stored(bool, True)
    sizeGripMargins = stored(QtCore.QSize, QtCore.QSize(0, 0))

    def updateSizeHint(self) -> None:
        self.updateGeometry()


class _Module(types.ModuleType):
    def __getattr__(self, name):
        if declared.otherClass(name):
            raise declared.NotInHost("ctk", name)
        raise AttributeError(f"module 'ctk' has no attribute '{name}'")


def install() -> types.ModuleType:
    """The module `ctk`, registered in sys.modules."""
    from . import ctkchoices, ctknumbers  # noqa: F401  (they register their classes)

    module = _Module("ctk")
    for name, cls in uiloader.registered().items():
        if name.startswith("ctk"):
            setattr(module, name, cls)
    sys.modules["ctk"] = module
    return module
