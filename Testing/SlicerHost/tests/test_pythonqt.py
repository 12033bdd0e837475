# SPDX-License-Identifier: Apache-2.0
"""The stand-in for PythonQt behaves as the real one: each row was seen there (Slicer 5.13's own libraries, Qt 5.15).

A row is an expression and what it gives: the repr of the value, or the error and the beginning of its message.
"""

from __future__ import annotations

import pathlib
import sys
import types

import pytest

pytest.importorskip("PySide6", reason="PySide6 is not installed (the host extra)")
pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def names(qt_application):
    """What the expressions of the tables may use."""
    import ctk
    import numpy
    import qt

    class Derived(qt.QWidget):
        def __init__(self, parent=None):
            super().__init__(parent)
            self.mine = 3

    class Empty(qt.QWidget):
        def __init__(self):
            pass

    def put(obj, name, value):
        setattr(obj, name, value)
        return getattr(obj, name)

    def after(obj, *calls):
        """The object after some calls: (name, argument, ...)."""
        for name, *arguments in calls:
            getattr(obj, name)(*arguments)
        return obj

    def deleted(obj):
        obj.delete()
        return obj

    return {
        "qt": qt,
        "ctk": ctk,
        "numpy": numpy,
        "Path": pathlib.PurePosixPath,
        "Derived": Derived,
        "Empty": Empty,
        "put": put,
        "after": after,
        "deleted": deleted,
    }


def outcome(expression: str, names: dict) -> str:
    try:
        return repr(eval(expression, dict(names)))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def check(expression: str, expected: str, names: dict) -> None:
    seen = outcome(expression, names)
    assert seen == expected or (expected.endswith("...") and seen.startswith(expected[:-3])), f"{expression} -> {seen}"


PROPERTIES = [
    ("qt.QLabel('a').text", "'a'"),
    ("qt.QLabel('a').text()", "TypeError: 'str' object is not callable"),
    ("qt.QSpinBox().value", "0"),
    ("after(qt.QComboBox(), ('addItem', 'a')).currentText", "'a'"),
    ("after(qt.QComboBox(), ('addItem', 'a')).count", "1"),
    ("after(qt.QComboBox(), ('addItem', 'a')).currentIndex", "0"),
    ("qt.QWidget().visible", "False"),
    ("qt.QWidget().enabled", "True"),
    ("qt.QWidget().width", "640"),
    ("qt.QWidget().size.width()", "640"),
    ("qt.QProgressDialog().wasCanceled", "False"),
    ("qt.QTextEdit('x').plainText", "'x'"),
    # methods that are no getters of a property of the same name
    ("qt.QCheckBox().isChecked()", "False"),
    ("qt.QWidget().isVisible()", "False"),
    ("qt.QTextEdit('x').toPlainText()", "'x'"),
    ("qt.QWidget().parent()", "None"),
    ("qt.QWidget().layout()", "None"),
    ("qt.QWidget().children()", "()"),
    ("after(qt.QComboBox(), ('addItem', 'a')).itemText(0)", "'a'"),
    ("qt.QTimer().isActive()", "False"),
    ("qt.QProcess().state()", "0"),
    ("qt.QVBoxLayout().count()", "0"),
    ("qt.QFormLayout().rowCount()", "0"),
    ("qt.QCheckBox().checkState()", "0"),
    # unknown names
    ("qt.QLabel().nosuch", "AttributeError: QLabel has no attribute named 'nosuch'"),
    ("hasattr(qt.QLabel(), 'nosuch')", "False"),
    # names that PySide6 has and PythonQt does not wrap
    (
        "qt.QVBoxLayout().getContentsMargins()",
        "AttributeError: QVBoxLayout has no attribute named 'getContentsMargins'...",
    ),
    ("hasattr(qt, 'QVersionNumber'), hasattr(qt, 'QSvgWidget'), hasattr(qt, 'QTimer')", "(False, False, True)"),
    (
        "put(qt.QLabel(), 'fooBar', 1)",
        "AttributeError: 'fooBar' does not exist on QLabel and creating new attributes on C++ objects is not allowed",
    ),
    ("put(qt.QLabel(), '_private', 1)", "AttributeError: '_private' does not exist on QLabel and creating new..."),
    # dynamic properties, children by name
    ("after(qt.QLabel(), ('setProperty', 'extra', 5)).extra", "5"),
    ("put(after(qt.QLabel(), ('setProperty', 'extra', 5)), 'extra', 6)", "6"),
    ("put(qt.QLabel(), 'name', 'n')", "'n'"),
    ("put(qt.QLabel(), 'objectName', 'n')", "'n'"),
    # Python subclasses
    ("Derived().mine", "3"),
    ("put(Derived(), 'other', 4)", "4"),
    ("put(Derived(), 'x', 1)", "AttributeError: Property 'x' of Derived object is not writable"),
    ("put(Derived(), 'size', 3)", "AttributeError: Property 'size' of type 'QSize' does not accept..."),
    ("put(Derived(), 'layout', 1)", "AttributeError: Slot 'layout' can not be overwritten on Derived object"),
    ("Derived().nosuch", "AttributeError: QWidget has no attribute named 'nosuch'"),
    # calls
    ("qt.QLabel(text='a')", "ValueError: Called QLabel... with keyword arguments, but called slot does not..."),
    ("qt.QLabel().setText(text='a')", "ValueError: Called setText... with keyword arguments, but called slot does..."),
    ("put(qt.QLabel(), 'setText', 1)", "AttributeError: Slot 'setText' can not be overwritten on QLabel object"),
    (
        "put(qt.QPushButton(), 'clicked', 1)",
        "AttributeError: Signal 'clicked' can not be overwritten on QPushButton...",
    ),
    ("put(qt.QCheckBox(), 'setText', None)", "AttributeError: Slot 'setText' can not be overwritten on QCheckBox..."),
]

