# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for CTK's widgets: what they do, that they offer nothing CTK has not, and how .ui files are loaded."""

from __future__ import annotations

import contextlib
import inspect

import pytest

pytest.importorskip("PySide6", reason="PySide6 is not installed (the host extra)")
pytestmark = pytest.mark.host


@pytest.fixture(autouse=True)
def quiet(qt_application):
    """No test here may leave a complaint on the console."""
    from slicerhost import pythonqt

    pythonqt.complaints.clear()
    yield
    assert pythonqt.complaints == []


@pytest.fixture
def ctk(qt_application):
    import ctk

    return ctk


@pytest.fixture
def qt(qt_application):
    import qt

    return qt


def listen(widget, *signals):
    """What the signals say from now on: a list of their arguments."""
    heard = []
    for signal in signals:
        assert widget.connect(signal, lambda *arguments: heard.append(arguments))
    return heard


# ---------------------------------------------------------------- held to the real classes
def standins():
    """Class names with a stand-in; the qMRML ones only where slicer-core is installed."""
    pytest.importorskip("PySide6")
    import slicerhost

    slicerhost.install()
    with contextlib.suppress(ModuleNotFoundError):
        from slicerhost import host  # noqa: F401  (registers all stand-ins)
    from slicerhost import uiloader

    return uiloader.registered()


def test_no_standin_offers_what_the_real_class_has_not(qt_application):
    from PySide6 import QtCore
    from slicerhost import calls, declared, signals

    extra = []
    for name, cls in standins().items():
        if not declared.known(name):
            continue
        base = next(c for c in cls.__mro__ if c.__module__.startswith("PySide6"))
        offered = {declared.split(signal)[0] for signal in declared.signals(cls)}
        for n in dir(cls):
            member = inspect.getattr_static(cls, n)
            if n.startswith("_") or hasattr(base, n) or isinstance(member, calls.HostOnly):
                continue
            if n not in declared.names(cls):
                extra.append(f"{name}.{n}")
            elif isinstance(member, QtCore.Property) and n not in declared.properties(cls):
                extra.append(f"{name}.{n} is no property")
            elif isinstance(member, signals.SignalOf) and n not in offered:
                extra.append(f"{name}.{n} is no signal")
    assert extra == []


def test_helpers_of_a_standin_are_hidden_from_modules(qt_application, qt):
    from PySide6 import QtCore
    from slicerhost import uiloader

    class ctkDoubleRangeSlider(qt.QWidget):
        extra = QtCore.Signal(int)

        def helper(self):
            return 1

    slider = uiloader.register("ctkRangeSlider", ctkDoubleRangeSlider)()
    uiloader.unregister("ctkRangeSlider")
    with pytest.raises(AttributeError, match="ctkDoubleRangeSlider has no attribute named 'helper'"):
        slider.helper()
    from slicerhost import pythonqt

    assert slider.connect("extra(int)", print) is False
    pythonqt.complaints.clear()


def test_standins_have_the_qt_base_of_the_real_class(qt_application):
    from slicerhost import declared

    wrong = []
    for name, cls in standins().items():
        base = next(c for c in cls.__mro__ if c.__module__.startswith("PySide6")).__name__
        wanted = declared.qtBase(name).replace("QVTKOpenGLNativeWidget", "QWidget")  # VTK's views are drawn otherwise
        if declared.known(name) and wanted.startswith("Q") and base != wanted:
            wrong.append(f"{name}: {base} instead of {wanted}")
    assert wrong == []


def test_what_a_standin_lacks_is_said_so(qt_application, qt):
    from slicerhost import declared, uiloader

    @uiloader.register("ctkRangeSlider")
    class ctkDoubleRangeSlider(qt.QWidget):
        pass

    slider = ctkDoubleRangeSlider()
    for touch in (
        lambda: slider.minimumValue,
        lambda: hasattr(slider, "setValues"),
        lambda: setattr(slider, "minimumValue", 3),
        lambda: slider.connect("valuesChanged(double,double)", print),
    ):
        with pytest.raises(declared.NotInHost, match=r"ctkDoubleRangeSlider has '.*' in Slicer, but its stand-in"):
            touch()
    with pytest.raises(AttributeError):
        _ = slider.nosuch
    import ctk

    with pytest.raises(declared.NotInHost, match="ctkAxesWidget"):
        _ = ctk.ctkAxesWidget
    with pytest.raises(AttributeError):
        _ = ctk.ctkNosuch
    uiloader.unregister("ctkRangeSlider")


