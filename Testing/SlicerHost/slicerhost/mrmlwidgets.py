# SPDX-License-Identifier: Apache-2.0
"""Stand-ins of general qMRML widgets, driven by the real scene."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from PySide6 import QtCore, QtWidgets

from .ctknumbers import ctkDoubleSpinBox, ctkSliderWidget
from .observers import Observers
from .uiloader import register

if TYPE_CHECKING:
    import slicer
    from PySide6 import QtGui

Signal, Property = QtCore.Signal, QtCore.Property


def checkedNode(node: slicer.vtkMRMLNode | None, className: str = "vtkMRMLNode") -> Any:
    """``node`` itself; TypeError in PythonQt's words if it is no such node (None is one)."""
    if node is None:
        return None
    if not hasattr(node, "IsA"):
        raise TypeError("method requires a VTK object")
    if not node.IsA(className):
        raise TypeError(f"method requires a {className}, a {node.GetClassName()} was provided.")
    return node


class SceneMixin:
    """``mrmlScene`` and ``setMRMLScene`` of all qMRML widgets.

    Classes with it define the signal ``mrmlSceneChanged``.
    """

    _scene = None

    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        return self._scene

    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        if self._scene is scene:
            return
        self._scene = scene
        self._onSceneSet()
        self.mrmlSceneChanged.emit(scene)

    def _onSceneSet(self):
        pass


class qMRMLWidget(SceneMixin, QtWidgets.QWidget):
    mrmlSceneChanged = Signal(object)


class qSlicerWidget(qMRMLWidget):
    pass


