# SPDX-License-Identifier: Apache-2.0
"""The room that Slicer leaves to a module on a screen of 1366 x 768: each step is whole in it, and keeps its width."""

from __future__ import annotations

import pytest
from barl.project.store import Project
from barldriver.loop import settle

pytestmark = pytest.mark.host
WIDTH, HEIGHT = 440, 450  # pixels, measured in Slicer with its logo, Data Probe and toolbars
SCROLL_BAR = 16
VISIBLE, RESERVE = 434, 10  # pixels of a step that Slicer shows on that screen, and those to spare
STEPS = ("Project", "Cases", "Review", "Train", "Predict", "Setup")


@pytest.fixture
def a_small_module(a_review_panel):
    """The module with a case on screen, its details folded, as wide as on a small screen."""
    module = a_review_panel.moduleWidget
    a_review_panel.ui.detailsButton.checked = False
    yield module
    module.steps.show("Review")


def lay_out() -> None:
    """Let all layouts follow: each asks the one around it by an event."""
    import slicer

    for _level in range(6):
        slicer.app.processEvents()


def cut(page) -> list[str]:
    """Visible labels, buttons and boxes of a page whose text needs more room than they have."""
    import qt
    import slicer

    found = []
    for widget in slicer.util.findChildren(page):
        if not widget.isWidgetType() or not widget.isVisible():
            continue
        label = isinstance(widget, qt.QLabel) and not widget.wordWrap
        if (label or isinstance(widget, qt.QAbstractButton)) and widget.width < widget.minimumSizeHint.width():
            found.append(f"{widget.name or widget.className()}: {widget.text!r}")
    return found


@pytest.mark.parametrize("step", STEPS)
def test_each_step_is_whole_on_a_small_screen(a_small_module, step):

    module = a_small_module
    module.steps.show(step)
    page = module.panels[step].widget
    lay_out()
    assert page.minimumSizeHint.width() <= WIDTH - SCROLL_BAR, "its least width makes the panel wider"
    root = module.ui.pagesWidget.parent()
    assert root.sizeHint.height() <= HEIGHT, f"{step} is {root.sizeHint.height()} pixels high"
    assert cut(page) == []


@pytest.mark.parametrize(("step", "box"), [("Project", "newGroupBox"), ("Cases", "addGroupBox")])
def test_a_form_is_whole_on_a_small_screen(a_small_module, step, box):

    module = a_small_module
    module.session.closeProject() if step == "Project" else None
    module.steps.show(step)
    panel = module.panels[step]
    getattr(panel.ui, box).collapsed = False
    try:
        lay_out()
        assert module.ui.pagesWidget.parent().sizeHint.height() <= HEIGHT
        assert cut(panel.widget) == []
    finally:
        getattr(panel.ui, box).collapsed = True


def test_labels_and_channels_are_whole_on_a_small_screen(a_small_module):
    from barl.project.labels import Label

    module = a_small_module
    before = module.session.project.labels
    for number in range(5):
        module.session.project.definition.add_label(Label(20 + number, f"label {number}"))
    module.session.notifyDefinition(before)
    module.steps.show("Project")
    panel = module.panels["Project"]
    panel.ui.definitionGroupBox.collapsed = False
    try:
        lay_out()
        assert panel.definition.labels.rowCount == 8
        assert module.ui.pagesWidget.parent().sizeHint.height() <= HEIGHT
        assert cut(panel.widget) == []
    finally:
        panel.ui.definitionGroupBox.collapsed = True


def test_the_form_of_a_project_from_the_scene_is_whole_on_a_small_screen(a_small_module):
    import numpy as np
    import slicer

    module = a_small_module
    module.session.closeProject()
    module.steps.show("Project")
    panel = module.panels["Project"]
    slicer.mrmlScene.Clear(0)
    for number in range(5):
        slicer.util.addVolumeFromArray(np.zeros((4, 4, 4)), name=f"volume {number}")
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    for number in range(5):
        segmentation.GetSegmentation().AddEmptySegment("", f"label {number}")
    panel.ui.newGroupBox.collapsed = False
    panel.scene.segmentationSelector.setCurrentNode(segmentation)
    try:
        lay_out()
        assert panel.scene.table.isVisible() and panel.ui.labelsTable.rowCount == 5
        assert module.ui.pagesWidget.parent().sizeHint.height() <= HEIGHT
        assert cut(panel.widget) == []
    finally:
        panel.ui.newGroupBox.collapsed = True
        slicer.mrmlScene.Clear(0)
        lay_out()


