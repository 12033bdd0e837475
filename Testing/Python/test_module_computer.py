# SPDX-License-Identifier: Apache-2.0
"""Where the module computes: another Python of this computer, or another computer behind ssh's command line."""

from __future__ import annotations

import os
import shlex
import sys

import pytest
from slicerhost.clicks import press, waitUntil

pytestmark = [pytest.mark.host, pytest.mark.skipif(os.name == "nt", reason="the other computer needs a POSIX shell")]


@pytest.fixture
def panel(a_module, tmp_path, monkeypatch):
    program = tmp_path / "ssh"
    program.write_text(
        '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\n[ "$2" = nobody ] && { echo "Name unknown" >&2; exit 255; }\n'
        f'cd {shlex.quote(str(tmp_path))} && exec sh -c "$3"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("BARL_SSH", shlex.quote(str(program)))
    panel = a_module.panels["Setup"]
    a_module.steps.show("Setup")
    panel.ui.computerGroupBox.collapsed = False
    waitUntil(lambda: panel.isIdle, 60)
    yield panel
    panel.ui.computerLineEdit.text = ""
    panel.ui.pythonPathLineEdit.currentPath = ""
    panel.computer.onChanged()
    panel.ui.computerGroupBox.collapsed = True


def choose(panel, address: str, python: str = ""):
    panel.ui.computerLineEdit.text = address
    panel.ui.pythonPathLineEdit.currentPath = python
    panel.computer.onChanged()
    waitUntil(lambda: panel.isIdle, 60)


def test_a_computer_is_tested_and_the_worker_speaks_to_it(a_module, panel):
    from barl.worker.messages import SayHello

    assert not panel.ui.testButton.enabled and "Name another computer" in panel.ui.testButton.toolTip
    choose(panel, "workstation", sys.executable)
    press(panel.ui.testButton)
    waitUntil(lambda: panel.isIdle, 60)
    assert "It is ready" in a_module.ui.statusLabel.text and panel.ui.prepareButton.isHidden()
    answers = []
    a_module.worker.request(SayHello(), onResult=answers.append, onError=answers.append)
    waitUntil(lambda: answers, 120)
    assert "workstation" in answers[0].devices[0].title


def test_a_computer_that_cannot_be_reached_is_named(a_module, panel):
    choose(panel, "nobody")
    press(panel.ui.testButton)
    waitUntil(lambda: panel.isIdle, 60)
    assert "nobody cannot be reached (Name unknown)" in a_module.ui.statusLabel.text


def test_another_python_gets_no_environment_of_slicers(a_module, panel, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec " + shlex.quote(sys.executable) + ' "$@"\n')
    python.chmod(0o755)
    os.environ["PYTHONHOME"] = "/nowhere"
    try:
        choose(panel, "", str(python))
        environment = a_module.worker.environment()
        assert not environment.contains("PYTHONHOME") and environment.value("PYTHONSAFEPATH") == "1"
        assert a_module.worker.python == str(python) and panel.found is not None
        assert panel.ui.torchButton.isHidden(), "nothing is installed into a Python that is not Slicer's"
    finally:
        del os.environ["PYTHONHOME"]


def test_the_choice_is_kept(a_module, panel):
    import slicer

    choose(panel, "ana@workstation")
    assert slicer.app.userSettings().value("BARLSegmentation/computer") == "ana@workstation"
    assert a_module.worker.computer == "ana@workstation"
