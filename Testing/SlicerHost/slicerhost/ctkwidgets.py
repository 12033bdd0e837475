# SPDX-License-Identifier: Apache-2.0
"""ctk stand-ins (own code).  Import after pythonqt.install()."""

import sys, types
from PySide6 import QtCore, QtGui, QtWidgets
from .uiloader import register


def registerWidget(cls):
    return register(cls.__name__, cls)


P, S = QtCore.Property, QtCore.Signal


@registerWidget
class ctkCollapsibleButton(QtWidgets.QWidget):
    """Section with a clickable header drawn in its top margin; the .ui layout is set on this widget itself."""

    contentsCollapsed = S(bool)
    toggled = S(bool)
    H = 24

    def __init__(self, text="", parent=None):
        if isinstance(text, QtWidgets.QWidget):
            text, parent = "", text
        super().__init__(parent)
        self._text, self._collapsed = text, False
        self.setContentsMargins(2, self.H + 2, 2, 2)

    def _setText(self, t):
        self._text = t
        self.update()

    text = P(str, lambda s: s._text, _setText)

    def setText(self, t):
        self._setText(t)

    def setCollapsed(self, c):
        c = bool(c)
        if c == self._collapsed:
            return
        self._collapsed = c
        for w in self.children():
            if isinstance(w, QtWidgets.QWidget):
                w.setVisible(not c)
        self.setMaximumHeight(self.H + 4 if c else 16777215)
        self.update()
        self.contentsCollapsed.emit(c)
        self.toggled.emit(not c)

    collapsed = P(bool, lambda s: s._collapsed, setCollapsed)
    checked = P(bool, lambda s: not s._collapsed, lambda s, v: s.setCollapsed(not v))

    def mousePressEvent(self, e):
        if e.position().y() <= self.H:
            self.setCollapsed(not self._collapsed)

    def paintEvent(self, e):
        p = QtWidgets.QStylePainter(self)
        o = QtWidgets.QStyleOptionButton()
        o.initFrom(self)
        o.rect = QtCore.QRect(0, 0, self.width, self.H)
        o.features = QtWidgets.QStyleOptionButton.ButtonFeature.None_
        p.drawControl(QtWidgets.QStyle.ControlElement.CE_PushButtonBevel, o)
        f = self.font
        f.setBold(True)
        p.setFont(f)
        p.drawText(
            QtCore.QRect(8, 0, self.width - 16, self.H),
            int(QtCore.Qt.AlignmentFlag.AlignVCenter),
            ("\u25b8 " if self._collapsed else "\u25be ") + self._text,
        )


@registerWidget
class ctkCollapsibleGroupBox(QtWidgets.QGroupBox):
    collapsed = P(bool, lambda s: s.__dict__.get("_c", False), lambda s, v: s.setCollapsed(v))

    def setCollapsed(self, v):
        self._c = bool(v)
        for w in self.children():
            if isinstance(w, QtWidgets.QWidget):
                w.setVisible(not v)