CONVERSIONS = [
    ("after(qt.QLabel(), ('setText', None)).text", "'None'"),
    ("after(qt.QLabel(), ('setText', 5)).text", "'5'"),
    ("after(qt.QLabel(), ('setText', ['a'])).text", "\"['a']\""),
    ("after(qt.QLabel(), ('setText', Path('/a/b'))).text", "'/a/b'"),
    ("put(qt.QLabel(), 'text', 5)", "'5'"),
    ("after(ctk.ctkPathLineEdit(), ('setCurrentPath', None)).currentPath", "'None'"),
    ("put(qt.QWidget(), 'enabled', '')", "False"),
    ("put(qt.QCheckBox(), 'checked', 'yes')", "True"),
    ("after(qt.QCheckBox(), ('setChecked', 'a')).checked", "True"),
    ("after(qt.QCheckBox(), ('setChecked', None)).checked", "False"),
    ("put(qt.QSpinBox(), 'value', 5.7)", "5"),
    ("after(qt.QSpinBox(), ('setValue', 5.7)).value", "5"),
    ("after(qt.QSpinBox(), ('setMinimum', -9), ('setValue', -5.2)).value", "-6"),
    ("after(qt.QSpinBox(), ('setValue', numpy.int64(7))).value", "7"),
    ("after(qt.QDoubleSpinBox(), ('setValue', numpy.float32(0.5))).value", "0.5"),
    ("after(qt.QDoubleSpinBox(), ('setValue', 3)).value", "3.0"),
    ("qt.QSpinBox().setValue('5')", "ValueError: Called setValue(int) with wrong arguments: ('5',)"),
    (
        "put(qt.QDoubleSpinBox(), 'value', '3')",
        "AttributeError: Property 'value' of type 'double' does not accept an object of type str ('3')",
    ),
    ("put(qt.QSpinBox(), 'value', None)", "AttributeError: Property 'value' of type 'int' does not accept..."),
    ("qt.QSpinBox().setValue(1, 2)", "ValueError: Called setValue(int) with wrong number of arguments: (1, 2)"),
    ("qt.QSpinBox().setValue()", "ValueError: ..."),
    ("qt.QComboBox().addItem()", "ValueError: Could not find matching overload for given arguments:..."),
    ("put(qt.QPushButton(), 'icon', 'x.png')", "AttributeError: Property 'icon' of type 'QIcon' does not accept..."),
    # any value is a text where an overload takes one, but a Qt object is no text, number or bool
    ("after(qt.QComboBox(), ('addItem', Path('/a'))).itemText(0)", "'/a'"),
    ("after(qt.QComboBox(), ('addItem', numpy.int64(3))).itemText(0)", "'3'"),
    ("qt.QLabel(Path('/a')).text", "'/a'"),
    ("qt.QToolButton().setText(qt.QLabel('a'))", "ValueError: Called setText(QString..."),
    ("qt.QCheckBox().setEnabled(qt.QLabel('a'))", "ValueError: Called setEnabled(bool..."),
    ("qt.QTabBar().addTab(qt.QLabel('a'))", "ValueError: Could not find matching overload for given arguments:..."),
    ("ctk.ctkPathLineEdit().setCurrentPath(qt.QLabel('a'))", "ValueError: Called setCurrentPath(QString..."),
    ("qt.QComboBox().addItems({'a': 1})", "ValueError: Called addItems(..."),
    ("qt.QLabel().setPixmap(None)", "ValueError: Called setPixmap(..."),
    ("qt.QTableWidgetItem('a').setFont(numpy.zeros(3))", "ValueError: Called setFont(..."),
    ("qt.QIcon(qt.QLabel('a'))", "ValueError: Could not find matching overload for given arguments:..."),
    # a value alone where C++ writes a second one through a pointer
    ("qt.QLocale('C').toInt('5'), qt.QLocale('C').toDouble('0.5')", "(5, 0.5)"),
    ("qt.QByteArray(b'5').toInt(), type(qt.QTransform().inverted()).__name__", "(5, 'QTransform')"),
    # overloads and numbers of arguments that PySide6 has and PythonQt has not (overloads.json)
    ("qt.QWidget().addAction('a')", "ValueError: ..."),
    ("qt.QAction('a', qt.QWidget()).setShortcut('A')", "ValueError: ..."),
    ("qt.QShortcut('A', qt.QWidget())", "ValueError: Could not find matching overload for given arguments:..."),
    ("type(qt.QShortcut(qt.QKeySequence('A'), qt.QWidget())).__name__", "'QShortcut'"),
    ("type(qt.QMenu().addAction('a', print)).__name__", "'QAction'"),
    ("qt.QProcess().waitForReadyRead()", "ValueError: Called waitForReadyRead(int..."),
    ("qt.QSettings().value('a', 5, int)", "ValueError: Could not find matching overload for given arguments:..."),
    ("qt.QFormLayout().getItemPosition(0)", "ValueError: Called getItemPosition(int..."),
    # properties of enums take members, numbers and names, nothing that would have to be converted
    ("put(qt.QComboBox(), 'insertPolicy', 2)", "2"),
    ("put(qt.QComboBox(), 'insertPolicy', 'NoInsert')", "0"),
    ("put(qt.QComboBox(), 'insertPolicy', 'nosuch')", "AttributeError: Property 'insertPolicy' of type..."),
    ("put(qt.QComboBox(), 'insertPolicy', 2.0)", "AttributeError: Property 'insertPolicy' of type..."),
    ("put(qt.QComboBox(), 'insertPolicy', True)", "AttributeError: Property 'insertPolicy' of type..."),
    ("put(qt.QComboBox(), 'insertPolicy', numpy.int64(2))", "AttributeError: Property 'insertPolicy' of type..."),
    ("put(ctk.ctkPathLineEdit(), 'filters', 2)", "2"),
    ("put(ctk.ctkPathLineEdit(), 'filters', 2.0)", "AttributeError: Property 'filters' of type..."),
    # lists come back as tuples
    ("after(qt.QFileDialog(), ('setNameFilters', ['a (*.a)', 'b (*.b)'])).nameFilters()", "('a (*.a)', 'b (*.b)')"),
    ("type(after(qt.QWidget(), ('setLayout', qt.QVBoxLayout())).children())", "<class 'tuple'>"),
    ("after(qt.QComboBox(), ('addItem', 'a', [1, 'b'])).itemData(0)", "(1, 'b')"),
    ("put(ctk.ctkPathLineEdit(), 'nameFilters', ['*.nii'])", "('*.nii',)"),
    ("ctk.ctkCheckableComboBox().checkedIndexes()", "()"),
    # enums
    ("isinstance(qt.Qt.AlignLeft, int), qt.Qt.AlignLeft", "(True, 1)"),
    ("type(qt.Qt.AlignLeft).__name__", "'AlignmentFlag'"),
    ("hasattr(qt.Qt.AlignLeft, 'name')", "False"),
    ("type(qt.Qt.AlignLeft | qt.Qt.AlignTop)", "<class 'int'>"),
    ("qt.Qt.Checked == 2, qt.Qt.AlignmentFlag.AlignLeft == qt.Qt.AlignLeft", "(True, True)"),
    ("after(qt.QLabel(), ('setAlignment', 33)).alignment", "33"),
    ("type(qt.QLabel().alignment)", "<class 'int'>"),
    ("put(qt.QLabel(), 'alignment', qt.Qt.AlignRight | qt.Qt.AlignTop)", "34"),
    ("after(qt.QCheckBox(), ('setCheckState', 2)).checkState() == qt.Qt.Checked", "True"),
    ("after(qt.QCheckBox(), ('setCheckState', qt.Qt.Checked)).checkState()", "2"),
    ("qt.QMessageBox.Yes | qt.QMessageBox.No", "81920"),
    ("put(qt.QSlider(), 'orientation', 1)", "1"),
    ("after(qt.QListWidgetItem('a'), ('setCheckState', 2)).checkState()", "2"),
    ("qt.QColor(qt.Qt.red).name()", "'#ff0000'"),
    ("qt.QPalette().setColor(qt.QPalette.Window, qt.Qt.red)", "None"),
    # bytes
    ("qt.QByteArray(b'ab').data()", "b'ab'"),
    ("str(qt.QByteArray(b'ab'))", "\"b'ab'\""),
    ("qt.QByteArray(b'ab') == b'ab'", "True"),
    ("len(qt.QByteArray(b'ab'))", "TypeError: ..."),
    ("bytes(qt.QByteArray(b'ab'))", "TypeError: ..."),
]

