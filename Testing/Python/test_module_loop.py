# SPDX-License-Identifier: Apache-2.0
"""The whole loop once, by mouse and keyboard, with the real worker: from an empty folder to the next proposal."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pytest
import SimpleITK as sitk
from barl.project.next_case import rank_cases
from barldriver.drawing import planeOf, pressKey
from slicerhost.clicks import choose, click, type_, waitUntil

pytestmark = pytest.mark.host
READER = "reader 1"
CONTROL_SHIFT = "ControlModifier|ShiftModifier"
ITERATIONS = 20
NAMES = ("front", "back")


@pytest.fixture(autouse=True)
def _torch():
    pytest.importorskip("torch", reason="the engine's packages are not installed")


@pytest.fixture
def loop(host):
    from barldriver.loop import Loop

    loop = Loop(host)
    yield loop
    loop.session.closeProject()
    loop.module.worker.close()


def simulated(seed: int) -> tuple[sitk.Image, sitk.Image]:
    """Noise with two bodies that touch, oblique and off the origin; nothing anatomical."""
    rng = np.random.default_rng(seed)
    k, j, i = np.indices((30, 36, 32))
    place = np.array((15, 18, 16)) + rng.uniform(-2, 2, 3)
    body = ((k - place[0]) / 8) ** 2 + ((j - place[1]) / 11) ** 2 + ((i - place[2]) / 7) ** 2 < 1
    label = np.where(body, np.where(j < place[1], 1, 2), 0).astype(np.uint8)
    scan = (100 + 60 * (label == 1) + 110 * (label == 2) + rng.normal(0, 12, label.shape)).astype(np.float32)
    images = sitk.GetImageFromArray(scan), sitk.GetImageFromArray(label)
    c, s = np.cos(0.2), np.sin(0.2)
    for image in images:
        image.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
        image.SetOrigin((12.0, -34.0, 56.0))
    return images


def simulated_scans(folder):
    """Two outlined scans, three untouched ones and two to hold out, all with their true outline."""
    pairs = []
    for number in range(7):
        paths = folder / f"scan_{number}.nii.gz", folder / f"label_{number}.nii.gz"
        for image, path in zip(simulated(number), paths, strict=True):
            sitk.WriteImage(image, str(path))
        pairs.append(paths)
    return pairs


def hippocampus_scans():
    """The same of real scans: of subjects that nobody is ever trained on here, so that a training is a real one."""
    from barl.benchmark import datasets

    cases = datasets.load("hippocampus").part("training")[:7]
    return [(case.images[0], case.label) for case in cases]


def lay_out(pairs, folder):
    """Folders as a person has them: scans, with outlines of the first two; and those to hold out, all outlined."""
    for n, (scan, label) in enumerate(pairs):
        part = folder / ("held out" if n >= 5 else "scans")
        for kind, path in (("images", scan), ("outlines", label)):
            (part / kind).mkdir(parents=True, exist_ok=True)
            if kind == "images" or n < 2 or n >= 5:
                shutil.copy(path, part / kind / f"case {n}.nii.gz")
    return folder / "scans", folder / "held out"


def go_round(loop, tmp_path, pairs) -> list:
    """The loop; returns the project's journal."""
    scans, held_out = lay_out(pairs, tmp_path)
    session = loop.session
    loop.newProject(tmp_path / "project", "A loop", list(NAMES), "T1")
    loop.addFolder(scans / "images", scans / "outlines")
    loop.addFolder(held_out / "images", held_out / "outlines", heldOut=True)
    cases = session.cases()
    assert [case.state for case in cases] == 2 * ["accepted"] + 3 * ["new"] + 2 * ["accepted"]
    assert [case.held_out for case in cases] == 5 * [False] + 2 * [True]

    # A first model; it predicts the untouched cases by itself.
    run = loop.train(ITERATIONS)
    assert run.state == "finished", run.inWords()
    assert session.project.models.current().id == run.modelId == "model_0001"
    loop.waitForPredictions()
    # What the status line says of it is gone if the last case was predicted before the step was opened.
    waiting = [case for case in session.cases() if case.state == "predicted"]
    assert [case.model_id for case in waiting] == 3 * ["model_0001"]

    partial = flows_on(loop, pairs)
    waiting = [case for case in waiting if case.id != partial]

    # The next one is open already, at its first hot-spot: corrected where the model is least sure.
    (first, *_) = [item for item in rank_cases(session.cases()) if item.case.id != partial]
    case = session.case()
    assert case.id == first.case.id and f"({case.uncertainty:.2f}" in first.reason
    scope = loop.section("Review").acceptScopeComboBox
    assert scope.currentText == "Only where I looked", "as chosen for the case before"
    choose(scope, "Whole scan")
    spot = loop.panels["Review"].hotspots.current()
    assert spot.rank == 1
    before = loop.outline()
    predicted = session.project.revisions.newest(case.id, ("prediction",))
    np.testing.assert_array_equal(before, read(predicted))
    time.sleep(1.0)  # a person looks
    painted = paint_truth(loop, spot.position, pairs[int(case.name[-1])][1])
    drawn = spread(loop, painted)
    loop.accept(READER)
    accepted = session.project.revisions.newest(case.id, ("accepted",))
    np.testing.assert_array_equal(read(accepted), drawn)
    assert accepted.looked is None and accepted.filled_by.startswith("barl fill ")
    assert session.case().state == "accepted"

    # Learn from it, starting from the first model; compare; decide.
    run = loop.train(ITERATIONS)
    assert run.state == "finished", run.inWords()
    assert session.project.models.get(run.modelId).parent == "model_0001", "a warm start"
    comparison = loop.panels["Train"].decision.comparison.result
    assert len(comparison.cases) == 2
    assert session.project.models.current().id == "model_0001"
    loop.promote()
    assert session.project.models.current().id == run.modelId == "model_0002"

    # And on to the other one, which the new model has predicted.
    loop.waitForPredictions()
    last = next(other for other in waiting if other.id != case.id)
    assert last.name in loop.openNext()
    assert session.caseId == last.id
    check_journal(session.project.journal.entries(), case, before, drawn, session.project)
    check_journal_of_part(session.project.journal.entries(), partial, session.project)
    return session.project.journal.entries()


