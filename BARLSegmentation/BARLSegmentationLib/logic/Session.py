# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import slicer

from BARLSegmentationLib.logic.CaseFolder import putIntoFolder, removeEmptyFolders
from BARLSegmentationLib.logic.CaseLoader import ROLE_ATTRIBUTE, CaseLoader, LoadedCase, disown, isOurs
from BARLSegmentationLib.logic.Outline import order, tagSegments, withoutLabel
from BARLSegmentationLib.logic.Question import Question
from BARLSegmentationLib.logic.Signal import Signal
from BARLSegmentationLib.logic.Voxels import inOrder

if TYPE_CHECKING:
    import numpy as np
    from barl.project.labels import Channel, Label
    from barl.project.store import Case, Project

Answer = TypeVar("Answer")
Alternative = TypeVar("Alternative")

# Set to "1" on a segmentation that holds an edit which is stored nowhere: such a node is never removed.
UNSAVED_ATTRIBUTE = "BARL.Unsaved"
# How long the window may stand still for another program that is changing the project.
WAIT_SECONDS = 0.4


class Session:
    """The open project and the case on screen: what all panels share.

    What goes wrong is raised as ``barl.errors.BarlError``; ``reporting`` and ``ask`` turn it into a line of status.

    Attributes:
        projectChanged: Another project is open, or none.
        definitionChanged: Labels or channels of the project were changed; gives the labels before.
        casesChanged: Somebody changed cases of the project.
        modelsChanged: Somebody changed models or runs of the project.
        caseOpened: Another case is on screen, or none, or it was loaded anew.
        selectionChanged: Other cases are selected in the table of cases.
        beforeClose: The case on screen is about to go: store what would be lost.
        statusChanged: A sentence for the user (text, isError).
        stepWanted: The user goes on with another step of the work (its name).
        questionChanged: Another question is asked, or none.
        project: The open project.
        caseId: The case on screen.
        loaded: Its nodes.
        question: What the user is asked.
    """

    def __init__(self) -> None:
        self.projectChanged, self.casesChanged, self.modelsChanged = Signal(), Signal(), Signal()
        self.definitionChanged = Signal()
        self.caseOpened, self.selectionChanged, self.beforeClose = Signal(), Signal(), Signal()
        self.statusChanged, self.stepWanted, self.questionChanged = Signal(), Signal(), Signal()
        self.project: Project | None = None
        self.loaded: LoadedCase | None = None
        self.question: Question | None = None
        self._selection: list[str] = []
        self._version = 0  # of the project's database, as far as this window has looked
        self._known: tuple | None = None  # cases, models and runs at that time

    @property
    def caseId(self) -> str | None:
        return self.loaded.caseId if self.loaded else None

    # Project

    def createProject(
        self, folder: str | Path, name: str, labels: Sequence[Label], channels: Sequence[Channel]
    ) -> None:
        """Make a project in a new or empty folder and open it."""
        from barl.project.store import Project

        self.use(Project.create(folder, name, labels, channels, wait_seconds=WAIT_SECONDS))

    def openProject(self, folder: str | Path, readOnly: bool = False) -> None:
        """Open a project; the one that was open before is closed, unless this one cannot be opened.

        A folder that cannot be written is opened for reading only, and a line of status says so.
        """
        from barl.errors import StorageError
        from barl.project.store import Project

        try:
            project = Project.open(folder, read_only=readOnly, wait_seconds=WAIT_SECONDS)
        except StorageError as error:
            if readOnly:
                raise
            project = Project.open(folder, read_only=True, wait_seconds=WAIT_SECONDS)
            self.use(project)
            self.status(f"{error.message} It was opened for reading only.")
            return
        self.use(project)

    def use(self, project: Project) -> None:
        """Go on with a project that is open already; the one before is closed."""
        self.closeProject()
        self.withdrawQuestion()
        self.project, self._version, self._known = project, 0, None
        self.projectChanged.emit()

    def closeProject(self) -> None:
        """Close the project and the case on screen."""
        if self.project is None:
            return
        self.closeCase()
        self.project.close()
        self.project = None
        self._selection = []
        self.projectChanged.emit()

    def openedProject(self) -> Project:
        """The open project.

        Raises:
            barl.errors.ProjectError: There is none.
        """
        if self.project is None:
            from barl.errors import ProjectError

            raise ProjectError("No project is open.", "Open a project first.")
        return self.project

    def cases(self) -> list[Case]:
        """The cases in the order in which they were added; none if no project is open."""
        return self.project.cases.all() if self.project is not None else []

    def notifyDefinition(self, labels: Sequence[Label]) -> None:
        """Labels or channels of the project were changed; ``labels``: those before."""
        self.definitionChanged.emit(list(labels))

    def refresh(self) -> None:
        """Notice what another program has changed in the project since the last call; costs next to nothing."""
        project = self.project
        if project is None:
            return
        from barl.errors import BarlError

        with contextlib.suppress(BarlError, OSError, sqlite3.Error):  # the next act of the user tells what is wrong
            version = project.database.data_version()
            if version == self._version:
                return
            labels, channels = project.labels, project.channels
            project.definition.reload()
            self._version = version
            if (labels, channels) != (project.labels, project.channels):
                self.notifyDefinition(labels)
                names = ", ".join(label.name for label in project.labels)
                self.status(f"Another program has changed the project's labels or channels. Labels now: {names}.")
            models = [(model.id, model.is_current) for model in project.models.all()]
            before, self._known = self._known, (project.cases.stamp(), models, [run.id for run in project.runs.all()])
            if before is not None and before[0] != self._known[0]:
                self.notifyCases()
            if before is not None and before[1:] != self._known[1:]:
                self.notifyModels()

    def notifyCases(self) -> None:
        self.casesChanged.emit()

    def notifyModels(self) -> None:
        self.modelsChanged.emit()

    # Cases selected in the table

    def selectedCaseIds(self) -> list[str]:
        return list(self._selection)

    def selectCases(self, caseIds: Sequence[str]) -> None:
        if list(caseIds) != self._selection:
            self._selection = list(caseIds)
            self.selectionChanged.emit()

    # The case on screen

    def case(self) -> Case | None:
        """The case on screen, fresh from the database."""
        return self.project.cases.get(self.caseId) if self.project is not None and self.caseId else None

    def openCase(self, caseId: str, ahead: Mapping[Path, np.ndarray] | None = None) -> LoadedCase:
        """Load a case and show it; the nodes of the one before go.

        A case that cannot be loaded leaves the one before on screen.

        Args:
            ahead: What was read of it already, as ``Voxels.readAhead`` gives it; its scan is on screen then.
        """
        project = self.openedProject()
        self.status("")  # what was wrong with the case before is over
        self.beforeClose.emit()
        if ahead and self.loaded is not None:
            volume = self.loaded.volumes[0]
            ahead = inOrder(ahead, volume, order(volume, project.cases.grid(caseId)))
        slicer.app.pauseRender()  # the views are drawn once, not after each node
        try:
            loaded = CaseLoader(ahead=ahead).load(project, caseId)
            putIntoFolder(loaded.nodes, project.cases.get(loaded.caseId).name)
            self.withdrawQuestion()
            before, self.loaded = self.loaded, loaded
            self._removeNodes(before, loaded)
            self._show(loaded)
            self.caseOpened.emit()
        finally:
            slicer.app.resumeRender()
        return loaded

    def closeCase(self) -> None:
        """Remove the nodes of the case on screen; what the project does not hold stays in the scene."""
        if self.loaded is None:
            return
        self.beforeClose.emit()
        self.withdrawQuestion()
        before, self.loaded = self.loaded, None
        self._removeNodes(before, None)
        self.caseOpened.emit()

    def sceneCloses(self) -> None:
        """The scene is about to close, and its nodes with it: close the project without touching them."""
        self.beforeClose.emit()
        self.withdrawQuestion()
        if self.loaded is not None:
            self.loaded = None
            self.caseOpened.emit()
        self.closeProject()

    def end(self) -> None:
        """The module is closed: have unsaved work stored, close the project, send no signal afterwards.

        The nodes stay, so that a reloaded module finds them again.
        """
        self.beforeClose.emit()
        for signal in vars(self).values():
            if isinstance(signal, Signal):
                signal.clear()
        self.loaded = None
        self.closeProject()

    def _removeNodes(self, before: LoadedCase | None, after: LoadedCase | None) -> None:
        kept = {node.GetID() for node in after.nodes} if after else set()
        outline = before.segmentation if before else None
        if outline is not None and outline.GetScene() is not None and outline.GetAttribute(UNSAVED_ATTRIBUTE) == "1":
            # Beside a scan that was read anew, an outline that was moved with its scan would lie elsewhere.
            kept |= {volume.GetID() for volume in before.volumes}
        changed = before.changedVolumes() if before else []
        for node in before.nodes if before else []:
            if node.GetScene() is None or node.GetID() in kept:  # None: the user has removed it
                continue
            if node.GetAttribute(UNSAVED_ATTRIBUTE) == "1":
                self.status(f"The edit of {node.GetName()} could not be stored; it stays in the scene.", error=True)
                continue
            if node is outline and self.project is not None:
                tagSegments(node, self.project.labels)  # no panel has, where a script loaded the case
                if withoutLabel(node):  # the user's own segments, which the project does not hold
                    continue
            if node in changed:
                disown(node)
                continue
            slicer.mrmlScene.RemoveNode(node)
        removeEmptyFolders(slicer.mrmlScene)

    def _show(self, loaded: LoadedCase) -> None:
        slicer.util.setSliceViewerLayers(background=loaded.volumes[0], foreground=None, label=None, fit=True)
        for segmentation in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
            if segmentation.GetAttribute(ROLE_ATTRIBUTE) == "label" and isOurs(segmentation):  # not the user's own ones
                segmentation.SetDisplayVisibility(segmentation is loaded.segmentation)

    # Talking to the user

    def status(self, text: str, error: bool = False) -> None:
        """A sentence for the status line."""
        self.statusChanged.emit(text, error)

    def inquire(self, question: Question) -> None:
        """Ask the user, in the place of a question that is still open."""
        self.withdrawQuestion()
        self.question = question
        self.questionChanged.emit()

    def withdrawQuestion(self) -> None:
        """Ask nothing any more: what the question was about has changed."""
        if self.question is not None:
            ended, self.question = self.question, None
            self.questionChanged.emit()
            ended.onEnd()

    def answer(self, yes: bool) -> None:
        """Do what the question on screen says for this answer."""
        question = self.question
        self.withdrawQuestion()
        if question is not None:
            question.onYes() if yes else question.onNo()

    @contextlib.contextmanager
    def reporting(self) -> Iterator[Outcome]:
        """Run the block; an error in it ends the block and becomes a line of status.

        Yields:
            An ``Outcome``, whose ``failed`` says after the block whether there was an error.
        """
        from barl.errors import BarlError

        outcome = Outcome()
        try:
            yield outcome
        except BarlError as error:
            outcome.failed = True
            self.status(str(error), error=True)
        except (OSError, sqlite3.Error) as error:
            outcome.failed = True
            self.status(f"{getattr(error, 'strerror', None) or error}. {_DISK_REMEDY}", error=True)
        except MemoryError:
            outcome.failed = True
            self.status(f"This computer does not have enough memory. {_MEMORY_REMEDY}", error=True)

    def ask(self, question: Callable[..., Answer], *arguments: object, otherwise: Alternative) -> Answer | Alternative:
        """The answer of ``question(*arguments)``; ``otherwise`` if it fails, and why is a line of status."""
        with self.reporting():
            return question(*arguments)
        return otherwise


@dataclass
class Outcome:
    """How a block under ``Session.reporting`` ended."""

    failed: bool = False


_MEMORY_REMEDY = "Close other programs or volumes and try again; what was saved before is unchanged."
_DISK_REMEDY = "Check that the drive is connected and that the folder may be read and written."
