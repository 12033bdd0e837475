# SPDX-License-Identifier: Apache-2.0
"""The demo from data to report: on a few small simulated cases, by the same way as the large one."""

from __future__ import annotations

import base64
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import pytest
import SimpleITK as sitk
from barl.demo.__main__ import main, run
from barl.demo.main_job import make_room
from barl.demo.sources import Counts, choose
from barl.errors import InputError, ProjectError
from barl.images.writing import write_image
from barl.project.labels import Channel, Label
from barl.project.store import Project

COUNTS = Counts(outlined=2, untouched=3, held_out=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Simulated cases cut to 40 x 40 x 32 voxels in the white matter: the whole way in seconds."""
    pytest.importorskip("nilearn", reason="nilearn, which carries the MNI152 scan, is not installed")
    data = choose("simulated", tmp_path_factory.mktemp("data"), COUNTS)
    for case in [*data.outlined, *data.untouched, *data.held_out]:
        for path in (case.image, case.label):
            write_image(sitk.ReadImage(str(path))[18:58, 30:70, 20:52], path)
    return data


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> Path:
    """Output folder of a demo that has run."""
    output = tmp_path_factory.mktemp("demo") / "demo-output"
    assert run("simulated", output, iterations=6, data=data) == output / "report.html"
    return output


def test_project_opens_and_tells_the_story(finished, data):
    with Project.open(finished / "project", read_only=True) as project:
        cases = {case.name: case for case in project.cases.all()}
        assert len(cases) == COUNTS.total
        assert {case.name for case in data.held_out} == {name for name, case in cases.items() if case.held_out}
        accepted = {name for name, case in cases.items() if case.state == "accepted" and not case.held_out}
        assert {case.name for case in data.outlined} < accepted
        assert len(accepted) == COUNTS.outlined + 2, "two corrections"
        first, second = project.models.all()
        assert second.is_current
        assert second.parent == first.id, "the second training starts warm"
        assert [model.summary["iterations"] for model in (first, second)] == [6, 6]
        assert (first.summary["data"]["labelled"], second.summary["data"]["labelled"]) == (2, 4)
        assert not project.verify(everything=True)
        # The label of an untouched case is known to nobody but the demo until its correction.
        (rest,) = {case.name for case in data.untouched} - accepted
        assert [revision.kind for revision in project.revisions.of(cases[rest].id)] == ["prediction", "prediction"]


class Reader(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict] = []
        self.links: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.links += [values[name] for name in ("href", "src") if name in values]
        if tag == "img":
            self.images.append(values)
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if "style" not in self.open:
            self.words += " " + text


def test_report_holds_what_it_must_in_one_file(finished, data):
    page = Reader((finished / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert all(link.startswith("data:image/png;base64,") for link in page.links), "nothing outside the file"
    assert len(page.images) >= 5
    for image in page.images:
        assert image["alt"]
        png = base64.b64decode(image["src"].partition(",")[2])
        width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
        assert png.startswith(b"\x89PNG")
        assert width > 300
        assert height > 200
    for text in (
        "Simulated cases: no patients",
        "McConnell Brain Imaging Centre",
        "Mean Dice",
        "lesion F1",
        "Wilcoxon",
        "Hot-spots of",
        "Volumes",
        "calibration error",
        "seconds a step",
        "torch ",
        "not a medical device",
        "reconstruction",
        *(case.name for case in data.held_out),
    ):
        assert text in page.words, text
    assert re.search(r"Mean Dice (rose|did NOT rise)", page.words)


def test_a_run_that_fails_leaves_the_report_of_the_run_before(finished, data, monkeypatch):
    before = (finished / "report.html").read_bytes()

    def fails(*_):
        raise InputError("The disk is full.")

    monkeypatch.setattr("barl.demo.main_job.run_demo", fails)
    with pytest.raises(InputError):
        run("simulated", finished, iterations=6, data=data)
    assert (finished / "report.html").read_bytes() == before


def test_the_demo_shows_no_warning_of_a_library(monkeypatch, tmp_path, recwarn):
    def warns(*_):
        warnings.warn("deprecated in 1.2", UserWarning, stacklevel=2)
        raise InputError("Not today.")

    monkeypatch.setattr("barl.demo.__main__.run", warns)
    assert main(["--output", str(tmp_path)]) == InputError.exit_code
    assert not recwarn.list


def test_a_second_run_starts_from_nothing_and_a_foreign_folder_is_spared(tmp_path):
    own, foreign = tmp_path / "own", tmp_path / "output" / "project"
    make_room(own)
    Project.create(own, "Demo", [Label(1, "lesion")], [Channel("T1")]).close()
    make_room(own)
    assert [path.name for path in own.iterdir()] == [".barl-demo"]
    foreign.mkdir(parents=True)
    (foreign / "thesis.txt").write_text("years of work")
    assert main(["--data", "simulated", "--output", str(foreign.parent)]) == ProjectError.exit_code
    assert [path.name for path in foreign.parent.rglob("*")] == ["project", "thesis.txt"], "told before the work"


def test_auto_falls_back_to_simulated_cases_and_says_why(tmp_path, monkeypatch):
    pytest.importorskip("nilearn", reason="nilearn, which carries the MNI152 scan, is not installed")
    monkeypatch.setenv("BARL_DATA", str(tmp_path))
    said = []

    def offline(folder, progress):
        raise InputError("The set could not be downloaded (no network).")

    data = choose("auto", tmp_path, Counts(1, 1, 1), tell=said.append, fetch=offline)
    assert data.simulated
    assert said == [
        "The folder that BARL_DATA names has no hippocampus/.",
        "The set could not be downloaded (no network).",
        "So the cases are simulated.",
    ]


def test_real_set_is_dealt_out_without_splitting_a_subject(data_dir, monkeypatch, tmp_path):
    if not (data_dir / "hippocampus").is_dir():
        pytest.skip("the folder that BARL_DATA names has no hippocampus/")
    monkeypatch.setenv("BARL_DATA", str(data_dir))
    data = choose("auto", tmp_path)
    names = [case.name for part in (data.outlined, data.untouched, data.held_out) for case in part]
    assert (len(data.outlined), len(data.untouched), len(data.held_out)) == (4, 20, 12)
    assert len({(int(name[-3:]) + 1) // 2 for name in names}) == 36
    assert names == [
        case.name for part in ("outlined", "untouched", "held_out") for case in getattr(choose("auto", tmp_path), part)
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--iterations", "0"], "not possible"), (["--data", "hippocampus"], "BARL_DATA is not set")],
)
def test_bad_arguments_are_one_sentence(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("BARL_DATA", raising=False)
    assert main([*arguments, "--output", str(tmp_path)]) == InputError.exit_code
    assert said in capsys.readouterr().err