@pytest.mark.parametrize(
    ("widget", "missing"),
    [
        ("ctkSliderWidget", "setRange"),  # public in C++, but neither slot nor invokable
        ("ctkSliderWidget", "setMinimum"),
        ("ctkCollapsibleButton", "setCollapsed"),
        ("ctkPathLineEdit", "setNameFilters"),
        ("ctkDirectoryButton", "setDirectory"),
        ("ctkCheckableComboBox", "uncheckIndexes"),
    ],
)
def test_methods_that_only_cpp_has(ctk, widget, missing):
    assert not hasattr(getattr(ctk, widget)(), missing)


def test_constructors_take_a_parent_only(ctk, qt):
    for arguments in (("x",), ("x", None), (None, None)):
        with pytest.raises(ValueError):
            ctk.ctkMenuButton(*arguments)
    with pytest.raises(ValueError, match="kwargs"):
        ctk.ctkSliderWidget(parent=None)
    parent = qt.QWidget()
    assert ctk.ctkMenuButton(parent).parent() is parent


def test_private_state_is_out_of_reach(ctk):
    with pytest.raises(AttributeError):
        ctk.ctkSliderWidget()._value = 3


# ---------------------------------------------------------------- numbers
def test_slider_keeps_its_value_within_its_bounds_and_in_full(ctk):
    slider = ctk.ctkSliderWidget()
    heard = listen(slider, "valueChanged(double)")
    assert (slider.value, slider.minimum, slider.maximum, slider.decimals, slider.singleStep) == (0, 0, 99.99, 2, 1)
    slider.value = 200
    assert slider.value == 99.99
    slider.maximum = 50
    assert slider.value == 50
    slider.minimum = 60
    assert (slider.minimum, slider.maximum, slider.value) == (60, 60, 60)
    assert heard == [(99.99,), (50,), (60,)]
    slider.minimum, slider.decimals = 0, 3
    slider.value = 0.123456
    assert slider.value == 0.123456
    heard.clear()
    slider.setValue(0.123456)
    assert heard == []
    with pytest.raises(ValueError, match="Called setValue"):
        slider.setValue("5")
    with pytest.raises(AttributeError, match="Property 'value' of type 'double' does not accept"):
        slider.value = "5"


def test_slider_without_tracking_tells_at_the_end_of_a_drag(ctk):
    slider = ctk.ctkSliderWidget()
    slider.tracking = False
    heard = listen(slider, "valueChanged(double)")
    moving = listen(slider, "valueIsChanging(double)")
    inner = slider.findChild("QSlider", "")
    inner.setSliderDown(True)
    inner.setValue(50000)
    assert moving and heard == []
    inner.setSliderDown(False)
    assert len(heard) == 1 and slider.value == heard[0][0]


def test_spin_box_has_both_signals(ctk):
    spin = ctk.ctkDoubleSpinBox()
    heard = listen(spin, "valueChanged(double)")
    spin.value = 1.23456
    assert spin.value == 1.23456 and heard == [(1.23456,)]
    texts = listen(spin, "valueChanged(QString)")
    spin.setValue(2)
    assert texts == [("2.00",)]


def test_range_keeps_its_ends_in_order(ctk):
    both = ctk.ctkRangeWidget()
    both.setRange(0, 10)
    heard = listen(both, "valuesChanged(double,double)")
    both.setValues(2, 8)
    both.minimumValue = 9
    assert (both.minimumValue, both.maximumValue) == (8, 8)
    both.maximum = 5
    assert (both.minimumValue, both.maximumValue) == (5, 5)
    assert heard == [(2, 8), (8, 8), (5, 5)]


# ---------------------------------------------------------------- choices
def test_a_path_of_two_endings_is_valid_by_its_last_one_only(host):
    """CTK takes *.nii.gz for *.nii, found in the application: such a file then gives no currentPathChanged."""
    import ctk

    line, heard = ctk.ctkPathLineEdit(), []
    line.connect("currentPathChanged(QString)", heard.append)
    line.nameFilters = ["Images (*.nii.gz *.nii)"]
    line.currentPath = "/data/a.nii.gz"
    assert heard == []
    line.currentPath = "/data/a.nii"
    line.nameFilters = ["Images (*.nii *.gz)"]
    line.currentPath = "/data/b.nii.gz"
    assert heard == ["/data/a.nii", "/data/b.nii.gz"]


