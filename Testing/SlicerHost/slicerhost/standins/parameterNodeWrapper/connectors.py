# SPDX-License-Identifier: Apache-2.0
"""What joins widgets to parameters: the pairs of classes that Slicer accepts, and no others."""

from __future__ import annotations

import enum
import pathlib
from collections.abc import Callable
from typing import Any

import ctk
import qt
import slicer

from . import storage
from .annotations import Choice, Decimals, Maximum, Minimum, SingleStep, WithinRange, find


class Connector:
    """What joins one widget to one parameter."""

    def __init__(self, widget: Any, signal: Any, read: Callable[[], Any], write: Callable[[Any], None]) -> None:
        self.widget, self.signal, self.read, self._write = widget, signal, read, write
        self._callback = None

    def write(self, value: Any) -> None:
        self._write(value)

    def onChanged(self, callback: Callable[[], None]) -> None:
        if self._callback is not None and self.signal is not None:
            self.widget.disconnect(self.signal, self._onSignal)
        self._callback = callback
        if callback is not None and self.signal is not None:
            self.widget.connect(self.signal, self._onSignal)

    def _onSignal(self):
        self._callback()


def _setLimits(widget, parameter, free):
    limits = find(parameter.validators, WithinRange)
    low = limits or find(parameter.validators, Minimum)
    high = limits or find(parameter.validators, Maximum)
    step, decimals = find(parameter.annotations, SingleStep), find(parameter.annotations, Decimals)
    if decimals is not None:
        widget.decimals = decimals.value
    if step is not None:
        widget.singleStep = step.value
    widget.minimum = low.minimum if low is not None else -free
    widget.maximum = high.maximum if high is not None else free
    return low is not None and high is not None


def _comboConnector(widget, parameter):
    if isinstance(parameter.kind, type) and issubclass(parameter.kind, enum.Enum):
        values = list(parameter.kind)
        texts = [one.label() if hasattr(one, "label") else one.name for one in values]
    else:
        choice = find(parameter.validators, Choice)
        if choice is None:
            raise RuntimeError("ComboBoxToStringableConnector requires the Choice annotation to be used.")
        values = list(choice.choices)
        texts = [str(one) for one in values]
    widget.clear()
    widget.addItems(texts)

    def write(value):
        if value not in values:
            raise ValueError(f"Unable to find value {value} in choices {values}")
        widget.currentIndex = values.index(value)

    return Connector(widget, "currentIndexChanged(int)", lambda: values[widget.currentIndex], write)


def connect(widget: Any, parameter: Any) -> bool:
    """Only pairs that Slicer accepts, by exact class, as there."""
    kind, is_ = parameter.kind, type(widget)

    def attribute(name, signal):
        return Connector(widget, signal, lambda: getattr(widget, name), lambda value: setattr(widget, name, value))

    if kind is bool and is_ in (qt.QCheckBox, ctk.ctkCheckBox):
        return attribute("checked", "toggled(bool)")
    if kind is bool and is_ is qt.QPushButton:
        widget.checkable = True
        return attribute("checked", "toggled(bool)")
    if kind is int and is_ in (qt.QSlider, qt.QSpinBox):
        if not _setLimits(widget, parameter, 2**31 - 1) and is_ is qt.QSlider:
            raise RuntimeError("Cannot have a connection to QSlider where the int type is unbounded.")
        return attribute("value", "valueChanged(int)")
    doubles = (
        qt.QDoubleSpinBox,
        ctk.ctkSliderWidget,
        slicer.qMRMLSliderWidget,
        ctk.ctkDoubleSlider,
        ctk.ctkDoubleSpinBox,
        slicer.qMRMLSpinBox,
    )
    if kind in (int, float) and is_ in doubles:
        bounded = _setLimits(widget, parameter, float("inf"))
        if not bounded and is_ in (ctk.ctkSliderWidget, slicer.qMRMLSliderWidget):
            raise RuntimeError("Cannot have a connection to ctkSliderWidget where the float types is unbounded.")
        if kind is int and is_ is not ctk.ctkDoubleSlider:
            widget.decimals = 0
        return Connector(
            widget,
            "valueChanged(double)",
            lambda: kind(widget.value),
            lambda value: setattr(widget, "value", kind(value)),
        )
    if is_ in (qt.QComboBox, ctk.ctkComboBox):
        return _comboConnector(widget, parameter)
    if kind is str and is_ is qt.QLineEdit:
        return attribute("text", "textChanged(QString)")
    if kind is str and is_ is qt.QLabel:
        return attribute("text", None)
    if kind is str and is_ is qt.QTextEdit:
        return attribute("plainText", "textChanged()")
    isPath = isinstance(kind, type) and issubclass(kind, pathlib.PurePath)
    if isPath and is_ in (ctk.ctkPathLineEdit, ctk.ctkDirectoryButton):
        name = "currentPath" if is_ is ctk.ctkPathLineEdit else "directory"
        return Connector(
            widget,
            f"{name}Changed(QString)",
            lambda: kind(getattr(widget, name)),
            lambda value: setattr(widget, name, str(value)),
        )
    if isinstance(parameter.storage, storage.Node) and is_ is slicer.qMRMLNodeComboBox:
        return Connector(widget, "currentNodeChanged(vtkMRMLNode*)", widget.currentNode, widget.setCurrentNode)
    raise RuntimeError(f"Unable to create GUI connector from datatype '{parameter.annotated}' to widget type '{is_}'.")
