# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from BARLSegmentationLib.logic import Environment, Setup
from BARLSegmentationLib.logic.Prediction import slicerPython
from BARLSegmentationLib.widgets.ComputerChoice import ComputerChoice
from BARLSegmentationLib.widgets.Panel import Panel

CONDITIONS = ("torch", "packages", "gpu", "disk", "models")
# Those that are repaired whichever Python computes.
ELSEWHERE_TOO = ("disk", "models")


class SetupPanel(Panel):
    """One line for each thing that prediction and training need, with one button that repairs it.

    The conditions are looked up in the worker's Python by a process of its own: nothing is imported here, and a slow
    disk or driver does not hold up the window.
    """

    uiName = "SetupPanel"
    found: dict | None  # what the process has found
    requirements: dict[str, str]  # package -> lowest version

    def setup(self) -> None:
        self._process = None
        self._last = None  # the previous QProcess: deleting it inside its own ``finished`` signal crashes
        self.found: dict | None = None
        self._conditions: dict[str, Setup.Condition] = {}
        # Once: while Slicer quits, the module cannot be asked for its resources any more.
        self._requirementsPath = self.moduleWidget.resourcePath("requirements.txt")
        self.requirements = Setup.readRequirements(self._requirementsPath)
        self._names: dict[str, str] = {}
        for name in CONDITIONS:
            self._button(name).visible = False
        self.ui.torchButton.connect("clicked(bool)", self.onTorch)
        self.ui.packagesButton.connect("clicked(bool)", self.onPackages)
        self.ui.gpuButton.connect("clicked(bool)", self.onTorch)
        self.ui.diskButton.connect("clicked(bool)", self.onDisk)
        self.ui.modelsButton.connect("clicked(bool)", self.onModels)
        self.ui.checkButton.connect("clicked(bool)", self.check)
        self.computer = ComputerChoice(self.ui, self.session, self.worker)
        self.computer.changed.connect(self.onComputerChanged)
        self.ui.reportButton.connect("clicked(bool)", self.onReport)
        for signal in (self.session.projectChanged, self.session.modelsChanged):
            signal.connect(self.onProjectChanged)
        self.ui.reportButton.enabled = False
        self._showEach()

    def opened(self) -> None:
        if self.found is None and self._process is None:
            self.check()

    def onProjectChanged(self) -> None:
        """Forget what was found; the conditions are checked again when the step is shown."""
        self.found = None
        if self.widget.visible:
            self.check()

    def onComputerChanged(self) -> None:
        """Another Python has other packages."""
        self.check()

    @property
    def isIdle(self) -> bool:
        return self._process is None and self.computer.isIdle

    def cleanup(self) -> None:
        self._drop()
        self.computer.close()
        super().cleanup()

    # Looking up

    def check(self, *_arguments: object) -> None:
        """Start to look all conditions up."""
        from barl.project.model_card import CARD_FILE, WEIGHTS_FILE

        self._drop()
        folder, self._names = "", {}
        project = self.session.project
        if project is not None:
            folder = str(project.folder)
            self._names = {
                str(model.folder): model.name for model in self.session.ask(project.models.all, otherwise=[])
            }
        process = qt.QProcess()
        process.connect("finished(int,QProcess::ExitStatus)", self._onFinished)
        process.connect("errorOccurred(QProcess::ProcessError)", self._onProcessError)
        process.setProcessEnvironment(self.worker.environment())
        self._process = process
        self.ui.checkButton.enabled = False
        self.ui.checkButton.toolTip = _("The conditions are being looked up")
        arguments = [Environment.__file__, ",".join(self.requirements), folder, CARD_FILE, WEIGHTS_FILE]
        arguments += self._names
        process.start(self.worker.python, arguments)

    def _onFinished(self, exitCode: int, _exitStatus: int) -> None:
        process = self._take()
        if process is None:
            return
        try:
            output = process.readAllStandardOutput().data().strip()
            found = json.loads(output.rpartition(b"\n")[2]) if exitCode == 0 else None  # below any banner
        except ValueError:
            found = None
        if found is None:
            self._failed(_("the process ended with code {code}").format(code=exitCode))
            self._showEach()
        else:
            self.judge(found, self._names)

    def judge(self, found: dict, names: dict[str, str]) -> None:
        """Show what was found.

        Args:
            found: As ``Environment`` prints it.
            names: Folder -> name of the models looked at.
        """
        self.found, self._names = found, names
        self._conditions = Setup.judge(found, self.requirements, names)
        self._showEach()

    def _onProcessError(self, error: int) -> None:
        if error == qt.QProcess.FailedToStart and self._process is not None:
            process = self._take()
            self._failed(process.errorString())
            self._showEach()

    def _failed(self, reason: str) -> None:
        self.found, self._conditions = None, {}
        own = self.worker.python == slicerPython()
        remedy = (
            _("Check Slicer's installation.") if own else _("Choose another Python, or none, in Where it computes.")
        )
        text = _("The conditions could not be looked up ({reason}).").format(reason=reason)
        self.session.status(f"{text} {remedy}", True)

    def _drop(self) -> None:
        process = self._take()
        if process is not None and process.state() != qt.QProcess.NotRunning:
            process.kill()
            process.waitForFinished(500)

    def _take(self) -> qt.QProcess | None:
        """Detach and return the running check, or None."""
        process, self._process = self._process, None
        self._last = process or self._last
        return process

    def _showEach(self) -> None:
        known = self.found is not None
        own = self.worker.python == slicerPython()  # only into Slicer's own Python is anything installed
        style = slicer.app.style()
        for name in CONDITIONS:
            condition = self._conditions.get(name)
            button = self._button(name)
            self._label(name).text = condition.text if condition else _("Not looked up yet.")
            icon = getattr(self.ui, f"{name}IconLabel")
            icon.visible = condition is not None
            button.visible = button.enabled = bool(condition and condition.repair) and (own or name in ELSEWHERE_TOO)
            if condition:
                kind = qt.QStyle.SP_DialogApplyButton if condition.good else qt.QStyle.SP_MessageBoxWarning
                icon.setPixmap(style.standardIcon(kind).pixmap(qt.QSize(16, 16)))
                icon.toolTip = _("In order") if condition.good else _("Not in order")
                button.text, button.toolTip = condition.repair, self._tip(name)
        self.ui.reportButton.enabled = known
        self.ui.reportButton.toolTip = (
            _("Copy versions and conditions to the clipboard; names no patient and no folder")
            if known
            else _("Look the conditions up first")
        )
        running = self._process is not None
        self.ui.checkButton.enabled = not running
        self.ui.checkButton.toolTip = (
            _("The conditions are being looked up") if running else _("Check all conditions again")
        )

    @staticmethod
    def _tip(name: str) -> str:
        return {
            "torch": _("Have the PyTorch extension install the build that fits this computer"),
            "packages": _("Install the missing packages into Slicer's Python, after asking you"),
            "gpu": _("Have the PyTorch extension install the build that can use the graphics card"),
            "disk": _("Show the project's folder, to make room on its disk"),
            "models": _("Choose the folder of a sound copy of the damaged model, as from a backup"),
        }[name]

    # Repairing

    def onTorch(self) -> None:
        """Install PyTorch through its extension, which checks the driver; a wrong build goes first."""
        try:
            import PyTorchUtils
        except ImportError:
            self.session.status(
                _("The PyTorch extension is missing. Install it in the Extensions Manager and restart Slicer."), True
            )
            return
        logic = PyTorchUtils.PyTorchUtilsLogic()
        replaces = bool(self.found and self.found["torch"] is not None)
        # The extension asks before it installs: too late where the build that is there goes first.
        if replaces and not slicer.util.confirmOkCancelDisplay(
            _("The installed PyTorch will be removed and another build downloaded (several hundred MB)."),
            _("Replace PyTorch"),
        ):
            return
        self._stopWorker()
        try:
            if replaces:
                logic.uninstallTorch()
            installed = logic.installTorch(
                askConfirmation=not replaces, torchVersionRequirement=Setup.TORCH_REQUIREMENT
            )
        except Exception as error:  # whatever pip or the extension raises
            self._notInstalled(_("PyTorch"), error)
            return
        finally:
            self.check()
        if installed is not None:
            self.session.status(_("PyTorch is installed. Restart Slicer before you use it."))

    def onPackages(self) -> None:
        from slicer import packaging

        wanted = packaging.load_requirements(self._requirementsPath)
        self._stopWorker()
        try:
            packaging.pip_ensure(wanted, skip_packages=Setup.PROTECTED, requester=Setup.REQUESTER)
            missing = [str(one) for one in wanted if not packaging.pip_check(one)]
            if missing:  # in Slicer's testing mode nothing is installed, and nothing is said
                raise RuntimeError(_("still missing: {names}").format(names=", ".join(missing)))
        except (RuntimeError, subprocess.CalledProcessError) as error:
            self._notInstalled(_("The packages"), error)
        else:
            self.session.status(_("The packages are installed."))
        finally:
            self.check()

    def _notInstalled(self, what: str, error: Exception) -> None:
        self.session.status(
            _("{what} could not be installed ({kind}). Details are in Slicer's log; check the network.").format(
                what=what, kind=type(error).__name__
            )
            if not isinstance(error, RuntimeError)
            else _("{what} could not be installed: {reason}.").format(what=what, reason=str(error).rstrip(".")),
            True,
        )

    def _stopWorker(self) -> None:
        """A running worker keeps files of the packages open, and the old ones loaded."""
        self.worker.close()

    def onDisk(self) -> None:
        if self.session.project is not None:
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self.session.project.folder)))

    def onModels(self) -> None:
        damaged = Setup.damagedModel(self.found["models"]) if self.found else None
        if damaged is None:
            return
        name = self._names[str(damaged)]
        chosen = qt.QFileDialog.getExistingDirectory(
            self.widget, _("Folder with a sound copy of {name}").format(name=name), ""
        )
        if not chosen:
            return
        with self.session.reporting():
            Setup.restoreModel(Path(chosen), damaged)
            self.session.status(_("Restored the model {name}.").format(name=name))
            self.session.notifyModels()
            self.check()

    def onReport(self) -> None:
        from barl import __version__

        application = f"{slicer.app.applicationVersion} (r{slicer.app.repositoryRevision})"
        text = Setup.report(self.found, self._conditions, application, __version__)
        slicer.app.clipboard().setText(text)
        self.session.status(_("Copied the report; it names no patient and no folder."))

    def _button(self, name: str) -> qt.QPushButton:
        return getattr(self.ui, f"{name}Button")

    def _label(self, name: str) -> qt.QLabel:
        return getattr(self.ui, f"{name}Label")