def flows_on(loop, pairs) -> str:
    """The proposed case is opened, looked at in three places, corrected in one and accepted where it was looked at;
    the next case comes by itself. Gives the id of the corrected case."""
    session, panel = loop.session, loop.panels["Review"]
    proposed = loop.section("Cases").nextComboBox.currentText
    ui = loop.section("Review")
    ui.detailsButton.checked = True
    if not ui.goOnCheckBox.checked:
        click(ui.goOnCheckBox)
    type_(ui.readerLineEdit, READER)
    ui.detailsButton.checked = False
    loop.acts.clear()
    loop.key("N", CONTROL_SHIFT)
    case = session.case()
    assert case.name == proposed
    choose(ui.acceptScopeComboBox, "Only where I looked")  # once: it stays for the cases that follow
    for _ in range(3):
        loop.key("N")
    spot = panel.hotspots.current()
    assert len(panel.hotspots.hotspots.seen) == min(3, len(panel.hotspots.hotspots.spots))
    paint_truth(loop, spot.position, pairs[int(case.name[-1])][1])
    loop.key("Return", "ControlModifier")
    waitUntil(lambda: session.caseId != case.id and panel.isIdle, loop.patience)
    # With a key for the brush these are six keys and a stroke; a case that Accept opened takes two keys less.
    assert loop.acts == [f"{CONTROL_SHIFT} N", "N", "N", "N", "stroke", "ControlModifier Return"]
    assert "Next: " in loop.status and panel.hotspots.current().rank == 1
    accepted = session.project.revisions.newest(case.id, ("accepted",))
    looked = sitk.GetArrayFromImage(session.project.revisions.read_looked(accepted)) != 0
    assert 0 < looked.mean() < 1 and session.project.cases.get(case.id).is_partial
    return case.id