def test_path_line_edit_tells_of_fitting_paths_only(ctk):
    line = ctk.ctkPathLineEdit()
    paths, valid = listen(line, "currentPathChanged(QString)"), listen(line, "validInputChanged(bool)")
    line.currentPath = "/nowhere/at/all"
    assert paths == [("/nowhere/at/all",)] and valid == [(True,)]
    line.nameFilters = ["*.nii"]
    line.currentPath = "/folder"
    line.currentPath = "/a.txt"
    line.currentPath = "/a.nii"
    line.currentPath = ""
    assert paths == [("/nowhere/at/all",), ("/a.nii",)]
    assert valid == [(True,), (False,), (True,), (False,)]
    assert ctk.ctkPathLineEdit.Dirs == 1 and line.filters & line.Files


def test_path_line_edit_asks_for_a_folder_or_a_file(ctk, qt, monkeypatch):
    line = ctk.ctkPathLineEdit()
    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *a: "/file")
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *a: "/folder")
    line.browse()
    assert line.currentPath == "/file"
    line.filters = ctk.ctkPathLineEdit.Dirs
    line.browse()
    assert line.currentPath == "/folder"


def test_checkable_combo_box(ctk, qt):
    combo = ctk.ctkCheckableComboBox()
    combo.addItems(["a", "b"])
    heard = listen(combo, "checkedIndexesChanged()")
    assert combo.noneChecked() and not combo.allChecked()
    combo.setCheckState(combo.model().index(1, 0), qt.Qt.Checked)
    assert heard == [()] and [i.row() for i in combo.checkedIndexes()] == [1]
    assert isinstance(combo.checkedIndexes(), tuple)
    combo.setCheckState(combo.model().index(0, 0), 2)
    assert combo.allChecked() and combo.checkState(combo.model().index(0, 0)) == qt.Qt.Checked


def test_colors_and_folders(ctk, qt, tmp_path):
    picker = ctk.ctkColorPickerButton()
    heard = listen(picker, "colorChanged(QColor)")
    picker.color = qt.QColor(255, 0, 0)
    picker.setColor(qt.QColor(255, 0, 0))
    assert len(heard) == 1 and picker.color == qt.QColor(255, 0, 0)
    folder = ctk.ctkDirectoryButton()
    heard = listen(folder, "directoryChanged(QString)")
    folder.directory = str(tmp_path)
    folder.directory = str(tmp_path)
    assert heard == [(str(tmp_path),)] and folder.directory == str(tmp_path)


def test_combo_box_shows_a_default(ctk):
    combo = ctk.ctkComboBox()
    combo.addItem("Fast", "fast")
    combo.addItem("Thorough", "slow")
    combo.defaultText = "Choose"
    combo.currentUserDataAsString = "slow"
    assert combo.currentText == "Thorough" and combo.currentUserDataAsString == "slow"


# ---------------------------------------------------------------- sections
@pytest.mark.parametrize("name", ["ctkCollapsibleButton", "ctkCollapsibleGroupBox"])
def test_folding(ctk, qt, name, qt_application):
    section = getattr(ctk, name)()
    layout = qt.QVBoxLayout(section)
    label, hidden = qt.QLabel("a"), qt.QLabel("b")
    layout.addWidget(label)
    layout.addWidget(hidden)
    hidden.hide()
    section.show()
    assert section.checked and not section.collapsed and label.visible and not hidden.visible
    section.collapsed = True
    assert not section.checked and not label.visible
    hidden.show()
    label.hide()
    assert not hidden.visible
    section.checked = True
    assert hidden.visible and not label.visible and not section.collapsed
    section.collapsed = True
    later = qt.QLabel("c")
    layout.addWidget(later)
    qt_application.processEvents()
    assert not later.visible
    section.hide()


def test_a_folded_section_tells_and_shrinks(ctk, qt):
    section = ctk.ctkCollapsibleButton()
    heard = listen(section, "contentsCollapsed(bool)")
    qt.QVBoxLayout(section).addWidget(qt.QTextEdit())
    section.text = "Section"
    section.show()
    tall = section.height
    section.click()
    assert section.collapsed and heard == [(True,)] and section.maximumHeight < tall
    section.setChecked(True)
    assert heard == [(True,), (False,)] and section.maximumHeight > 10000
    section.hide()