class qMRMLNodeComboBox(SceneMixin, QtWidgets.QWidget):
    """Chooses one of the scene's nodes. Entries: none, the nodes, then what may be done with them."""

    mrmlSceneChanged = Signal(object)
    currentNodeChanged = Signal(object)  # connected as (bool), it tells whether there is one
    currentNodeIDChanged = Signal(str)
    nodeActivated = Signal(object)
    nodeAdded = Signal(object)
    nodeAddedByUser = Signal(object)
    nodeAddedByUserAction = Signal(object)
    nodeAboutToBeRemoved = Signal(object)
    nodeAboutToBeEdited = Signal(object)
    currentNodeRenamed = Signal(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._combo = QtWidgets.QComboBox(self)
        self._combo.setSizeAdjustPolicy(QtWidgets.QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._combo.setMinimumContentsLength(6)
        layout.addWidget(self._combo)
        self._nodeTypes, self._hiddenTypes, self._attributes, self._baseNames, self._labels = [], [], {}, {}, {}
        self._none, self._add, self._remove, self._edit, self._rename = False, True, True, False, False
        self._hidden, self._children, self._selectNew, self._noneText = False, True, True, "None"
        self._actions = []
        self._currentID, self._shown, self._requested = "", [], None
        self._observers = Observers(self)
        self._nameObservers = Observers(self)
        self._combo.activated.connect(self._onActivated)
        self.setEnabled(False)

    # The scene -------------------------------------------------------------------------------------------------------

    def _onSceneSet(self):
        self._observers.clear()
        scene = self._scene
        if scene is not None:
            for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndBatchProcessEvent):
                self._observers.add(scene, event, "_onSceneChanged")
        self.setEnabled(scene is not None)
        self._refresh()
        if scene is not None and self._requested is not None:
            self.setCurrentNodeID(self._requested)
        self._requested = None

    def _onSceneChanged(self, *_):
        if not self._scene.IsBatchProcessing():
            self._refresh()

    def _accepts(self, node):
        if node.GetHideFromEditors() and not self._hidden:
            return False
        for nodeType in self._nodeTypes:
            fits = node.IsA(nodeType) if self._children else node.GetClassName() == nodeType
            if fits and not any(node.IsA(hidden) for hidden in self._hiddenTypes):
                return all(
                    node.GetAttribute(name) is not None and value in (None, node.GetAttribute(name))
                    for name, value in self._attributes.get(nodeType, {}).items()
                )
        return False

    def _refresh(self, *_):
        scene = self._scene
        nodes = [] if scene is None else [scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())]
        nodes = [node for node in nodes if self._accepts(node)]
        before, self._shown = self._shown, nodes
        if [node.GetID() for node in before] != [node.GetID() for node in nodes]:
            self._nameObservers.clear()
            for node in nodes:
                self._nameObservers.add(node, "ModifiedEvent", "_onNodeModified")
        self._fill()
        ids = [node.GetID() for node in nodes]
        current = self._currentID
        if current and current not in ids:
            # Slicer takes the last one that remains if "none" cannot be chosen.
            current = "" if self._none or not ids else ids[-1]
        elif not current and not self._none and ids and not before:
            current = ids[0]
        for node in nodes:
            if node not in before:
                self.nodeAdded.emit(node)
        self._select(current)

    def _onNodeModified(self, node, _event):
        index = self._combo.findData(node.GetID())
        if index >= 0 and self._combo.itemText(index) != node.GetName():
            self._combo.setItemText(index, node.GetName() or "")
        elif (index >= 0) != self._accepts(node):
            self._refresh()

    def _fill(self):
        combo = self._combo
        blocked = combo.blockSignals(True)
        combo.clear()
        if self._scene is not None:
            if self._none:
                combo.addItem(self._noneText, "")
            for node in self._shown:
                combo.addItem(node.GetName() or "", node.GetID())
            self._fillActions()
        combo.blockSignals(blocked)
        self._showCurrent()

    def _fillActions(self):
        label = self.nodeTypeLabel(self._nodeTypes[0] if len(self._nodeTypes) == 1 else "")
        entries = []
        if self._rename:
            entries.append((f"Rename current {label}", ("rename", None)))
        if self._edit:
            entries.append((f"Edit current {label}", ("edit", None)))
        if self._add:
            entries += [(f"Create new {self.nodeTypeLabel(kind)}", ("create", kind)) for kind in self._nodeTypes]
        if self._remove:
            entries.append((f"Delete current {label}", ("delete", None)))
        entries += [(action.text, ("action", action)) for action in self._actions]
        if entries:
            self._combo.insertSeparator(self._combo.count)
        for text, what in entries:
            self._combo.addItem(text, what)

    def _showCurrent(self):
        blocked = self._combo.blockSignals(True)
        index = next((i for i in range(self._combo.count) if self._combo.itemData(i) == self._currentID), -1)
        self._combo.setCurrentIndex(index)
        if index < 0:
            self._combo.setPlaceholderText(f"Select a {self.nodeTypeLabel((self._nodeTypes or [''])[0])}")
        self._combo.blockSignals(blocked)

    def _select(self, nodeID):
        if nodeID == self._currentID:
            return
        self._currentID = nodeID
        self._showCurrent()
        node = self.currentNode()
        self.currentNodeChanged.emit(node)
        self.currentNodeIDChanged.emit(self._currentID)

    def _onActivated(self, index):
        data = self._combo.itemData(index)
        if not isinstance(data, (tuple, list)):
            self._select(data or "")
            self.nodeActivated.emit(self.currentNode())
            return
        what, argument = data
        self._showCurrent()
        if what == "create":
            node = self.addNode(argument)
            self.setCurrentNode(node)
            self.nodeAddedByUserAction.emit(node)
        elif what == "delete":
            self.removeCurrentNode()
        elif what == "rename":
            self.renameCurrentNode()
        elif what == "edit":
            self.editCurrentNode()
        else:
            argument.trigger()

    # What modules call -----------------------------------------------------------------------------------------------

    def currentNode(self) -> slicer.vtkMRMLNode | None:
        return self._scene.GetNodeByID(self._currentID) if self._scene is not None and self._currentID else None

    def setCurrentNode(self, node: slicer.vtkMRMLNode | None) -> None:
        node = checkedNode(node)
        self.setCurrentNodeID("" if node is None else node.GetID() or "")

    def setCurrentNodeID(self, nodeID: str) -> None:
        nodeID = nodeID or ""
        if self._scene is None:
            self._requested = nodeID
            return
        if nodeID and self._combo.findData(nodeID) < 0:
            self._refresh()
            if self._combo.findData(nodeID) < 0:
                nodeID = ""
        self._select(nodeID)

    currentNodeID = Property(str, lambda self: self._currentID, setCurrentNodeID)

    def setCurrentNodeIndex(self, index: int) -> None:
        self._select(self._shown[index].GetID() if 0 <= index < len(self._shown) else "")

    def addNode(self, nodeType: str | None = None) -> slicer.vtkMRMLNode | None:
        if not self._nodeTypes or (nodeType is not None and nodeType not in self._nodeTypes):
            return None
        nodeType = nodeType or self._nodeTypes[0]
        name = self._baseNames.get(nodeType) or self.nodeTypeLabel(nodeType)
        node = self._scene.CreateNodeByClass(nodeType)
        node.UnRegister(None)
        node.SetName(self._scene.GenerateUniqueName(name))
        for attributes in self._attributes.values():
            for key, value in attributes.items():
                node.SetAttribute(key, "" if value is None else value)
        node = self._scene.AddNode(node)
        if self._selectNew:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        node = self.currentNode()
        if node is not None:
            self.nodeAboutToBeRemoved.emit(node)
            self._scene.RemoveNode(node)

    def renameCurrentNode(self) -> None:
        node = self.currentNode()
        if node is not None:
            normal = QtWidgets.QLineEdit.Normal
            name = QtWidgets.QInputDialog.getText(self, "Rename", "New name:", normal, node.GetName())
            if name:
                node.SetName(name)
                self.currentNodeRenamed.emit(name)

    def editCurrentNode(self) -> None:
        self.nodeAboutToBeEdited.emit(self.currentNode())

    def addMenuAction(self, action: QtGui.QAction) -> None:
        self._actions.append(action)
        self._refresh()

    def nodeCount(self) -> int:
        return len(self._shown)

    def nodeFromIndex(self, index: int) -> slicer.vtkMRMLNode | None:
        return self._shown[index] if 0 <= index < len(self._shown) else None

    def addAttribute(self, nodeType: str, name: str, value: object = None) -> None:
        self._attributes.setdefault(nodeType, {})[name] = None if value is None else str(value)
        self._refresh()

    def removeAttribute(self, nodeType: str, name: str) -> None:
        self._attributes.get(nodeType, {}).pop(name, None)
        self._refresh()

    def setNodeTypeLabel(self, label: str, nodeType: str) -> None:
        self._labels[nodeType] = label
        self._refresh()

    def nodeTypeLabel(self, nodeType: str) -> str:
        if self._labels.get(nodeType):
            return self._labels[nodeType]
        return (self._scene and nodeType and self._scene.GetTypeDisplayNameByClassName(nodeType)) or "node"

    def setBaseName(self, name: str, nodeType: str = "") -> None:
        for kind in [nodeType] if nodeType else self._nodeTypes:
            self._baseNames[kind] = name

    def setNodeTypes(self, nodeTypes: Iterable[str]) -> None:
        self._nodeTypes = [kind for kind in nodeTypes if kind]
        self._refresh()

    def setHideChildNodeTypes(self, nodeTypes: Iterable[str]) -> None:
        self._hiddenTypes = list(nodeTypes)
        self._refresh()

    nodeTypes = Property("QStringList", lambda self: tuple(self._nodeTypes), setNodeTypes)
    hideChildNodeTypes = Property("QStringList", lambda self: self._hiddenTypes, setHideChildNodeTypes)
    baseName = Property(str, lambda self: next(iter(self._baseNames.values()), ""), setBaseName)

    def _option(attribute, valueType):
        def get(self):
            return getattr(self, attribute)

        def put(self, value):
            setattr(self, attribute, valueType(value))
            self._refresh()

        return Property(valueType, get, put), put

    noneEnabled, setNoneEnabled = _option("_none", bool)
    addEnabled, setAddEnabled = _option("_add", bool)
    removeEnabled, setRemoveEnabled = _option("_remove", bool)
    editEnabled, setEditEnabled = _option("_edit", bool)
    renameEnabled, setRenameEnabled = _option("_rename", bool)
    showHidden, setShowHidden = _option("_hidden", bool)
    showChildNodeTypes, setShowChildNodeTypes = _option("_children", bool)
    selectNodeUponCreation, setSelectNodeUponCreation = _option("_selectNew", bool)
    noneDisplay, setNoneDisplay = _option("_noneText", str)
    del _option


class qMRMLColorTableComboBox(qMRMLNodeComboBox):
    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._hidden, self._add, self._remove = True, False, False
        self.setNodeTypes(["vtkMRMLColorNode"])


class QuantityMixin(SceneMixin):
    """``quantity`` of widgets for numbers is stored only: units are not looked up in the scene."""

    _quantity = ""

    def setQuantity(self, quantity: str) -> None:
        self._quantity = quantity

    quantity = Property(str, lambda self: self._quantity, setQuantity)


class qMRMLSliderWidget(QuantityMixin, ctkSliderWidget):
    mrmlSceneChanged = Signal(object)


class qMRMLSpinBox(QuantityMixin, ctkDoubleSpinBox):
    mrmlSceneChanged = Signal(object)


for _class in (
    qMRMLWidget,
    qSlicerWidget,
    qMRMLNodeComboBox,
    qMRMLColorTableComboBox,
    qMRMLSliderWidget,
    qMRMLSpinBox,
):
    register(_class.__name__, _class)