@pytest.mark.parametrize("source", range(5))
def test_the_form_of_each_source_is_whole_on_a_small_screen(a_small_module, source, tmp_path):
    import SimpleITK as sitk
    from barldriver.studies import an_image

    module = a_small_module
    module.steps.show("Cases")
    ui = module.panels["Cases"].ui
    ui.addGroupBox.collapsed = False
    ui.sourceComboBox.setCurrentIndex(source)
    try:
        if source == 2:
            folder = tmp_path / "scans"
            folder.mkdir()
            for number in range(20):
                sitk.WriteImage(an_image(number), str(folder / f"case_{number}.nii"))
            module.panels["Cases"].adding.selectors[0].currentPath = str(folder)
            module.panels["Cases"].adding.source.onPath()
            assert module.panels["Cases"].adding.source.table.rowCount == 20
            module.panels["Cases"].adding.source.table.selectRow(0)
        lay_out()
        assert module.ui.pagesWidget.parent().sizeHint.height() <= HEIGHT
        assert cut(module.panels["Cases"].widget) == []
    finally:
        ui.sourceComboBox.setCurrentIndex(0)
        ui.addGroupBox.collapsed = True


def test_a_status_line_fits_beside_an_effect_with_many_options(a_small_module):
    """Threshold and Hollow ask for 445 and 453 pixels in Slicer, with three labels and one line of status."""
    import qt
    import slicer

    module = a_small_module
    panel = module.panels["Review"]
    editor, root = panel.editor.widget, module.ui.pagesWidget.parent()
    settle(panel)
    editor.setActiveEffectByName("Paint")
    slicer.util.findChildren(editor, "OptionsGroupBox")[0].setVisible(True)  # as Slicer does with each effect
    module.session.status("Done.")
    lay_out()
    table, frame = (slicer.util.findChildren(editor, name)[0] for name in ("SegmentsTableView", "EffectsOptionsFrame"))
    whole, options = table.height, qt.QWidget()
    frame.layout().addWidget(options)
    try:
        for needed in (445, 453):
            options.setFixedHeight(1)
            lay_out()
            options.setFixedHeight(1 + needed - root.sizeHint.height())
            lay_out()
            assert root.sizeHint.height() == needed
            assert root.minimumSizeHint.height() <= VISIBLE - RESERVE
            assert cut(panel.widget) == []
    finally:
        frame.layout().removeWidget(options)
        options.setParent(None)
        module.session.status("")
        lay_out()
    assert table.height == whole, "it gives way only where there is no room"


def test_a_training_with_its_curves_is_whole_on_a_small_screen(a_small_module):
    """One line of status, the four lines of a run whose model is poor, losses with a legend of two lines."""
    from barl.worker.messages import Event

    module = a_small_module
    module.steps.show("Train")
    panel, ui = module.panels["Train"], module.panels["Train"].ui
    terms = ("total", "supervised", "dpr", "pcbc", "region", "instance", "consistency_weight")
    values = [{"iteration": n, **dict.fromkeys(terms, 1 / n)} for n in range(1, 9)]
    ui.settingsGroupBox.collapsed = True
    module.session.status("model_0001 predicts 4 cases in the background; go on meanwhile.")
    try:
        assert "Outline and accept" in ui.heldOutLabel.text, "what keeps Start gray is told at all times"
        panel.curves.append([Event("progress", values=one) for one in values])
        panel._showCurves()
        ui.runComboBox.visible = ui.runLabel.visible = True
        poor = "The model is poor: mean Dice on the held-out cases: lesion 0.00. Expect to correct much of what it "
        ui.runLabel.text = "run_0001 is finished: model_0001.\n" + poor + "predicts. A longer training helps."
        ui.heldOutLabel.visible = False
        lay_out()
        assert ui.lossPlotWidget.visible and ui.lossLegendLabel.height > 1.5 * ui.lossLegendLabel.fontMetrics().height()
        assert module.ui.pagesWidget.parent().sizeHint.height() <= VISIBLE - RESERVE
        assert cut(panel.widget) == []
    finally:
        panel.onProjectChanged()
        module.session.status("")
        lay_out()


