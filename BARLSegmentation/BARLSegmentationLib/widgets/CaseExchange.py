# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from BARLSegmentationLib.widgets.ExportForm import ExportForm
from BARLSegmentationLib.widgets.Panel import allow
from BARLSegmentationLib.widgets.PredictionsForm import PredictionsForm

if TYPE_CHECKING:
    import qt

    from BARLSegmentationLib.logic.Session import Session
    from BARLSegmentationLib.widgets.ExchangeForm import ExchangeForm
    from BARLSegmentationLib.widgets.WorkerLink import WorkerLink


class CaseExchange:
    """The two forms in the place of the list of cases: predictions of other programs come in, outlines go out.

    Args:
        session: What all panels share.
        worker: The process that reads and writes.
        ui: Holds predictionsGroupBox, exportGroupBox, addGroupBox and listWidget.

    Attributes:
        predictions, export: The forms.
    """

    def __init__(self, session: Session, worker: WorkerLink, ui: Any) -> None:
        self.session, self._ui = session, ui
        self.predictions = PredictionsForm(session, worker, ui.predictionsGroupBox)
        self.export = ExportForm(session, worker, ui.exportGroupBox)
        for form in self._forms:
            form.box.connect("toggled(bool)", self._onToggled)

    @property
    def _forms(self) -> tuple[ExchangeForm, ...]:
        return (self.predictions, self.export)

    @property
    def isIdle(self) -> bool:
        return all(form.isIdle for form in self._forms)

    def addTo(self, menu: qt.QMenu) -> None:
        """Add the entries that open the forms."""
        menu.addSeparator()
        self.predictionsAction = menu.addAction(_("Predictions of another program..."))
        self.predictionsAction.connect("triggered()", lambda: self.open(self.predictions))
        self.exportAction = menu.addAction(_("Export..."))
        self.exportAction.connect("triggered()", lambda: self.open(self.export))
        menu.connect("aboutToShow()", self.update)

    def update(self) -> None:
        none = "" if self.session.project is not None else _("Open a project first")
        allow(self.predictionsAction, _("Take label maps of other programs, to be reviewed and corrected"), none)
        allow(self.exportAction, _("Write the outlines for nnU-Net, MONAI, Slicer, DICOM, or as tables"), none)
        for form in self._forms:
            form.update()

    def open(self, form: ExchangeForm) -> None:
        """Show a form in the place of the list."""
        self.close()
        self._ui.addGroupBox.collapsed = True
        form.opened()
        form.update()
        form.box.visible = True
        form.box.collapsed = False
        self._ui.listWidget.visible = False

    def close(self) -> None:
        """Show the list again."""
        for form in self._forms:
            form.box.collapsed = True
            form.box.visible = False

    def forget(self) -> None:
        for form in self._forms:
            form.forget()

    def _onToggled(self, unfolded: bool) -> None:
        if not unfolded:
            for form in self._forms:
                form.box.visible = not form.box.collapsed
            self._ui.listWidget.visible = self._ui.addGroupBox.collapsed
