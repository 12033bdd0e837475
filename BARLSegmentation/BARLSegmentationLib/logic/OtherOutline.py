# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import slicer

from BARLSegmentationLib.logic.CaseFolder import putIntoFolder
from BARLSegmentationLib.logic.CaseLoader import CASE_ATTRIBUTE, PROJECT_ATTRIBUTE, ROLE_ATTRIBUTE, CaseLoader

if TYPE_CHECKING:
    from barl.project.records import Revision

    from BARLSegmentationLib.logic.Session import Session

LINE_WIDTH = 4  # pixels; the outline that is edited has 1


class OtherOutline:
    """A stored outline of the case on screen, as thick lines over the one that is edited, to compare both.

    Args:
        session: What is open.
        revision: The stored outline.
    """

    def __init__(self, session: Session, revision: Revision) -> None:
        self.session, self.revision = session, revision
        self._node: slicer.vtkMRMLSegmentationNode | None = None

    def show(self, shown: bool = True) -> None:
        """Show it or not; it is read when it is shown for the first time."""
        if shown and self._node is None:
            with self.session.reporting():
                self._node = self._read()
        if self._node is not None and self._node.GetScene() is not None:
            self._node.SetDisplayVisibility(shown)

    def remove(self) -> None:
        if self._node is not None and self._node.GetScene() is not None:
            slicer.mrmlScene.RemoveNode(self._node)
        self._node = None

    def _read(self) -> slicer.vtkMRMLSegmentationNode:
        loaded, case = self.session.loaded, self.session.case()
        name = f"{case.name} by {self.revision.author}"
        project = str(self.session.project.folder)
        attributes = {PROJECT_ATTRIBUTE: project, CASE_ATTRIBUTE: case.id, ROLE_ATTRIBUTE: "other"}
        labels = self.session.project.labels
        node = CaseLoader().readSegmentation(self.revision.path, name, labels, loaded.volumes[0], attributes)
        node.SetSaveWithScene(False)
        node.GetDisplayNode().SetVisibility2DFill(False)
        node.GetDisplayNode().SetSliceIntersectionThickness(LINE_WIDTH)
        putIntoFolder([node], case.name)
        return node