class _Slider(QtWidgets.QWidget):
    valueChanged = S(float)
    valueIsChanging = S(float)
    N = 10000

    def __init__(self, parent=None):
        super().__init__(parent)
        l = QtWidgets.QHBoxLayout(self)
        l.setContentsMargins(0, 0, 0, 0)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal)
        self._slider.setRange(0, self.N)
        self._spin = QtWidgets.QDoubleSpinBox()
        self._spin.setRange(0, 100)
        self._spin.setDecimals(2)
        self._spin.setKeyboardTracking(False)
        l.addWidget(self._slider, 1)
        l.addWidget(self._spin)
        self._spin.valueChanged.connect(self._spinChanged)
        self._slider.valueChanged.connect(self._slid)

    def _slid(self, v):
        s = self._spin
        s.setValue(s.minimum + (s.maximum - s.minimum) * v / self.N)

    def _sync(self):
        s = self._spin
        r = s.maximum - s.minimum
        b = self._slider.blockSignals(True)
        self._slider.setValue(round(self.N * (s.value - s.minimum) / r) if r else 0)
        self._slider.blockSignals(b)

    def _spinChanged(self, v):
        self._sync()
        self.valueIsChanging.emit(v)
        self.valueChanged.emit(v)

    def setValue(self, v):
        self._spin.setValue(v)

    def setMinimum(self, v):
        self._spin.setMinimum(v)
        self._sync()

    def setMaximum(self, v):
        self._spin.setMaximum(v)
        self._sync()

    def setRange(self, a, b):
        self._spin.setRange(a, b)
        self._sync()

    def setSingleStep(self, v):
        self._spin.setSingleStep(v)

    def setDecimals(self, v):
        self._spin.setDecimals(int(v))

    def setSuffix(self, v):
        self._spin.setSuffix(v)

    def setPrefix(self, v):
        self._spin.setPrefix(v)

    value = P(float, lambda s: s._spin.value, setValue)
    minimum = P(float, lambda s: s._spin.minimum, setMinimum)
    maximum = P(float, lambda s: s._spin.maximum, setMaximum)
    singleStep = P(float, lambda s: s._spin.singleStep, setSingleStep)
    pageStep = P(float, lambda s: 1.0, lambda s, v: None)
    decimals = P(int, lambda s: s._spin.decimals, setDecimals)
    suffix = P(str, lambda s: s._spin.suffix, setSuffix)
    prefix = P(str, lambda s: s._spin.prefix, setPrefix)


ctkSliderWidget = registerWidget(type("ctkSliderWidget", (_Slider,), {}))
ctkDoubleSlider = registerWidget(type("ctkDoubleSlider", (_Slider,), {}))


@registerWidget
class ctkRangeWidget(QtWidgets.QWidget):
    valuesChanged = S(float, float)
    minimumValueChanged = S(float)
    maximumValueChanged = S(float)

    def __init__(self, parent=None):
        super().__init__(parent)
        l = QtWidgets.QHBoxLayout(self)
        l.setContentsMargins(0, 0, 0, 0)
        self._a, self._b = QtWidgets.QDoubleSpinBox(), QtWidgets.QDoubleSpinBox()
        for w in (self._a, self._b):
            w.setRange(0, 99)
            l.addWidget(w)
            w.valueChanged.connect(self._changed)
        self._b.setValue(99)

    def _changed(self, *_):
        if self._a.value > self._b.value:
            (self._b if self.sender() is self._a else self._a).setValue(self.sender().value)
            return
        self.valuesChanged.emit(self._a.value, self._b.value)
        self.minimumValueChanged.emit(self._a.value)
        self.maximumValueChanged.emit(self._b.value)

    def _each(self, f, v):
        [getattr(w, f)(v) for w in (self._a, self._b)]

    def setRange(self, a, b):
        self._a.setRange(a, b)
        self._b.setRange(a, b)

    def setValues(self, a, b):
        self._a.setValue(min(a, self._b.value))
        self._b.setValue(b)
        self._a.setValue(a)

    def setMinimumValue(self, v):
        self._a.setValue(v)

    def setMaximumValue(self, v):
        self._b.setValue(v)

    minimumValue = P(float, lambda s: s._a.value, setMinimumValue)
    maximumValue = P(float, lambda s: s._b.value, setMaximumValue)
    minimum = P(float, lambda s: s._a.minimum, lambda s, v: s._each("setMinimum", v))
    maximum = P(float, lambda s: s._a.maximum, lambda s, v: s._each("setMaximum", v))
    singleStep = P(float, lambda s: s._a.singleStep, lambda s, v: s._each("setSingleStep", v))
    decimals = P(int, lambda s: s._a.decimals, lambda s, v: s._each("setDecimals", v))