def paint_truth(loop, place, label) -> np.ndarray:
    """Draw at a place what the expert's outline has there (the eraser where it has nothing); the outline after it.

    Where the model is right, if unsure, the other label is drawn: something must change."""
    before, image = loop.outline(), sitk.ReadImage(str(label))
    i, j, k = image.TransformPhysicalPointToIndex((-place[0], -place[1], place[2]))
    truth, found = int(image[i, j, k]), int(before[k, j, i])
    if truth == found:
        truth = 1 if truth == 2 else 2
    loop.paint(NAMES[(truth or found) - 1], place, (place[0] + 3.0, place[1], place[2]), erase=not truth)
    after = loop.outline()
    assert not np.array_equal(before, after)
    return after


def spread(loop, painted: np.ndarray) -> np.ndarray:
    """Press the key of Fill; the outline after it, which keeps the slice that was corrected."""
    panel = loop.panels["Review"]
    (plane,) = panel.correction.drawing.drawn.planes
    assert plane == planeOf(panel, "Red")
    pressKey(panel, "L")
    assert panel.correction.drawing.drawn.fill is not None, loop.status
    filled = loop.outline()
    np.testing.assert_array_equal(filled.take(plane[1], axis=plane[0]), painted.take(plane[1], axis=plane[0]))
    return filled


def read(revision) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(revision.path)))


def check_journal(journal, case, before, after, project) -> None:
    """It tells who accepted what, what that changed and how long it took, and in which order everything came."""

    def steps(action, **facts):
        return [e for e in journal if e.action == action and facts.items() <= e.facts.items()]

    entry = next(e for e in steps("revision stored", kind="accepted", author=READER) if e.case_id == case.id)
    seen = next(e for e in steps("hot-spots seen") if e.case_id == case.id)
    finished, promoted = steps("run finished"), steps("model promoted")
    story = [steps("case added")[-1], finished[0], steps("revision stored", kind="prediction")[0], seen, entry]
    story += [finished[1], promoted[1]]
    assert [step.number for step in story] == sorted(step.number for step in story)
    assert [step.facts["model"] for step in promoted] == ["model_0001", "model_0002"]
    assert seen.case_id == case.id and seen.facts["ranks"] == [1]
    facts, ml = entry.facts, project.cases.grid(case.id).voxel_ml
    assert (entry.case_id, facts["author"]) == (case.id, READER)
    assert 1.0 <= facts["editing_seconds"] < 120
    for value, change in enumerate(facts["labels"], start=1):
        added, removed = (after == value) & (before != value), (before == value) & (after != value)
        assert (change["name"], change["added_voxels"]) == (NAMES[value - 1], np.count_nonzero(added))
        assert change["removed_voxels"] == np.count_nonzero(removed)
        assert change["added_ml"] == pytest.approx(np.count_nonzero(added) * ml, abs=1e-6)
        assert change["after_ml"] == pytest.approx(np.count_nonzero(after == value) * ml, abs=1e-6)
    assert sum(change["added_voxels"] + change["removed_voxels"] for change in facts["labels"]) > 0


def check_journal_of_part(journal, case_id, project) -> None:
    """It says which places were looked at and how much of the scan was accepted; before the case that came after."""
    own = [e for e in journal if e.case_id == case_id]
    stored = {"kind": "accepted", "author": READER}
    entry = next(e for e in own if e.action == "revision stored" and stored.items() <= e.facts.items())
    seen = [e for e in own if e.action == "hot-spots seen" and e.number < entry.number][-1]
    spots = project.revisions.newest(case_id, ("prediction",)).details["hotspots"]
    assert seen.facts["ranks"] == [spot["rank"] for spot in spots[:3]]
    assert 0 < entry.facts["looked_share"] < 1
    assert any(change["added_voxels"] or change["removed_voxels"] for change in entry.facts["labels"])


def tell(journal) -> None:
    """Print it (pytest -s) as a person would check it."""
    print()
    for entry in journal:
        facts = json.dumps(entry.facts, ensure_ascii=False)
        print(f"{entry.at}  {entry.program:<16} {entry.action:<18} {entry.case_id or '':<10} {facts}")


def test_loop_on_simulated_scans(loop, tmp_path):
    tell(go_round(loop, tmp_path, simulated_scans(tmp_path)))


def test_loop_on_real_scans(loop, tmp_path, data_dir):
    tell(go_round(loop, tmp_path, hippocampus_scans()))
