# SPDX-License-Identifier: Apache-2.0
"""A project that was made anew in the folder of another one, and a scene that knows the other one."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from barl.project.store import Project
from barldriver.loop import settle

pytestmark = pytest.mark.host
FIRST = "case_0001"


def test_nodes_of_a_project_that_is_gone_are_not_those_of_the_new_one(a_review_panel, tmp_path):
    """Cases and outlines are numbered from 1 in each project: the old scan was shown, and its outline stored."""
    import slicer

    panel, session = a_review_panel, a_review_panel.session
    folder, labels, channels = session.project.folder, session.project.labels, session.project.channels
    scan = sitk.ReadImage(str(session.project.cases.image_paths(FIRST)[0]))
    outline = sitk.ReadImage(str(session.project.revisions.newest(FIRST).path))
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    settle(panel)
    shutil.rmtree(folder)
    with Project.create(folder, "anew", labels, channels) as project:
        project.cases.add("another", [scan * 2])
        project.revisions.store("another", outline * 0, "prediction", author="BARL")
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    settle(panel)
    assert session.case().name == "another"
    shown = slicer.util.arrayFromVolume(session.loaded.volumes[0])
    assert np.allclose(shown, 2 * sitk.GetArrayFromImage(scan))
    assert not panel.correction.snapshot().labelMap()[0].any()
