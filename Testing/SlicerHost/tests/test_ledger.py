# SPDX-License-Identifier: Apache-2.0
"""The ledger finds names that Slicer, CTK, Qt and VTK have not; stand-ins of Python files take what real ones take."""

from __future__ import annotations

import importlib
import inspect
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

pytestmark = pytest.mark.host


@pytest.fixture
def ledger(host):
    from slicerhost import ledger

    return ledger


@pytest.fixture(scope="module")
def names_lost(host):
    """The names used in a folder that are nowhere.

    Found by a process of its own: PySide6 invalidates the meta objects of classes once objects have handed them out.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _install) as pool:
        yield lambda folder: pool.submit(_lost, folder).result()


def _install():
    import slicerhost

    slicerhost.install()


def _lost(folder):
    from slicerhost import ledger

    return [use.name for use in ledger.used(folder) if ledger.where(use.name) is None]


UI = """<ui version="4.0"><widget class="qMRMLWidget" name="Bad">
<widget class="ctkSliderWidget" name="slider"/><widget class="QPushButton" name="button"/>
<widget class="qMRMLNodeComboBox" name="selector"/></widget></ui>"""


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("self.ui.slider.setRange(0, 1)", "ctkSliderWidget.setRange"),
        ("self.ui.button.enable = False", "QPushButton.enable"),
        ("self.ui.selector.setNoneEnabled(True)", "qMRMLNodeComboBox.setNoneEnabled"),
        ("self.ui.selector.connect('currentNodeChanged(vtkMRMLNode)', f)", None),
        ("self.ui.button.connect('pressed(bool)', f)", None),
        ("qt.QLabel.setTxt", "qt.QLabel.setTxt"),
        ("qt.Qt.AlignMiddle", "qt.Qt.AlignMiddle"),
        ("ctk.ctkSlideWidget()", "ctk.ctkSlideWidget"),
        ("slicer.util.arrayFromVolumes(v)", "slicer.util.arrayFromVolumes"),
        ("slicer.app.layoutManger()", "qSlicerApplication.layoutManger"),
        ("slicer.app.layoutManager().sliceWidgets('Red')", "qSlicerLayoutManager.sliceWidgets"),
        ("slicer.modules.segmentation.logic()", "slicer.modules.segmentation"),
        ("slicer.mrmlScene.AddNewNode('x')", "vtkMRMLScene.AddNewNode"),
        ("slicer.vtkMRMLSegmentationsNode()", "slicer.vtkMRMLSegmentationsNode"),
        ("node.GetDisplayNodes()", "VTK object.GetDisplayNodes"),
        ("x = qt.QTableWidget()\nx.setRowsCount(3)", "QTableWidget.setRowsCount"),
        ("from slicer.packaging import pip_assure", "slicer.packaging.pip_assure"),
        ("import SampleData\nSampleData.SampleDataLogic", ""),
        ("self.ui.slider.value = qt.Qt.AlignLeft\nself.ui.selector.currentNode().GetName()", ""),
    ],
)
def test_slips_are_found(names_lost, tmp_path, line, name):
    (tmp_path / "Bad.ui").write_text(UI, encoding="utf-8")
    (tmp_path / "Bad.py").write_text(line, encoding="utf-8")
    lost = names_lost(tmp_path)
    if name == "":
        assert lost == []
    elif name is None:
        assert len(lost) == 1 and ".connect " in lost[0]
    else:
        assert name in lost


def test_standins_of_python_files_take_what_the_real_ones_take(ledger):
    """Same functions and classes, same parameters in the same order; what a stand-in lacks is no error here."""
    wrong = []
    for module, entry in ledger.PYTHON_NAMES["files"].items():
        if module == "PyTorchUtils":  # no stand-in: it is tested as missing
            continue
        standin = importlib.import_module(module)
        for function, expected in entry["functions"].items():
            if hasattr(standin, function):
                wrong += compare(f"{module}.{function}", getattr(standin, function), expected)
        for cls, methods in entry["classes"].items():
            for method, expected in methods.items():
                member = getattr(getattr(standin, cls, None), method, None)
                if inspect.isfunction(member):
                    wrong += compare(f"{module}.{cls}.{method}", member, expected)
    assert not wrong, "\n".join(wrong)


def compare(name, function, expected) -> list[str]:
    given = []
    for parameter in inspect.signature(function).parameters.values():
        mark = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        given.append(mark + parameter.name + ("" if parameter.default is parameter.empty else "="))
    expected = [one for one in expected if not one.startswith("_")]
    given = [one for one in given if not one.startswith("_")]
    same = given == expected or any(one.startswith("*") for one in expected)
    return [] if same else [f"{name}({', '.join(given)}), in Slicer ({', '.join(expected)})"]


def test_standins_of_python_files_offer_nothing_more(ledger):
    """But for what only tests look at: `calls` and `hidden`."""
    ours = {"calls", "hidden", "PROPERTY", "connect", "Parameter"}
    wrong = []
    for module, entry in ledger.PYTHON_NAMES["files"].items():
        if module == "PyTorchUtils":  # no stand-in: it is tested as missing
            continue
        standin = importlib.import_module(module)
        known = {*entry["functions"], *entry["classes"], *ours}
        for public, member in vars(standin).items():
            if public.startswith("_") or inspect.ismodule(member) or public in known:
                continue
            if getattr(member, "__module__", "").startswith("slicerhost"):
                wrong.append(f"{module}.{public}")
    assert not wrong, wrong
