# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from BARLSegmentationLib.logic.Prediction import Model, modelsIn, projectModels, readModel
from BARLSegmentationLib.logic.Signal import Signal
from BARLSegmentationLib.widgets.Panel import signalsBlocked

if TYPE_CHECKING:
    import ctk
    import qt

    from BARLSegmentationLib.logic.Session import Session

FOLDER = None  # the entry for a model that is neither the project's nor comes along


class ModelChoice:
    """A combo box with the models of the project, those that come along, and one entry for any other folder.

    Args:
        session: What all panels share.
        combo: An empty QComboBox.
        pathLineEdit: Names the other folder; visible only for that entry.
        shippedFolder: Holds the models that come along.

    Attributes:
        changed: Another model is chosen, or the list has changed.
    """

    def __init__(
        self, session: Session, combo: qt.QComboBox, pathLineEdit: ctk.ctkPathLineEdit, shippedFolder: str
    ) -> None:
        self.changed = Signal()
        self._session, self._combo, self._path = session, combo, pathLineEdit
        self._shippedFolder = shippedFolder
        self._entries: list[Model | None] = []  # what the combo box lists
        combo.connect("currentIndexChanged(int)", self._onChanged)
        pathLineEdit.connect("currentPathChanged(QString)", self._onChanged)
        pathLineEdit.connect("validInputChanged(bool)", self._onChanged)  # the only signal of an emptied line

    def update(self) -> None:
        """Refresh the list and keep the selection, including "current model"."""
        project = self._session.project
        ours = self._session.ask(projectModels, project, otherwise=[]) if project is not None else []
        entries: list[Model | None] = [*ours, *modelsIn(self._shippedFolder), FOLDER]
        texts = [_title(entry) for entry in entries]
        if entries == self._entries and texts == [self._combo.itemText(n) for n in range(self._combo.count)]:
            return
        index, chosen = self._combo.currentIndex, self._entry()
        with signalsBlocked(self._combo):
            self._combo.clear()
            self._combo.addItems(texts)
            self._entries = entries
            self._combo.currentIndex = entries.index(chosen) if index > 0 and chosen in entries else 0
        self._onChanged()

    def chooseCurrent(self) -> None:
        """Choose the current model of the project."""
        self._combo.currentIndex = 0

    def model(self) -> Model | None:
        """The model chosen, None if there is none.

        Raises:
            barl.errors.ModelError: The folder chosen holds no model.
        """
        if self._isFolder():
            return readModel(self._path.currentPath) if self._path.currentPath else None
        return self._entry()

    def channels(self) -> list[str]:
        """The channels of the model chosen; one without a name if there is no model."""
        model = self._readable()
        return model.channels if model is not None else [""]

    def cleanup(self) -> str:
        """What the model chosen does with pieces and holes, in words; empty for nothing or without a model."""
        model = self._readable()
        return model.cleanup if model is not None else ""

    def _readable(self) -> Model | None:
        from barl.errors import ModelError

        try:
            return self.model()
        except ModelError:
            return None

    def _entry(self) -> Model | None:
        index = self._combo.currentIndex
        return self._entries[index] if 0 <= index < len(self._entries) else None

    def _isFolder(self) -> bool:
        return self._combo.currentIndex == len(self._entries) - 1

    def _onChanged(self, *_arguments: object) -> None:
        self._path.visible = self._isFolder()
        self.changed.emit()


def _title(entry: Model | None) -> str:
    if entry is FOLDER:
        return _("Model in another folder")
    return _("{name} (current)").format(name=entry.name) if entry.isCurrent else entry.name
