# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for CTK's number widgets: spin box, sliders, range.

A value keeps its full precision whatever `decimals` says; only the text is rounded.
"""

from __future__ import annotations

import math

from PySide6 import QtCore, QtWidgets

from . import uiloader
from .pythonqt import stored

P, S, Qt = QtCore.Property, QtCore.Signal, QtCore.Qt
_STEPS = 100000


def _number(name, kind=float):
    """A property kept by an inner spin box of the same property name."""
    setter = "set" + name[0].upper() + name[1:]
    return P(kind, lambda self: getattr(self._spin, name), lambda self, value: getattr(self._spin, setter)(value))


class Bounded(QtWidgets.QWidget):
    """A value between bounds: moving a bound over the other takes the other along, and the value stays inside."""

    _value, _minimum, _maximum = 0.0, 0.0, 99.99

    def _bound(self, minimum, maximum):
        self._minimum, self._maximum = minimum, maximum
        self._boundsChanged()
        self._set(self._value)

    def _setMinimum(self, value):
        self._bound(value, max(value, self._maximum))

    def _setMaximum(self, value):
        self._bound(min(value, self._minimum), value)

    def _boundsChanged(self):
        pass

    def _set(self, value):
        value = min(max(value, self._minimum), self._maximum)
        if math.isnan(value) or value == self._value:
            self._show()
            return
        self._value = value
        self._show()
        self._announce()

    def _show(self):
        pass


def _spinBox(owner):
    spin = QtWidgets.QDoubleSpinBox(owner)
    spin.setKeyboardTracking(False)
    spin.valueChanged.connect(owner._typed)
    return spin


class Spinning(Bounded):
    """Bounded by way of a QDoubleSpinBox that shows it."""

    def _typed(self, shown):
        if not self._showing and shown != round(self._value, self._spin.decimals):
            self._set(shown)

    _showing = False

    def _show(self):
        self._showing = True
        self._spin.setRange(self._minimum, self._maximum)
        self._spin.setValue(self._value)
        self._showing = False


@uiloader.register("ctkDoubleSpinBox")
class ctkDoubleSpinBox(Spinning):
    valueChanged = S((float,), (str,))
    editingFinished = S()
    decimalsChanged = S(int)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._spin = _spinBox(self)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._spin)
        self.setSizePolicy(QtWidgets.QSizePolicy.Minimum, QtWidgets.QSizePolicy.Fixed)
        self._spin.editingFinished.connect(self.editingFinished)

    def _announce(self):
        self.valueChanged.emit(self._value)
        self.valueChanged.emit(f"{self._value:.{self._spin.decimals}f}")

    def setValue(self, value: float) -> None:
        self._set(value)

    def setValueIfDifferent(self, value: float) -> None:
        self._set(value)

    def setValueAlways(self, value: float) -> None:
        self._set(value)

    def stepUp(self) -> None:
        self._set(self._value + self._spin.singleStep)

    def stepDown(self) -> None:
        self._set(self._value - self._spin.singleStep)

    def setDecimals(self, decimals: int) -> None:
        if decimals != self._spin.decimals:
            self._spin.setDecimals(decimals)
            self._show()
            self.decimalsChanged.emit(decimals)

    value = P(float, lambda self: self._value, setValue)
    minimum = P(float, lambda self: self._minimum, Bounded._setMinimum)
    maximum = P(float, lambda self: self._maximum, Bounded._setMaximum)
    decimals = P(int, lambda self: self._spin.decimals, setDecimals)
    singleStep = _number("singleStep")
    prefix, suffix = _number("prefix", str), _number("suffix", str)
    cleanText = P(str, lambda self: self._spin.cleanText)
    alignment = P(int, lambda self: int(self._spin.alignment), lambda self, v: self._spin.setAlignment(v))
    readOnly = P(bool, lambda self: self._spin.readOnly, lambda self, v: self._spin.setReadOnly(v))
    frame = P(bool, lambda self: self._spin.frame, lambda self, v: self._spin.setFrame(v))


class Sliding(Bounded):
    """Bounded by way of a QSlider with fine steps."""

    _moving = False

    def _makeSlider(self, orientation=Qt.Horizontal):
        slider = QtWidgets.QSlider(orientation, self)
        slider.setRange(0, _STEPS)
        slider.valueChanged.connect(self._slid)
        return slider

    def _slid(self, position):
        if not self._moving:
            step = self.singleStep or 1.0
            exact = self._minimum + (self._maximum - self._minimum) * position / _STEPS
            self._set(self._minimum + round((exact - self._minimum) / step) * step)

    def _placeSlider(self):
        span = self._maximum - self._minimum
        self._moving = True
        self._slider.setValue(round(_STEPS * (self._value - self._minimum) / span) if span > 0 else 0)
        self._slider.setPageStep(round(min(1.0, self.pageStep / span) * _STEPS) if span > 0 else _STEPS)
        self._slider.setSingleStep(max(1, round(min(1.0, self.singleStep / span) * _STEPS)) if span > 0 else _STEPS)
        self._moving = False


@uiloader.register("ctkDoubleSlider")
class ctkDoubleSlider(Sliding):
    valueChanged = S(float)
    sliderMoved = S(float)
    sliderPressed = S()
    sliderReleased = S()
    rangeChanged = S(float, float)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._slider = self._makeSlider(Qt.Vertical)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._slider)
        self._slider.sliderPressed.connect(self.sliderPressed)
        self._slider.sliderReleased.connect(self.sliderReleased)

    _show = Sliding._placeSlider

    def _boundsChanged(self):
        self.rangeChanged.emit(self._minimum, self._maximum)

    def _announce(self):
        if self._slider.sliderDown:
            self.sliderMoved.emit(self._value)
        self.valueChanged.emit(self._value)

    def setValue(self, value: float) -> None:
        self._set(value)

    def setOrientation(self, orientation: int) -> None:
        self._slider.setOrientation(orientation)

    value = P(float, lambda self: self._value, setValue)
    minimum = P(float, lambda self: self._minimum, Bounded._setMinimum)
    maximum = P(float, lambda self: self._maximum, Bounded._setMaximum)
    singleStep, pageStep = stored(float, 1.0, "_show"), stored(float, 10.0, "_show")
    orientation = P(int, lambda self: int(self._slider.orientation), setOrientation)


@uiloader.register("ctkSliderWidget")
class ctkSliderWidget(Sliding, Spinning):
    """Slider and spin box side by side."""

    valueChanged = S(float)
    valueIsChanging = S(float)
    decimalsChanged = S(int)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._spin = _spinBox(self)
        self._slider = self._makeSlider()
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._slider, 1)
        row.addWidget(self._spin)
        self.setSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Fixed)
        self._slider.sliderPressed.connect(self._start)
        self._slider.sliderReleased.connect(self._stop)

    _before = None  # the value before a drag that shall be told of only at its end

    def _start(self):
        if not self.tracking:
            self._before = self._value

    def _stop(self):
        before, self._before = self._before, None
        if before is not None and self._value != before:
            self.valueChanged.emit(self._value)

    def _show(self):
        Spinning._show(self)
        self._placeSlider()

    def _announce(self):
        if not self.tracking:
            self.valueIsChanging.emit(self._value)
        if self._before is None:
            self.valueChanged.emit(self._value)

    def reset(self) -> None:
        self._set(0.0)

    def setValue(self, value: float) -> None:
        before, self._before = self._before, None
        self._set(value)
        self._before = before

    def setDecimals(self, decimals: int) -> None:
        self._spin.setDecimals(decimals)
        self._show()
        self._announce()
        self.decimalsChanged.emit(decimals)

    def setSpinBoxVisible(self, visible: bool) -> None:
        self._spin.setVisible(visible)

    value = P(float, lambda self: self._value if self._before is None else self._before, setValue)
    minimum = P(float, lambda self: self._minimum, Bounded._setMinimum)
    maximum = P(float, lambda self: self._maximum, Bounded._setMaximum)

    def _setSingleStep(self, step):
        self._spin.setSingleStep(step)
        self._placeSlider()

    singleStep = P(float, lambda self: self._spin.singleStep, _setSingleStep)
    pageStep = stored(float, 10.0, "_placeSlider")
    decimals = P(int, lambda self: self._spin.decimals, setDecimals)
    prefix, suffix = _number("prefix", str), _number("suffix", str)
    tracking = stored(bool, True)
    tickInterval = stored(float, 0.0)
    tickPosition = P(int, lambda self: int(self._slider.tickPosition), lambda self, v: self._slider.setTickPosition(v))
    spinBoxAlignment = P(int, lambda self: int(self._spin.alignment), lambda self, v: self._spin.setAlignment(v))
    spinBoxVisible = P(bool, lambda self: not self._spin.isHidden(), setSpinBoxVisible)
    synchronizeSiblings = stored(int, 1)
    popupSlider = stored(bool, False)
    invertedAppearance = P(
        bool, lambda self: self._slider.invertedAppearance, lambda self, v: self._slider.setInvertedAppearance(v)
    )
    invertedControls = P(
        bool, lambda self: self._slider.invertedControls, lambda self, v: self._slider.setInvertedControls(v)
    )


@uiloader.register("ctkRangeWidget")
class ctkRangeWidget(QtWidgets.QWidget):
    """Two spin boxes for the ends of a range; the slider between them is not drawn here."""

    minimumValueChanged = S(float)
    minimumValueIsChanging = S(float)
    maximumValueChanged = S(float)
    maximumValueIsChanging = S(float)
    valuesChanged = S(float, float)
    rangeChanged = S(float, float)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._ends, self._limits, self._showing = [0.0, 99.0], [0.0, 99.0], False
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._spins = []
        for _end in (0, 1):
            spin = QtWidgets.QDoubleSpinBox(self)
            spin.setKeyboardTracking(False)
            self._spins.append(spin)
            row.addWidget(spin, 1)
        self._display()
        self._spins[0].valueChanged.connect(lambda value: self._typed(0, value))
        self._spins[1].valueChanged.connect(lambda value: self._typed(1, value))

    def _typed(self, end, value):
        if not self._showing:
            self._put(*((value, self._ends[1]) if end == 0 else (self._ends[0], value)))

    def _display(self):
        self._showing = True
        self._spins[0].setRange(self._limits[0], self._ends[1])
        self._spins[1].setRange(self._ends[0], self._limits[1])
        for spin, value in zip(self._spins, self._ends, strict=True):
            spin.setValue(value)
        self._showing = False

    def _put(self, low, high):
        low, high = (min(max(v, self._limits[0]), self._limits[1]) for v in (low, high))
        before, self._ends = self._ends, [low, high]
        self._display()
        if low != before[0]:
            self.minimumValueIsChanging.emit(low)
            self.minimumValueChanged.emit(low)
        if high != before[1]:
            self.maximumValueIsChanging.emit(high)
            self.maximumValueChanged.emit(high)
        if self._ends != before:
            self.valuesChanged.emit(low, high)

    def setRange(self, low: float, high: float) -> None:
        low, high = min(low, high), max(low, high)
        if [low, high] != self._limits:
            self._limits = [low, high]
            self._put(*self._ends)
            self.rangeChanged.emit(low, high)

    def setValues(self, low: float, high: float) -> None:
        self._put(min(low, high), max(low, high))

    def setMinimumValue(self, value: float) -> None:
        self._put(min(value, self._ends[1]), self._ends[1])

    def setMaximumValue(self, value: float) -> None:
        self._put(self._ends[0], max(value, self._ends[0]))

    def setDecimals(self, decimals: int) -> None:
        for spin in self._spins:
            spin.setDecimals(decimals)
        self._display()

    def reset(self) -> None:
        self._put(*self._limits)

    def _each(name, kind):
        setter = "set" + name[0].upper() + name[1:]
        return P(
            kind,
            lambda self: getattr(self._spins[0], name),
            lambda self, value: [getattr(spin, setter)(value) for spin in self._spins],
        )

    minimum = P(float, lambda self: self._limits[0], lambda self, v: self.setRange(v, max(v, self._limits[1])))
    maximum = P(float, lambda self: self._limits[1], lambda self, v: self.setRange(min(v, self._limits[0]), v))
    minimumValue = P(float, lambda self: self._ends[0], setMinimumValue)
    maximumValue = P(float, lambda self: self._ends[1], setMaximumValue)
    decimals = P(int, lambda self: self._spins[0].decimals, setDecimals)
    singleStep, prefix, suffix = _each("singleStep", float), _each("prefix", str), _each("suffix", str)
    tracking = stored(bool, True)
    symmetricMoves = stored(bool, False)
    autoSpinBoxWidth = stored(bool, True)
    del _each
