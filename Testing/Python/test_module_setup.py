# SPDX-License-Identifier: Apache-2.0
"""The section that says what is missing for prediction and training, and repairs it; nothing is really installed."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from barl.project.database import FILE_NAME
from barl.project.labels import Channel, Label
from barl.project.model_card import CARD_FILE, WEIGHTS_FILE
from barl.project.store import Project
from packaging.specifiers import SpecifierSet
from slicerhost.clicks import press, waitUntil

pytestmark = pytest.mark.host
REPOSITORY = Path(__file__).resolve().parents[2]
RESOURCES = REPOSITORY / "BARLSegmentation" / "Resources"
NAMES = ("torch", "packages", "gpu", "disk", "models")
FOUND = {
    "python": "3.12.10",
    "system": "Linux x86_64",
    "torch": {"version": "2.8.0+cu128", "cuda": "12.8", "complete": True},
    "packages": {"monai": "1.5.0", "safetensors": "0.5.3"},
    "others": {"numpy": "2.0.2", "scipy": "1.14.1", "SimpleITK": "2.3.1"},
    "cards": {"names": ["NVIDIA RTX A4000, 16376 MiB"], "driver": "570.86", "cuda": "12.8"},
    "disk": 200 * 2**30,
    "models": {},
}
NEEDED = {"monai": SpecifierSet(">=1.4"), "safetensors": SpecifierSet(">=0.4")}


def wait(panel):
    waitUntil(lambda: panel.isIdle, 60)


def found(**changes) -> dict:
    return {**copy.deepcopy(FOUND), **changes}


def show(panel, what, names=None):
    """As if ``what`` had been found."""
    panel.requirements = dict(NEEDED)
    panel.judge(what, names or {})


class NoWorker:
    """Stands for the worker, which these tests must not start: counts how often it was ended."""

    python = sys.executable
    closed = 0
    used = ("", "")

    def use(self, computer, python):
        self.used = (computer, python)

    def environment(self):
        import qt

        return qt.QProcessEnvironment.systemEnvironment()

    def close(self):
        self.closed += 1


@pytest.fixture
def a_panel(a_panel_of):
    return a_panel_of("Setup", NoWorker(), height=300)


def a_model(folder: Path, content: bytes = b"weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(content)
    (folder / "model.json").write_text(json.dumps({"weights_sha256": hashlib.sha256(content).hexdigest()}))
    return folder


@pytest.fixture
def a_project(tmp_path) -> Path:
    with Project.create(tmp_path / "Doe_Jane", "study", [Label(1, "x")], [Channel("CT")]) as project:
        project.models.add(a_model(tmp_path / "model"), {}, name="first")
    return tmp_path / "Doe_Jane"


# Looking up


def test_look_at_this_python_imports_nothing_heavy(a_panel, a_project):
    before = set(sys.modules)  # tests of the engine in this process may have imported it
    assert not a_panel.ui.reportButton.enabled and "first" in a_panel.ui.reportButton.toolTip
    a_panel.session.openProject(a_project)
    a_panel.widget.hide()
    a_panel.widget.show()
    a_panel.opened()
    wait(a_panel)
    import importlib.metadata

    for name, version in a_panel.found["packages"].items():
        try:
            assert version == importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            assert version is None
    assert a_panel.ui.diskLabel.text.endswith("GiB free for the project.")
    assert a_panel.ui.modelsLabel.text == "1 model is as saved (checksum)."
    assert not {"torch", "monai", "safetensors", "jsonschema"} & (set(sys.modules) - before)


@pytest.mark.skipif(os.name != "posix", reason="the launcher is a shell script")
def test_banner_of_the_interpreter_is_forgiven(a_panel, tmp_path):
    launcher = tmp_path / "PythonSlicer"
    launcher.write_text(f'#!/bin/sh\necho "Switch to module: Welcome"\nexec {sys.executable} "$@"\n')
    launcher.chmod(0o755)
    a_panel.worker.python = str(launcher)
    a_panel.check()
    wait(a_panel)
    assert a_panel.said == [] and a_panel.found["python"] == ".".join(map(str, sys.version_info[:3]))


def test_environment_script_needs_the_standard_library_only(tmp_path):
    script = REPOSITORY / "BARLSegmentation" / "BARLSegmentationLib" / "logic" / "Environment.py"
    command = [sys.executable, "-I", "-S", str(script), "monai,psutil", "", CARD_FILE, WEIGHTS_FILE, str(tmp_path)]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    assert answer["torch"] is None and answer["packages"] == {"monai": None, "psutil": None}, (
        "-S hides what is installed"
    )
    assert answer["models"] == {str(tmp_path): "missing"} and answer["disk"] is None


def test_torch_is_judged_by_its_files(tmp_path, monkeypatch):
    from BARLSegmentationLib.logic import Environment

    package, info = tmp_path / "torch", tmp_path / "torch-2.8.0+cu128.dist-info"
    (package / "lib").mkdir(parents=True)
    info.mkdir()
    (package / "version.py").write_text("from typing import Optional\ncuda: Optional[str] = '12.8'\nhip = None\n")
    (package / "__init__.py").write_text("raise AssertionError('it was imported')\n")
    (package / "lib" / "libtorch.so").write_bytes(b"")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.8.0+cu128\n")
    (info / "RECORD").write_text("torch/version.py,,\ntorch/__init__.py,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Environment.torchBuild() == {"version": "2.8.0+cu128", "cuda": "12.8", "complete": True, "cudnn": ""}
    (package / "lib" / "libtorch.so").unlink()
    assert Environment.torchBuild()["complete"] is False
    (package / "lib" / "libtorch.so").write_bytes(b"")
    (package / "version.py").write_text("cuda: Optional[str] = None\n")
    assert Environment.torchBuild()["cuda"] == ""


def test_cards_are_read_from_the_drivers_tool(tmp_path, monkeypatch):
    from BARLSegmentationLib.logic import Environment

    monkeypatch.setenv("PATH", str(tmp_path))
    assert Environment.graphicsCards()["names"] == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "print('NVIDIA RTX A4000, 16376 MiB, 570.86' if len(sys.argv) > 1 else '| CUDA Version: 12.8 |')\n"
    )
    tool.chmod(0o755)
    assert Environment.graphicsCards() == FOUND["cards"]
    tool.write_text(f"#!{sys.executable}\nraise SystemExit('no driver')\n")
    assert Environment.graphicsCards()["names"] == []


def test_model_whose_bytes_changed_is_found(tmp_path):
    from BARLSegmentationLib.logic.Environment import modelState

    folder = a_model(tmp_path / "m")
    assert modelState(folder, CARD_FILE, WEIGHTS_FILE) == "sound"
    (folder / "weights.safetensors").write_bytes(b"weightz")
    assert modelState(folder, CARD_FILE, WEIGHTS_FILE) == "altered"
    (folder / "model.json").write_text("{")
    assert modelState(folder, CARD_FILE, WEIGHTS_FILE) == "unreadable"
    (folder / "weights.safetensors").unlink()
    assert modelState(tmp_path / "none", CARD_FILE, WEIGHTS_FILE) == "missing"


def test_python_that_cannot_be_started_is_one_sentence(a_panel, tmp_path):
    a_panel.worker.python = str(tmp_path / "no-python")
    press(a_panel.ui.checkButton)
    wait(a_panel)
    assert a_panel.said[-1][0] and a_panel.said[-1][1].startswith("The conditions could not be looked up (")
    assert a_panel.said[-1][1].endswith("Choose another Python, or none, in Where it computes.")
    assert a_panel.ui.checkButton.enabled and a_panel.ui.torchLabel.text == "Not looked up yet."
    nonsense = tmp_path / "nonsense"
    nonsense.write_text(f"#!{sys.executable}\nprint('hello')\n")
    nonsense.chmod(0o755)
    a_panel.worker.python = str(nonsense)
    press(a_panel.ui.checkButton)
    assert not a_panel.ui.checkButton.enabled and "being looked up" in a_panel.ui.checkButton.toolTip
    wait(a_panel)
    assert a_panel.said[-1][0] and "could not be looked up" in a_panel.said[-1][1]


# Judging


@pytest.mark.parametrize(
    ("what", "name", "text", "repair"),
    [
        (found(), "torch", "2.8.0+cu128 for CUDA 12.8.", ""),
        (found(torch=None), "torch", "Not installed: prediction and training need it.", "Install"),
        (
            found(torch={"version": "2.8.0+cu128", "cuda": "12.8", "complete": False}),
            "torch",
            "2.8.0+cu128 for CUDA 12.8: its installation is incomplete.",
            "Reinstall",
        ),
        (
            found(torch={"version": "2.3.1", "cuda": "", "complete": True}),
            "torch",
            "2.3.1 for the CPU is too old; 2.4.1 or newer is needed.",
            "Update",
        ),
        (
            found(torch={"version": "2.10.0", "cuda": "13.0", "complete": True}),
            "torch",
            "2.10.0 for CUDA 13.0 is newer than what the graphics driver can run (CUDA 12.8).",
            "Reinstall",
        ),
        (
            found(torch={"version": "2.9.1+cu128", "cuda": "12.8", "complete": True, "cudnn": "9.10.2.21"}),
            "torch",
            "PyTorch 2.9.1+cu128 is slow with 3D convolutions in half precision on NVIDIA cards: BARL computes in full "
            "precision with it; PyTorch 2.10 is faster.",
            "Update",
        ),
        (
            found(torch={"version": "2.8.0+cpu", "cuda": "", "complete": True}),
            "gpu",
            "NVIDIA RTX A4000, 16376 MiB is there, but the installed PyTorch cannot use it.",
            "Reinstall",
        ),
        (found(), "gpu", "NVIDIA RTX A4000, 16376 MiB, driver 570.86.", ""),
        (found(packages={"monai": None, "safetensors": ""}), "packages", "Missing: monai, safetensors.", "Install"),
        (found(packages={"monai": "1.3.9", "safetensors": "0.10"}), "packages", "Too old: monai.", "Update"),
        (found(), "packages", "monai 1.5.0, safetensors 0.5.3.", ""),
        (
            found(disk=2**31),
            "disk",
            "2 GiB free for the project. A training may need more; free some space.",
            "Show folder",
        ),
        (found(disk=None), "disk", "No project is open.", ""),
        (found(models={"m": "altered"}), "models", "first: its weights are not as they were saved.", "Restore..."),
        (found(models={"m": "sound", "n": "sound"}), "models", "2 models are as saved (checksum).", ""),
    ],
)
def test_each_condition_is_one_sentence_with_one_button(a_panel, what, name, text, repair):
    show(a_panel, what, {"m": "first", "n": "second"})
    ui = a_panel.ui
    button = getattr(ui, f"{name}Button")
    assert getattr(ui, f"{name}Label").text == text
    assert button.visible is bool(repair)
    assert not repair or (button.text == repair and button.enabled and button.toolTip)


def test_report_names_no_patient_and_no_folder(a_panel, a_project):
    import slicer

    a_panel.session.openProject(a_project)
    wait(a_panel)
    press(a_panel.ui.reportButton)
    text = slicer.app.clipboard().text()
    assert text.startswith("BARL ") and "models: sound" in text and "torch: " in text
    assert not {"Doe", "/", "\\", str(Path.home()), "study"} & {
        part for part in ("Doe", "/", "\\", "study") if part in text
    }
    assert a_panel.said[-1] == (False, "Copied the report; it names no patient and no folder.")


# Repairing


# ruff: noqa: N802


@pytest.fixture
def pytorch(monkeypatch):
    """The PyTorch extension as far as the button needs it; installs nothing and says what it was asked."""
    calls = []

    class Logic:
        answer = object()

        def installTorch(self, askConfirmation=False, forceComputationBackend=None, torchVersionRequirement=None):
            calls.append(("install", askConfirmation, torchVersionRequirement))
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        def uninstallTorch(self, askConfirmation=False):
            calls.append(("uninstall",))

    module = SimpleNamespace(PyTorchUtilsLogic=Logic, calls=calls)
    monkeypatch.setitem(sys.modules, "PyTorchUtils", module)
    return module


@pytest.mark.parametrize("torch", [None, {"version": "2.2.2", "cuda": "", "complete": True}])
def test_a_mac_with_an_intel_processor_has_no_button_that_cannot_succeed(a_panel, torch):
    cards = {"names": [], "driver": "", "cuda": ""}
    show(a_panel, found(system="Darwin x86_64", torch=torch, packages=dict.fromkeys(NEEDED), cards=cards))
    assert "2.2.2 is the last one for macOS on Intel" in a_panel.ui.torchLabel.text
    assert "reviewing" in a_panel.ui.torchLabel.text and "another computer" in a_panel.ui.torchLabel.text
    assert [getattr(a_panel.ui, f"{name}Button").visible for name in NAMES] == [False] * 5
    show(a_panel, found(system="Darwin arm64", torch=torch, packages=dict.fromkeys(NEEDED), cards=cards))
    assert a_panel.ui.torchButton.visible and a_panel.ui.packagesButton.visible


def test_prediction_and_training_say_why_not_where_there_is_no_torch(a_module, a_project, monkeypatch):
    from barl import torch_support
    from BARLSegmentationLib.logic import Training

    panel, reason = a_module.panels["Predict"], "PyTorch is not to be had here."
    monkeypatch.setattr(torch_support, "reason_against", lambda: reason)
    panel.updateApply()
    assert not panel.ui.applyButton.enabled and reason in panel.ui.applyButton.toolTip
    with Project.open(a_project) as project:
        assert Training.reasonAgainstStart(project, project.cases.all(), project.runs.all()) == reason
    monkeypatch.undo()
    panel.updateApply()
    assert reason not in panel.ui.applyButton.toolTip


def test_torch_is_installed_by_its_extension(a_panel, pytorch):
    show(a_panel, found(torch=None))
    press(a_panel.ui.torchButton)
    assert pytorch.calls == [("install", True, ">=2.4.1")]
    assert a_panel.worker.closed == 1, "the worker must not hold its files"
    assert a_panel.said[-1] == (False, "PyTorch is installed. Restart Slicer before you use it.")
    wait(a_panel)  # looked up anew


@pytest.mark.parametrize("agreed", [True, False])
def test_wrong_build_is_removed_first_if_the_user_agrees(a_panel, pytorch, monkeypatch, agreed):
    import slicer

    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_arguments: agreed)
    show(a_panel, found(torch={"version": "2.8.0+cpu", "cuda": "", "complete": True}))
    press(a_panel.ui.gpuButton)
    assert pytorch.calls == ([("uninstall",), ("install", False, ">=2.4.1")] if agreed else [])


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (None, None),
        (subprocess.CalledProcessError(1, "pip"), "could not be installed (CalledProcessError)"),
        (RuntimeError("No wheel fits."), "could not be installed: No wheel fits."),
    ],
)
def test_installation_that_fails_or_is_declined(a_panel, pytorch, answer, sentence):
    pytorch.PyTorchUtilsLogic.answer = answer
    show(a_panel, found(torch=None))
    press(a_panel.ui.torchButton)
    assert a_panel.said == [] if sentence is None else (a_panel.said[-1][0] and sentence in a_panel.said[-1][1])


def test_missing_extension_is_one_sentence(a_panel, monkeypatch):
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    show(a_panel, found(torch=None))
    press(a_panel.ui.torchButton)
    assert a_panel.said[-1][0] and "Extensions Manager" in a_panel.said[-1][1]


def test_packages_are_installed_with_consent_and_without_slicers_own(a_panel, monkeypatch):
    from BARLSegmentationLib.logic.Setup import readRequirements
    from slicer import packaging

    asked = []

    def pip_ensure(requirements, **options):
        asked.append(([str(one) for one in requirements], options))
        if len(asked) == 2:
            raise RuntimeError("User declined package installation")

    monkeypatch.setattr(packaging, "pip_ensure", pip_ensure)
    for _ in range(2):
        show(a_panel, found(packages={"monai": None, "safetensors": None}))
        press(a_panel.ui.packagesButton)
    (names, options), _second = asked
    assert {name.partition(">")[0] for name in names} == set(readRequirements(RESOURCES / "requirements.txt"))
    assert not {"torch", "numpy", "SimpleITK"} & {name.partition(">")[0] for name in names}
    assert {"SimpleITK", "numpy", "torch"} <= set(options["skip_packages"]) and options.get("prompt_install", True)
    assert a_panel.said[0] == (False, "The packages are installed.")
    assert a_panel.said[1] == (True, "The packages could not be installed: User declined package installation.")


def test_packages_that_were_not_installed_are_not_said_to_be(a_panel, monkeypatch):
    from slicer import packaging

    monkeypatch.setattr(packaging, "pip_ensure", lambda *_arguments, **_options: None)
    monkeypatch.setattr(packaging, "pip_check", lambda one: one.name != "monai")
    show(a_panel, found(packages={"monai": None, "safetensors": None}))
    press(a_panel.ui.packagesButton)
    assert a_panel.said[-1] == (True, "The packages could not be installed: still missing: monai>=1.5.1.")


def test_requirements_are_those_of_the_package(repository):
    import tomllib

    from BARLSegmentationLib.logic.Setup import PROTECTED, TORCH_REQUIREMENT, readRequirements

    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    engine = dict(item.split(">=") for item in project["optional-dependencies"]["engine"])
    ours = readRequirements(RESOURCES / "requirements.txt")
    assert ours and all(f">={engine[name]}" == str(versions) for name, versions in ours.items())
    assert f">={engine['torch']}" == TORCH_REQUIREMENT
    assert not set(ours) & set(PROTECTED)


def test_damaged_model_is_restored_from_a_sound_copy_only(a_panel, a_project, tmp_path, monkeypatch):
    import qt

    a_panel.session.openProject(a_project)
    wait(a_panel)
    (model,) = a_panel.session.project.models.all()
    (model.folder / "weights.safetensors").write_bytes(b"rot")
    press(a_panel.ui.checkButton)
    wait(a_panel)
    assert a_panel.ui.modelsLabel.text == "first: its weights are not as they were saved."
    other = a_model(tmp_path / "other", b"other weights")
    for folder, sentence in ((other, "holds another model"), (tmp_path, "holds no sound model")):
        monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_, folder=folder: str(folder))
        press(a_panel.ui.modelsButton)
        assert a_panel.said[-1][0] and sentence in a_panel.said[-1][1]
        assert (model.folder / "weights.safetensors").read_bytes() == b"rot"
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "model"))
    press(a_panel.ui.modelsButton)
    wait(a_panel)
    assert a_panel.said[-1] == (False, "Restored the model first.")
    assert a_panel.ui.modelsLabel.text == "1 model is as saved (checksum)."


def test_project_that_another_program_changes_is_one_sentence(a_panel, a_project):
    a_panel.session.openProject(a_project)
    wait(a_panel)
    with closing(sqlite3.connect(a_project / FILE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        press(a_panel.ui.checkButton)
        wait(a_panel)
    assert "is being changed by another program" in a_panel.said[-1][1] and a_panel.said[-1][0]
    assert a_panel.ui.torchLabel.text != "Not looked up yet." and a_panel.ui.checkButton.enabled


def test_full_disk_shows_the_folder(a_panel, a_project, monkeypatch):
    import qt

    opened = []
    monkeypatch.setattr(qt.QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()))
    a_panel.session.openProject(a_project)
    wait(a_panel)
    show(a_panel, found(disk=2**31))
    press(a_panel.ui.diskButton)
    assert [Path(folder) for folder in opened] == [a_project]