OTHER = [
    (
        "qt.QFormLayout().setRowVisible(0, False)",
        "AttributeError: QFormLayout has no attribute named 'setRowVisible' in Qt 5.15...",
    ),
    ("hasattr(qt.QCheckBox(), 'checkStateChanged'), hasattr(qt.QCheckBox(), 'stateChanged')", "(False, True)"),
    ("qt.QCheckBox().connect('checkStateChanged(Qt::CheckState)', print)", "False"),
    ("hasattr(qt, 'QVariant'), hasattr(qt, 'toBool')", "(False, False)"),
    ("callable(qt.QDialog.exec_), callable(qt.QDialog.exec)", "(True, True)"),
    ("qt.QWidget().findChildren()", "ValueError: Could not find matching overload..."),
    ("qt.QWidget().findChild(qt.QLabel, 'a')", "None"),
    ("qt.QWidget().findChild('QLabel', 'a')", "None"),
    ("qt.QLabel().className()", "'QLabel'"),
    ("callable(qt.QTimer.singleShot), callable(qt.QTimer().singleShot)", "(True, True)"),
    ("qt.QObject().nosuch", "AttributeError: QObject has no attribute named 'nosuch'"),
    # lifetime
    ("deleted(qt.QLabel()).text", "ValueError: Trying to read property 'text' from a destroyed QLabel object"),
    ("deleted(qt.QWidget()).show()", "ValueError: Trying to call 'show' on a destroyed QWidget object"),
    (
        "put(deleted(qt.QLabel()), 'text', 'a')",
        "AttributeError: Trying to set property 'text' on a destroyed QLabel object",
    ),
    ("bool(deleted(qt.QLabel())), bool(qt.QLabel())", "(False, True)"),
    ("Empty().show()", "ValueError: Trying to call 'show' on a destroyed QWidget object"),
    ("deleted(ctk.ctkSliderWidget()).setValue(1)", "ValueError: Trying to call 'setValue' on a destroyed ctkSlider..."),
]


