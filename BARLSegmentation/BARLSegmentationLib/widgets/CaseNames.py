# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.CaseFolder import renameNodes
from BARLSegmentationLib.logic.Question import Question
from BARLSegmentationLib.logic.Words import caseNamesText, readOnlyReason
from BARLSegmentationLib.widgets.Panel import allow

if TYPE_CHECKING:
    from barl.project.records import Case

    from BARLSegmentationLib.logic.Session import Session

MOST_DELETED = 20  # deleted cases in the menu, the newest first


class CaseNames:
    """The menu of the table of cases: rename a case, delete cases, bring a deleted one back.

    Args:
        session: What all panels share.
        table: The QTableWidget, whose first column holds the names.
        button: The QToolButton of the menu.
        selected: Gives the selected cases.
        caseOf: Gives the case of a row.
    """

    def __init__(
        self,
        session: Session,
        table: qt.QTableWidget,
        button: qt.QToolButton,
        selected: Callable[[], list[Case]],
        caseOf: Callable[[int], Case | None],
    ) -> None:
        self.session, self.table, self._selected, self._caseOf = session, table, selected, caseOf
        self.menu = qt.QMenu(button)
        self.renameAction = self.menu.addAction(_("Rename"))
        self.renameAction.connect("triggered()", self.onRename)
        self.deleteAction = self.menu.addAction(_("Delete"))
        self.deleteAction.connect("triggered()", self.onDelete)
        self.deletedMenu = self.menu.addMenu(_("Bring back"))
        self.menu.connect("aboutToShow()", self.update)
        button.setMenu(self.menu)
        table.connect("itemChanged(QTableWidgetItem*)", self.onItemChanged)

    def update(self) -> None:
        """Enable what is possible and list the deleted cases."""
        project, cases = self.session.project, self._selected()
        reason = _("Open a project first") if project is None else readOnlyReason(project)
        one = "" if len(cases) == 1 else _("Select one case first")
        allow(self.renameAction, _("Type another name into the table"), reason or one)
        some = "" if cases else _("Select cases first")
        allow(self.deleteAction, _("Take the selected cases out; they can be brought back"), reason or some)
        deleted = self.session.ask(project.cases.deleted, otherwise=[]) if project is not None else []
        self.deletedMenu.clear()
        for case in reversed(deleted[-MOST_DELETED:]):
            action = self.deletedMenu.addAction(case.name)
            action.connect("triggered()", lambda caseId=case.id: self.bringBack([caseId]))
        self.deletedMenu.enabled = bool(deleted) and not reason

    # Rename

    def onRename(self) -> None:
        """Let the name be typed in its cell."""
        rows = [index.row() for index in self.table.selectionModel().selectedRows()]
        item = self.table.item(rows[0], 0) if rows else None
        if item is not None:
            self.table.setFocus()
            self.table.editItem(item)

    def onItemChanged(self, item: qt.QTableWidgetItem) -> None:
        case = self._caseOf(item.row()) if item.column() == 0 else None
        name = item.text().strip()
        if case is None or name == case.name:
            return
        with self.session.reporting() as outcome:
            renamed = self.session.project.cases.rename(case.id, name)
            if self.session.caseId == case.id:
                renameNodes(self.session.loaded.nodes, case.name, renamed.name)
        self.session.notifyCases()  # or the cell goes back to the name that the case has
        if not outcome.failed:
            self.session.status(_("{before} is named {name} now.").format(before=case.name, name=renamed.name))

    # Delete and bring back

    def onDelete(self) -> None:
        cases = self._selected()
        names = caseNamesText(cases)
        with self.session.reporting() as outcome:
            if self.session.caseId in [case.id for case in cases]:
                self.session.closeCase()
            for case in cases:
                self.session.project.cases.delete(case.id)
        self.session.notifyCases()
        if not outcome.failed:
            self.session.status("")
            self.session.inquire(
                Question(
                    _("Deleted: {names}. Images and outlines stay in the project's folder.").format(names=names),
                    _("Bring back"),
                    _("OK"),
                    onYes=lambda: self.bringBack([case.id for case in cases]),
                )
            )

    def bringBack(self, caseIds: list[str]) -> None:
        """Bring deleted cases back; one whose name was taken meanwhile gets a new one."""
        store = self.session.project.cases
        with self.session.reporting() as outcome:
            names = {case.id: case.name for case in store.deleted()}
            taken = {case.name.casefold() for case in store.all()}
            back = [store.undelete(caseId, _freeName(names[caseId], taken)) for caseId in caseIds if caseId in names]
        self.session.notifyCases()
        if not outcome.failed:
            self.session.status(_("Brought back: {names}.").format(names=caseNamesText(back)))


def _freeName(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free.casefold() in taken:
        number += 1
        free = f"{name} ({number})"
    taken.add(free.casefold())
    return free