def test_all_widgets_can_be_drawn(ctk, qt_application):
    for name in [n for n in vars(ctk) if n.startswith("ctk")]:
        widget = getattr(ctk, name)()
        widget.show()
        qt_application.processEvents()
        assert not widget.grab().isNull(), name
        widget.hide()


def test_fitted_text_opens_at_its_link(ctk, qt):
    text = ctk.ctkFittedTextBrowser()
    text.setCollapsibleText("first\nsecond")
    assert "second" not in text.plainText
    text.anchorClicked.emit(qt.QUrl("#more"))
    assert "second" in text.plainText and text.collapsed is False


# ---------------------------------------------------------------- .ui files
UI = """<ui version="4.0"><widget class="QWidget" name="Form"><layout class="QVBoxLayout" name="all">
<item><widget class="ctkSliderWidget" name="slider"><property name="maximum"><double>5.0</double></property>
<property name="SlicerParameterName" stdset="0"><string>opacity</string></property>{property}</widget></item>
<item><widget class="QDoubleSpinBox" name="spin"/></item>{widget}</layout></widget>
<customwidgets><customwidget><class>ctkSliderWidget</class><extends>QWidget</extends></customwidget>{custom}
</customwidgets><connections><connection><sender>slider</sender><signal>valueChanged(double)</signal>
<receiver>spin</receiver><slot>{slot}(double)</slot></connection></connections></ui>"""


def ui(tmp_path, **parts):
    path = tmp_path / "Form.ui"
    path.write_text(UI.format(**{"property": "", "widget": "", "custom": "", "slot": "setValue", **parts}))
    return path


def test_ui_file(qt, ctk, tmp_path):
    from slicerhost import uiloader

    form = uiloader.loadUI(ui(tmp_path))
    slider, spin = form.findChild("ctkSliderWidget", "slider"), form.findChild(qt.QDoubleSpinBox, "spin")
    assert type(slider) is ctk.ctkSliderWidget and slider.SlicerParameterName == "opacity"
    assert slider.maximum == 5
    slider.value = 3
    assert spin.value == 3
    loaded = qt.QUiLoader().load(qt.QFile(str(ui(tmp_path))))
    assert loaded.slider.maximum == 5  # a child by its name


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"widget": '<item><widget class="ctkNosuch" name="x"/></item>'},
            "no such widget class, or no stand-in for it: ctkNosuch",
        ),
        (
            {"property": '<property name="maximun"><double>5</double></property>'},  # codespell:ignore maximun
            "ctkSliderWidget 'slider' has no property 'maximun'",
        ),
        ({"slot": "setValeu"}, "cannot connect slider.valueChanged"),
        (
            {"widget": '<item><widget class="ctkPathLineEdit" name="x"/></item>'},
            "ctkPathLineEdit is used but not listed in <customwidgets>",
        ),
    ],
)
def test_slips_in_ui_files_fail(qt_application, tmp_path, parts, message):
    from slicerhost import uiloader

    with pytest.raises(uiloader.UiError, match=f"Form.ui: {message}"):
        uiloader.loadUI(ui(tmp_path, **parts))


def test_variables_of_a_ui_file_lack_its_empty_layouts(host, tmp_path):
    """slicer.util passes over what is false."""
    import slicer

    text = """<?xml version="1.0"?><ui version="4.0"><class>A</class><widget class="QWidget" name="A">
      <layout class="QVBoxLayout" name="outer"><item><widget class="QPushButton" name="button"/></item>
      <item><layout class="QHBoxLayout" name="empty"/></item>
      <item><layout class="QHBoxLayout" name="full"><item><widget class="QLabel" name="label"/></item></layout></item>
      </layout></widget></ui>"""
    path = tmp_path / "A.ui"
    path.write_text(text, encoding="utf-8")
    ui = slicer.util.childWidgetVariables(slicer.util.loadUI(str(path)))
    assert {name for name in ("outer", "empty", "full", "button", "label") if hasattr(ui, name)} == {
        "outer",
        "full",
        "button",
        "label",
    }
