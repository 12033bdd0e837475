# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.Signal import Signal
from BARLSegmentationLib.widgets.Panel import allow, signalsBlocked

if TYPE_CHECKING:
    from BARLSegmentationLib.logic.Session import Session
    from BARLSegmentationLib.widgets.WorkerLink import WorkerLink

COMPUTER_SETTING = "BARLSegmentation/computer"
PYTHON_SETTING = "BARLSegmentation/python"
# What ``barl computer`` gives if something is missing there.
NOT_READY = 1


class ComputerChoice:
    """Where predictions and trainings are computed: this computer or another one, reached by ssh, and which Python.

    Args:
        ui: Holds computerLineEdit, pythonPathLineEdit, testButton and prepareButton.

    Attributes:
        changed: Another computer or Python is used from now on.
    """

    def __init__(self, ui: Any, session: Session, worker: WorkerLink) -> None:
        self.changed = Signal()
        self._ui, self._session, self._worker = ui, session, worker
        self._process: qt.QProcess | None = None
        self._last: qt.QProcess | None = None  # deleting it inside its own ``finished`` signal crashes
        settings = slicer.app.userSettings()
        with signalsBlocked(ui.computerLineEdit, ui.pythonPathLineEdit):
            ui.computerLineEdit.text = settings.value(COMPUTER_SETTING, "") or ""
            ui.pythonPathLineEdit.currentPath = settings.value(PYTHON_SETTING, "") or ""
        ui.prepareButton.visible = False
        ui.computerLineEdit.connect("editingFinished()", self.onChanged)
        ui.pythonPathLineEdit.connect("currentPathChanged(QString)", self.onChanged)
        ui.testButton.connect("clicked(bool)", lambda _checked=False: self._ask("check"))
        ui.prepareButton.connect("clicked(bool)", lambda _checked=False: self._ask("prepare"))
        self._use()

    @property
    def isIdle(self) -> bool:
        return self._process is None

    @property
    def address(self) -> str:
        """Of the other computer; empty: this one."""
        return self._ui.computerLineEdit.text.strip()

    def onChanged(self, _path: str = "") -> None:
        python = self._ui.pythonPathLineEdit.currentPath.strip()
        if (self.address, python) == self._used:
            return
        slicer.app.userSettings().setValue(COMPUTER_SETTING, self.address)
        slicer.app.userSettings().setValue(PYTHON_SETTING, python)
        self._use()
        self.changed.emit()

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.waitForFinished(500)

    def _use(self) -> None:
        self._used = (self.address, self._ui.pythonPathLineEdit.currentPath.strip())
        self._worker.use(*self._used)
        self._ui.prepareButton.visible = False
        self._update()

    def _update(self) -> None:
        reason = ""
        if not self.address:
            reason = _("Name another computer first")
        elif self._process is not None:
            reason = _("The computer is being asked")
        allow(self._ui.testButton, _("Say whether {name} is ready").format(name=self.address), reason)
        tip = _("Make an environment for BARL in the folder .barl there and install what is missing (several GB)")
        allow(self._ui.prepareButton, tip, reason)

    def _ask(self, action: str) -> None:
        """Run ``barl computer check`` or ``prepare`` and show its sentence."""
        arguments = ["-m", "barl.cli", "computer", action, self.address]
        if self._used[1]:
            arguments += ["--computer-python", self._used[1]]
        process = qt.QProcess()
        process.setProcessEnvironment(self._worker.environment())
        process.connect("finished(int,QProcess::ExitStatus)", self._onFinished)
        process.connect("errorOccurred(QProcess::ProcessError)", self._onProcessError)
        self._process = process
        self._update()
        doing = _("Asking {name}…") if action == "check" else _("Installing on {name}; this takes minutes…")
        self._session.status(doing.format(name=self.address))
        process.start(self._worker.python, arguments)

    def _onFinished(self, exitCode: int, _exitStatus: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        self._last = process
        said = process.readAllStandardOutput().data() if exitCode in (0, NOT_READY) else b""
        said = said or process.readAllStandardError().data()
        text = " ".join(said.decode(errors="replace").split()).removeprefix("barl: ") or _(
            "The computer has not answered."
        )
        self._session.status(text, error=exitCode != 0)
        self._ui.prepareButton.visible = exitCode == NOT_READY
        self._update()

    def _onProcessError(self, error: int) -> None:
        if error == qt.QProcess.FailedToStart and self._process is not None:
            self._last, self._process = self._process, None
            self._session.status(_("{path} cannot be started as Python.").format(path=self._worker.python), error=True)
            self._update()
