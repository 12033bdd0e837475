# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import slicer

if TYPE_CHECKING:
    import qt
    from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget

    from BARLSegmentation import BARLSegmentationParameterNode
    from BARLSegmentationLib.logic.Session import Session
    from BARLSegmentationLib.widgets.WorkerLink import WorkerLink


class Panel:
    """One step of the work. A subclass names its .ui file and connects its widgets.

    Plain Python that holds widgets: Python subclasses of Qt widgets and their lifetime are a source of crashes.

    Args:
        session: What all panels share.
        worker: The process that predicts and trains.
        moduleWidget: The module's widget, for ``resourcePath``.

    Attributes:
        uiName: Name of the file in Resources/UI without ending; its top widget is a qMRMLWidget.
        widget: That top widget.
        ui: All named widgets in it.
        parameterNode: The module's parameters, None while there is no scene to keep them in.
    """

    uiName = ""

    def __init__(self, session: Session, worker: WorkerLink, moduleWidget: ScriptedLoadableModuleWidget) -> None:
        self.session = session
        self.worker = worker
        self.moduleWidget = moduleWidget
        self.widget = slicer.util.loadUI(moduleWidget.resourcePath(f"UI/{self.uiName}.ui"))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self.widget.setMRMLScene(slicer.mrmlScene)
        self.parameterNode = None
        self._guiTag = None

    def setup(self) -> None:
        """Connect signals of widgets, session and worker."""

    @property
    def isIdle(self) -> bool:
        """Nothing that the panel has started is under way: no request, no pause before an update, no thread."""
        return True

    def setParameterNode(self, node: BARLSegmentationParameterNode | None) -> None:
        """Bind the widgets that carry the property SlicerParameterName to ``node`` (None: to nothing)."""
        if self.parameterNode is not None:
            self.parameterNode.disconnectGui(self._guiTag)
        self.parameterNode = node
        self._guiTag = None if node is None else node.connectGui(self.ui)

    def update(self) -> None:
        """Show the present state. Cheap; safe without a project, a case or a parameter node."""

    def opened(self) -> None:
        """The user has opened the step: the moment for what would take too long at start."""

    def left(self) -> None:
        """The user has gone to another step."""

    def sceneCloses(self) -> None:
        """The scene is about to close; called before the views go."""

    def enter(self) -> None:
        """The user opened the module."""
        self.update()

    def exit(self) -> None:
        """The user went to another module."""

    def cleanup(self) -> None:
        """The module is closed: end what runs, disconnect from objects that live longer."""
        self.setParameterNode(None)


def allow(button: qt.QWidget, tip: str, reason: str = "") -> None:
    """Enable a button unless there is a reason against it, which then is its tooltip instead of ``tip``."""
    button.enabled = not reason
    button.toolTip = reason or tip


@contextlib.contextmanager
def signalsBlocked(*widgets: qt.QObject) -> Iterator[None]:
    """Keep widgets from sending signals while the block runs, however it ends."""
    before = [widget.blockSignals(True) for widget in widgets]
    try:
        yield
    finally:
        for widget, blocked in zip(widgets, before, strict=True):
            widget.blockSignals(blocked)


def showPlot(ui: Any, name: str, plot: Any) -> None:
    """Show a plot in the widgets ``<name>PlotWidget`` and ``<name>LegendLabel`` of ``ui``, or hide both.

    Args:
        plot: Has ``view``, a plot view node or None, and ``legend``, rich text; None for no plot.
    """
    widget, label = getattr(ui, f"{name}PlotWidget"), getattr(ui, f"{name}LegendLabel")
    view = None if plot is None else plot.view
    if widget.mrmlPlotViewNode() is not view:
        widget.setMRMLPlotViewNode(view)
    widget.visible = label.visible = view is not None
    label.text = "" if view is None else plot.legend