@pytest.mark.parametrize(("expression", "expected"), PROPERTIES)
def test_properties_and_names(expression, expected, names):
    if "... with keyword" in expected:  # the signature in between is the library's own
        seen = outcome(expression, names)
        assert seen.startswith(expected.split("...")[0])
        assert "with keyword arguments, but called slot does not support kwargs" in seen
        return
    check(expression, expected, names)


@pytest.mark.parametrize(("expression", "expected"), CONVERSIONS)
def test_conversions(expression, expected, names):
    check(expression, expected, names)


@pytest.mark.parametrize(("expression", "expected"), OTHER)
def test_lifetime_and_the_rest(expression, expected, names):
    check(expression, expected, names)


@pytest.mark.filterwarnings("ignore:pyside_type_init")  # defaults that PySide6 cannot read itself
def test_the_table_of_overloads_speaks_of_overloads_that_pyside6_has(names):
    from slicerhost import calls

    for name, members in calls._overloads.items():
        cls = getattr(names["qt"], name)
        for member, overloads in members.items():
            function = cls if member == "__init__" else vars(cls)[member].function
            assert set(overloads) <= {found[2] for found in calls.signaturesOf(function)}, (name, member)


def test_a_slot_can_be_replaced_on_the_class_and_set_back(names, monkeypatch):
    qt = names["qt"]
    monkeypatch.setattr(qt.QMessageBox, "question", lambda *arguments: qt.QMessageBox.Yes)
    assert qt.QMessageBox.question(None, "a", "b") == qt.QMessageBox.Yes
    with monkeypatch.context() as patch:
        patch.setattr(qt.QLabel, "setText", lambda self, text: self.setToolTip(text))
        label = qt.QLabel()
        label.setText("a")
        assert (label.text, label.toolTip) == ("", "a")
    label.setText("b")
    assert label.text == "b"