def test_what_is_held_out_is_told_beside_the_settings_only(a_small_module):
    """A run with its curves needs the room; that nothing measures the model is told at all times."""
    module = a_small_module
    project = module.session.project
    for name in ("untouched", "predicted"):
        project.revisions.store(name, an_outline(project), "accepted", author="reader")
    module.session.notifyCases()
    module.steps.show("Train")
    ui = module.panels["Train"].ui
    ui.settingsGroupBox.collapsed = True
    assert "will not be measured" in ui.heldOutLabel.text and ui.heldOutLabel.visible
    project.cases.set_held_out("predicted", True)
    module.session.notifyCases()
    assert not ui.heldOutLabel.visible
    ui.settingsGroupBox.collapsed = False
    assert "Only one outlined case is held out" in ui.heldOutLabel.text and ui.heldOutLabel.visible


def an_outline(project):
    import numpy as np

    grid = project.cases.grid("case_0002")
    voxels = np.zeros(grid.shape, np.uint8)
    voxels[2:5, 3:6, 4:9] = 1
    return grid.image(voxels)


def test_the_volume_beside_the_limit_is_whole_beside_a_scroll_bar(a_small_module):
    """With Details the step scrolls: '26.5 ml' had lost its first digits."""
    module = a_small_module
    panel = module.panels["Review"]
    panel.ui.detailsButton.checked = panel.ui.onlyWhereUnsureCheckBox.checked = True
    try:
        settle(panel, lambda: "ml" in panel.ui.editableLabel.text)
        panel.ui.editableLabel.text = "(1234.5 ml)"
        lay_out()
        assert cut(panel.widget) == []
    finally:
        panel.ui.detailsButton.checked = panel.ui.onlyWhereUnsureCheckBox.checked = False
        settle(panel)


def test_imported_predictions_fit_below_two_lines_of_status(a_small_module, tmp_path):
    import SimpleITK as sitk
    from barldriver.studies import a_map
    from slicerhost.clicks import waitUntil

    module = a_small_module
    panel, root = module.panels["Cases"], module.ui.pagesWidget.parent()
    for number in range(6):
        sitk.WriteImage(a_map(number), str(tmp_path / f"case_{number}.nii.gz"))
    module.steps.show("Cases")
    panel.exchange.predictionsAction.trigger()
    form = panel.exchange.predictions
    try:
        form.folder.currentPath = str(tmp_path)
        waitUntil(lambda: form.table.rowCount == 6 and form.isIdle)
        module.session.status("A sentence about what has happened with the files of the folder, and what to do now.")
        lay_out()
        assert root.sizeHint.height() <= VISIBLE - RESERVE
        assert cut(panel.widget) == []
    finally:
        form.box.collapsed = True
        lay_out()


def test_before_a_case_is_open_nothing_of_the_review_can_be_pressed(a_panel_of):
    ui = a_panel_of("Review").ui
    for name in ("accept", "fill", "nextSlice", "nextCase", "nextHotspot", "previousHotspot"):
        button = getattr(ui, f"{name}Button")
        assert not button.enabled and button.toolTip.startswith("Open a "), name
    assert ui.planesButton.text == "0 drawn"


def test_the_cockpit_has_all_that_the_loop_needs_in_one_view(a_small_module):
    import qt

    module = a_small_module
    panel = module.panels["Review"]
    panel.editor.widget.setActiveEffectByName("Paint")
    lay_out()
    root = module.ui.pagesWidget.parent()
    needed = ("acceptButton", "nextHotspotButton", "previousHotspotButton", "overlayVisibleCheckBox")
    for name in (*needed, "onlyWhereUnsureCheckBox", "caseLabel", "hotspotsLabel"):
        widget = getattr(panel.ui, name)
        assert widget.isVisible() and widget.mapTo(root, qt.QPoint(0, widget.height)).y() <= HEIGHT, name
    editor = panel.editor.widget
    assert editor.mapTo(root, qt.QPoint(0, editor.height)).y() <= HEIGHT, "effects and their options"