@registerWidget
class ctkPathLineEdit(QtWidgets.QWidget):
    currentPathChanged = S(str)
    validInputChanged = S(bool)
    Files, Dirs, Drives, Executable, Writable, Readable = 2, 1, 4, 0x40, 0x20, 0x10

    def __init__(self, parent=None):
        super().__init__(parent)
        l = QtWidgets.QHBoxLayout(self)
        l.setContentsMargins(0, 0, 0, 0)
        self._edit = QtWidgets.QLineEdit()
        self._btn = QtWidgets.QToolButton()
        self._btn.setText("...")
        l.addWidget(self._edit, 1)
        l.addWidget(self._btn)
        self._edit.textChanged.connect(self.currentPathChanged)
        self._btn.clicked.connect(self.browse)
        self._filters, self._nameFilters = self.Files, []

    def browse(self):
        import qt

        f = (
            qt.QFileDialog.getExistingDirectory(self, "Select")
            if self._filters & self.Dirs and not self._filters & self.Files
            else qt.QFileDialog.getOpenFileName(self, "Select", self.currentPath, ";;".join(self._nameFilters))
        )
        if f:
            self.setCurrentPath(f)

    def setCurrentPath(self, p):
        self._edit.setText(str(p))

    currentPath = P(str, lambda s: s._edit.text, setCurrentPath)
    nameFilters = P("QStringList", lambda s: s._nameFilters, lambda s, v: setattr(s, "_nameFilters", list(v)))
    filters = P(int, lambda s: s._filters, lambda s, v: setattr(s, "_filters", int(v)))
    settingKey = P(str, lambda s: s.__dict__.get("_key", ""), lambda s, v: s.__dict__.__setitem__("_key", v))

    def addCurrentPathToHistory(self):
        pass


@registerWidget
class ctkDirectoryButton(QtWidgets.QPushButton):
    directoryChanged = S(str)
    directorySelected = S(str)

    def setDirectory(self, d):
        self._d = str(d)
        self.setText(self._d)
        self.directoryChanged.emit(self._d)

    directory = P(str, lambda s: s.__dict__.get("_d", ""), setDirectory)


@registerWidget
class ctkColorPickerButton(QtWidgets.QPushButton):
    colorChanged = S(QtGui.QColor)

    def setColor(self, c):
        self._c = QtGui.QColor(c)
        px = QtGui.QPixmap(16, 16)
        px.fill(self._c)
        self.setIcon(QtGui.QIcon(px))
        self.setText(self._c.name())
        self.colorChanged.emit(self._c)

    color = P(QtGui.QColor, lambda s: s.__dict__.get("_c", QtGui.QColor()), setColor)
    displayColorName = P(bool, lambda s: True, lambda s, v: None)


@registerWidget
class ctkMessageBox(QtWidgets.QMessageBox):
    dontShowAgainVisible = P(bool, lambda s: False, lambda s, v: None)
    dontShowAgainSettingsKey = P(str, lambda s: "", lambda s, v: None)


@registerWidget
class ctkCheckableComboBox(QtWidgets.QComboBox):
    checkedIndexesChanged = S()


for _n, _b in dict(
    ctkDoubleSpinBox="QDoubleSpinBox",
    ctkComboBox="QComboBox",
    ctkCheckBox="QCheckBox",
    ctkPushButton="QPushButton",
    ctkMenuButton="QPushButton",
    ctkExpandableWidget="QWidget",
    ctkFittedTextBrowser="QTextBrowser",
    ctkSearchBox="QLineEdit",
    ctkErrorLogWidget="QWidget",
    ctkThumbnailLabel="QLabel",
    ctkTreeComboBox="QComboBox",
).items():
    globals()[_n] = registerWidget(type(_n, (getattr(QtWidgets, _b),), {}))


def install():
    m = types.ModuleType("ctk")
    for k, v in list(globals().items()):
        if k.startswith("ctk"):
            setattr(m, k, v)
    sys.modules["ctk"] = m
    return m