def test_a_layout_keeps_its_widgets_and_their_identity(names):
    qt = names["qt"]
    parent = qt.QWidget()
    layout = qt.QVBoxLayout(parent)
    layout.addWidget(qt.QLabel("kept"))
    label = layout.itemAt(0).widget()
    assert label.text == "kept"
    assert label.parent() is parent and parent.layout() is layout and layout.itemAt(0).widget() is label
    label.objectName = "hello"
    assert parent.hello is label


def test_settings_keep_the_types_of_values(names, tmp_path):
    settings = names["qt"].QSettings(str(tmp_path / "a.ini"), names["qt"].QSettings.IniFormat)
    for value in (5, "5", True, 0.5, "text", ("a", "b")):
        settings.setValue("key", value)
        assert settings.value("key") == value
        assert type(settings.value("key")) is type(value)


# ---------------------------------------------------------------- signals
@pytest.fixture
def button(names):
    from slicerhost import pythonqt

    pythonqt.complaints.clear()
    yield names["qt"].QPushButton()
    pythonqt.complaints.clear()


def test_connect_and_disconnect_tell_whether_they_did(button, capsys):
    def slot():
        pass

    assert button.connect("clicked(bool)", slot) is True
    assert button.clicked.connect(slot) is True
    assert button.connect("nosuch()", slot) is False
    assert "PythonQt: QObject::connect() signal 'nosuch()' does not exist on QPushButton" in capsys.readouterr().err
    assert button.connect("clicked", slot) is False  # the signature is required
    assert button.connect("clicked(bool)", "no function") is True
    assert button.disconnect("clicked(bool)", slot) is True
    assert button.disconnect("clicked(bool)", slot) is True  # it was connected twice
    assert button.disconnect("clicked(bool)", slot) is False


def test_arguments_are_trimmed_to_what_a_slot_takes(button):
    seen = []
    button.connect("clicked(bool)", lambda: seen.append("none"))
    button.connect("clicked(bool)", lambda x: seen.append(x))
    button.connect("clicked(bool)", lambda x=7: seen.append(("default", x)))
    button.connect("clicked(bool)", lambda *a: seen.append(a))
    button.connect("clicked()", lambda *a: seen.append(a))
    button.click()
    assert seen == ["none", False, ("default", False), (False,), ()]
    seen.clear()
    button.clicked(True)
    button.clicked.emit(True)
    assert seen[1] is True and len(seen) == 10


