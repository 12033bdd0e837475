# SPDX-License-Identifier: Apache-2.0
"""Stand-in of the panel that shows a module: layouts, size policies and size hints are those of Slicer's."""

from __future__ import annotations

from PySide6 import QtCore, QtWidgets

from .ctkchoices import ctkFittedTextBrowser
from .ctkwidgets import ctkCollapsibleButton
from .mrmlwidgets import qMRMLWidget
from .pythonqt import OwnHints
from .uiloader import register

_Policy, _Layout = QtWidgets.QSizePolicy.Policy, QtWidgets.QLayout.SizeConstraint


class qSlicerModulePanel(OwnHints, qMRMLWidget):
    """Scrolls a module up and down only: it is as wide as the module's minimum and a scroll bar, and never shrinks it.

    A widget of a module whose size hint follows its own width therefore grows without end here, as it does in Slicer.
    """

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("ModulePanel")
        self.setSizePolicy(_Policy.Minimum, _Policy.Preferred)
        self._hints(minimumSizeHint=_minimumOfPanel)
        self._module = None
        grid = QtWidgets.QGridLayout(self)
        grid.setSizeConstraint(_Layout.SetMinimumSize)
        grid.setContentsMargins(0, 0, 0, 0)
        self._area = QtWidgets.QScrollArea(self)
        self._area.setObjectName("ScrollArea")
        self._area.setSizePolicy(_Policy.Minimum, _Policy.Expanding)
        self._area.setFrameShape(QtWidgets.QFrame.Shape.NoFrame)
        self._area.setHorizontalScrollBarPolicy(QtCore.Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._area.setWidgetResizable(True)
        grid.addWidget(self._area, 0, 0)
        contents = QtWidgets.QWidget()
        contents.setObjectName("scrollAreaWidgetContents")
        contents.setSizePolicy(_Policy.Minimum, _Policy.Preferred)
        self._column = QtWidgets.QVBoxLayout(contents)
        self._column.setSizeConstraint(_Layout.SetMinAndMaxSize)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._help = self._makeHelp(contents)
        self._column.addWidget(self._help)
        self._column.addItem(QtWidgets.QSpacerItem(0, 0, _Policy.Minimum, _Policy.MinimumExpanding))
        self._area.setWidget(contents)

    def _makeHelp(self, parent):
        button = ctkCollapsibleButton(parent)
        button.setObjectName("HelpCollapsibleButton")
        button.setText("Help && Acknowledgement")
        button.setSizePolicy(_Policy.Ignored, _Policy.Fixed)
        button.collapsed = True
        tabs = QtWidgets.QTabWidget(button)
        self._texts = ctkFittedTextBrowser(tabs), ctkFittedTextBrowser(tabs)
        for text, title in zip(self._texts, ("Help", "Acknowledgement"), strict=True):
            tabs.addTab(text, title)
        QtWidgets.QVBoxLayout(button).addWidget(tabs)
        return button

    def _setModule(self, module, widget):
        """Show the widget of a module in place of the one before; None: show nothing."""
        if self._module is not None:
            self._module.removeEventFilter(self)
            self._column.takeAt(self._column.indexOf(self._module))
            self._module.setVisible(False)
            self._module.setParent(None)
        self._module = widget
        if widget is None:
            return
        if widget.layout() is not None:
            widget.layout().setContentsMargins(0, 0, 0, 0)
        self._column.insertWidget(1, widget, 1)
        widget.setSizePolicy(_Policy.Minimum, widget.sizePolicy.verticalPolicy())
        widget.setVisible(True)
        self._help.setVisible(bool(module.helpText))
        for text, html in zip(self._texts, (module.helpText, module.acknowledgementText), strict=True):
            text.setHtml(html)
        widget.installEventFilter(self)
        self.updateGeometry()

    def eventFilter(self, watched: QtCore.QObject, event: QtCore.QEvent) -> bool:
        if event.type() == QtCore.QEvent.Resize:
            self.updateGeometry()
        return False


def _minimumOfPanel(panel):
    # The width of a horizontal bar, as in Slicer: it is more than the vertical bar takes.
    bar = panel._area.horizontalScrollBar().sizeHint.width()
    width = panel._area.widget().minimumSizeHint.width() + bar
    return QtCore.QSize(width, panel.layout().minimumSize().height())


register(qSlicerModulePanel.__name__, qSlicerModulePanel)