def test_width_is_the_same_in_every_step_and_after_many_strokes(a_small_module):

    module = a_small_module
    panel, widths, hints = module.panels["Review"], set(), set()
    root = module.ui.pagesWidget.parent()
    for step in STEPS:
        module.steps.show(step)
        lay_out()
        widths.add(root.minimumSizeHint.width())
    assert len(widths) == 1
    module.steps.show("Review")
    least = root.minimumWidth
    for effect in ("Paint", "Erase", "Scissors"):
        panel.editor.widget.setActiveEffectByName(effect)
        settle(panel)
        lay_out()
        module.steps.fitWidth()
        assert root.minimumWidth == least, f"the options of {effect} take the room there is"
    segment = module.session.loaded.segmentation.GetSegmentation().GetNthSegment(0)
    for _stroke in range(50):
        segment.GetRepresentation("Binary labelmap").Modified()
        panel.onEdit()
        settle(panel)
        hints.add((root.sizeHint.width(), root.minimumSizeHint.width()))
    for number in range(20):
        module.session.openCase(("case_0001", "case_0002")[number % 2])
        settle(panel)
        hints.add((root.sizeHint.width(), root.minimumSizeHint.width()))
    assert len(hints) == 1 and {minimum for _hint, minimum in hints} == widths


def test_a_sentence_belongs_to_its_step_and_an_empty_line_takes_no_room(a_small_module):
    module = a_small_module
    module.session.status("Done.")
    assert module.ui.statusLabel.text == "Done." and module.ui.statusLabel.visible
    module.steps.show("Setup")
    assert module.ui.statusLabel.text == "" and not module.ui.statusLabel.visible


def test_names_of_a_series_can_be_told_apart(a_small_module, tmp_path):
    import numpy as np
    import SimpleITK as sitk
    from barl.project.labels import Channel, Label

    module = a_small_module
    names = [f"hippocampus_{number:03d}_baseline" for number in range(3)]
    image = sitk.GetImageFromArray(np.zeros((5, 5, 5), np.float32))
    with Project.create(tmp_path / "p", "p", [Label(1, "x")], [Channel("T1")]) as project:
        for name in names:
            project.cases.add(name, [image])
    module.session.openProject(tmp_path / "p")
    module.steps.show("Cases")
    lay_out()
    table = module.panels["Cases"].ui.casesTable
    assert table.columnWidth(0) >= max(table.fontMetrics().horizontalAdvance(name) for name in names)
    assert table.isColumnHidden(5) and not table.isColumnHidden(1), "the time of the last change makes room"


def test_three_places_a_correction_accept_and_the_next_case_take_three_keys(a_review_panel, monkeypatch):
    """N, N, a stroke, Ctrl+Return: the first place came with the case."""
    import qt
    from slicerhost.clicks import strike

    panel, module = a_review_panel, a_review_panel.moduleWidget
    panel.ui.goOnCheckBox.checked = True
    panel.hotspots.step(1)  # as it was opened by the Accept before

    def press(key, modifier=qt.Qt.NoModifier) -> None:
        strike(panel.widget.window(), key, modifier)
        settle(panel)

    press(qt.Qt.Key_N)
    press(qt.Qt.Key_N)
    assert panel.hotspots.current().rank == 3
    panel.correction.segmentation.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap").Modified()
    panel.onEdit()
    settle(panel)
    press(qt.Qt.Key_Return, qt.Qt.ControlModifier)
    assert module.session.project.cases.get("predicted").state == "accepted"
    assert module.session.case().name == "untouched" and "Next: untouched." in module.ui.statusLabel.text


def test_accept_of_the_last_case_says_so(a_review_panel):
    panel, module = a_review_panel, a_review_panel.moduleWidget
    panel.ui.goOnCheckBox.checked = True
    module.session.project.cases.set_state("untouched", "excluded")
    module.session.notifyCases()
    panel.ui.acceptButton.click()
    settle(panel)
    assert module.ui.statusLabel.text == "predicted is accepted. No other case waits for an outline."
    assert module.session.case().name == "predicted"


def test_cases_are_predicted_from_the_list(a_review_panel):
    module = a_review_panel.moduleWidget
    cases = module.panels["Cases"]
    module.steps.show("Cases")
    assert not cases.ui.predictButton.enabled and "no model yet" in cases.ui.predictButton.toolTip