def test_an_error_in_a_slot_is_printed_and_the_next_slot_runs(button, capsys):
    from slicerhost import pythonqt

    seen = []
    button.connect("clicked(bool)", lambda a, b: seen.append("never"))
    button.connect("clicked(bool)", lambda: 1 / 0)
    button.connect("clicked(bool)", lambda: seen.append("last"))
    button.click()
    assert seen == ["last"]
    assert [type(c) for c in pythonqt.complaints] == [TypeError, ZeroDivisionError]
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_bound_methods_can_be_disconnected(button):
    class Receiver:
        def __init__(self):
            self.seen = 0

        def slot(self):
            self.seen += 1

    receiver = Receiver()
    button.clicked.connect(receiver.slot)
    button.click()
    assert button.clicked.disconnect(receiver.slot) is True
    assert button.clicked.disconnect(receiver.slot) is False
    button.click()
    assert receiver.seen == 1


def test_a_signal_of_python_connects_by_name_only(names, button):
    qt = names["qt"]

    class Sender(qt.QObject):
        told = qt.Signal(int)

    sender, seen = Sender(), []
    sender.told.connect(seen.append)
    assert sender.connect("told(int)", seen.append) is False
    sender.told.emit(5)
    assert seen == [5]


def test_a_slot_of_qt_can_receive(names, button):
    label = names["qt"].QLabel()
    edit = names["qt"].QLineEdit()
    assert edit.connect("textChanged(QString)", label, "setText(QString)") is True
    edit.setText("through")
    assert label.text == "through"


def test_an_error_in_an_override_is_printed(names, button, capsys):
    from slicerhost import pythonqt

    class Broken(names["qt"].QWidget):
        def resizeEvent(self, event):
            raise ValueError("no")

    Broken().show()
    assert [type(c) for c in pythonqt.complaints] == [ValueError]
    assert "ValueError" in capsys.readouterr().err


def test_process(names):
    qt = names["qt"]
    process, ends = qt.QProcess(), []
    process.connect("finished(int,QProcess::ExitStatus)", lambda *a: ends.append(a))
    process.start(sys.executable, ["-c", "print('out'); raise SystemExit(3)"])
    assert process.waitForFinished(30000)
    assert ends == [(3, 0)] and all(isinstance(n, int) for n in ends[0])
    assert process.readAllStandardOutput().data().strip() == b"out"
    assert process.program() == sys.executable and process.arguments()[0] == "-c"
    errors = []
    process.connect("errorOccurred(QProcess::ProcessError)", errors.append)
    process.start("/no/such/program", [])
    assert process.waitForStarted(2000) is False
    assert errors == [0]
    process.start(sys.executable, ["-c", "import time; time.sleep(60)"])
    assert process.waitForStarted(30000)
    process.kill()
    assert process.waitForFinished(10000)
    assert (process.exitStatus(), process.exitCode()) == (1, 9)


def test_single_shot(names, button, qt_application):
    qt, seen = names["qt"], []
    qt.QTimer.singleShot(0, lambda: seen.append("static"))
    timer = qt.QTimer()
    timer.setSingleShot(True)
    assert isinstance(timer.singleShot, types.FunctionType)
    timer.connect("timeout()", lambda: seen.append("timer"))
    timer.start(0)
    for _ in range(20):
        qt_application.processEvents()
    assert sorted(seen) == ["static", "timer"]


def test_a_layout_with_nothing_to_show_is_false(qt_application):
    import qt

    widget = qt.QWidget()
    layout = qt.QVBoxLayout(widget)
    assert not layout and layout is not None and bool(widget)
    button = qt.QPushButton("a")
    layout.addWidget(button)
    assert layout
    button.visible = False
    assert not layout
    layout.addStretch(1)
    assert not layout.itemAt(1) and layout.itemAt(1).spacerItem() is not None
