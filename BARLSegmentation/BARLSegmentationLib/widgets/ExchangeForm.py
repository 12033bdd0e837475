# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.Words import readOnlyReason
from BARLSegmentationLib.widgets.Panel import allow

if TYPE_CHECKING:
    from barl.errors import BarlError
    from barl.worker.client import Pending
    from barl.worker.messages import Event, Request

    from BARLSegmentationLib.logic.Session import Session
    from BARLSegmentationLib.widgets.WorkerLink import WorkerLink


class ExchangeForm:
    """A form whose button has the worker exchange something with other programs. A subclass lays the rows.

    Args:
        session: What all panels share.
        worker: The process that does it.
        box: A ctkCollapsibleGroupBox with a QFormLayout; it is visible only while it is unfolded.

    Attributes:
        doButton, cancelButton: The buttons.
        progressBar: How much is done.
    """

    action = ""  # the text of the button
    tip = ""
    needsWriting = False  # the project is changed

    def __init__(self, session: Session, worker: WorkerLink, box: qt.QWidget) -> None:
        self.session, self.worker, self.box = session, worker, box
        self._pending: Pending | None = None
        self.lay()
        buttons = qt.QWidget()
        qt.QHBoxLayout(buttons).setContentsMargins(0, 0, 0, 0)
        self.doButton, self.cancelButton = qt.QPushButton(self.action), qt.QPushButton(_("Cancel"))
        for button in (self.doButton, self.cancelButton):
            buttons.layout().addWidget(button)
        self.addRow("", buttons)
        self.progressBar = self.addRow("", qt.QProgressBar())
        self.progressBar.setMaximum(1000)
        self.doButton.connect("clicked(bool)", self.onDo)
        self.cancelButton.connect("clicked(bool)", self.onCancel)
        self.update()

    @property
    def isIdle(self) -> bool:
        return self._pending is None

    def lay(self) -> None:
        """Add the rows."""

    def request(self) -> Request:
        """What to ask the worker for; raises ``barl.errors.InputError`` if something is missing."""
        raise NotImplementedError

    def done(self, answer: Any) -> tuple[str, bool]:
        """What the worker's answer means: a sentence, and whether it is about an error."""
        raise NotImplementedError

    def opened(self) -> None:
        """The form is shown."""

    def forget(self) -> None:
        """Cancel, and ignore the answer."""
        if self._pending is not None:
            self.worker.cancel(self._pending)
            self._pending = None

    def addRow(self, text: str, widget: qt.QWidget) -> qt.QWidget:
        """A row with a text beside the widget; without a text the widget takes the whole width."""
        if text:
            self.box.layout().addRow(text, widget)
        else:
            self.box.layout().addRow(widget)
        return widget

    def update(self) -> None:
        project, running = self.session.project, not self.isIdle
        reason = _("Open a project first") if project is None else ""
        if self.needsWriting:
            reason = reason or readOnlyReason(project)
        allow(self.doButton, self.tip, reason or (_("Wait until it is done, or cancel") if running else ""))
        allow(self.cancelButton, _("Stop; what was stored before stays"), "" if running else _("Nothing is under way"))
        self.progressBar.visible = running

    def onDo(self, _checked: bool = False) -> None:
        with slicer.util.WaitCursor():
            request = self.session.ask(self.request, otherwise=None)
        if request is None:
            return
        self.progressBar.value = 0
        self._pending = self.worker.request(
            request, onEvent=self._onEvent, onResult=self._onResult, onError=self._onError
        )
        self.session.status(_("Working in the background; Slicer can be used meanwhile."))
        self.update()

    def onCancel(self, _checked: bool = False) -> None:
        self.worker.cancel(self._pending)

    def _onEvent(self, event: Event) -> None:
        if self._pending is not None and event.event == "progress":
            self.progressBar.value = int(1000 * (event.fraction or 0.0))

    def _onResult(self, answer: Any) -> None:
        if self._pending is None:
            return
        self._pending = None
        text, isError = self.done(answer)
        self.session.status(text, isError)
        self.update()

    def _onError(self, error: BarlError) -> None:
        if self._pending is None:
            return
        self._pending = None
        self.session.status(str(error), True)
        self.update()
