# SPDX-License-Identifier: Apache-2.0
"""A model as one file: what is sent comes back equal, what was tampered with is refused."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.cli import main
from barl.errors import InputError, ModelError, ProjectError
from barl.jobs.model_files import check_model, import_model
from barl.models.archive import pack_model, unpack_model
from barl.project.labels import Channel, Label
from barl.project.model_card import CARD_FILE, WEIGHTS_FILE, read_card
from barl.project.states import RunState
from barl.project.store import Project

SHIPPED = Path(__file__).resolve().parents[2] / "BARLSegmentation/Resources/Models/hippocampus"


@pytest.fixture
def archive(tmp_path) -> Path:
    pack_model(SHIPPED, tmp_path / "model.zip")
    return tmp_path / "model.zip"


@pytest.fixture
def a_project(tmp_path) -> Path:
    """A project whose labels and channel are those of the shipped model."""
    card = read_card(SHIPPED)
    Project.create(tmp_path / "project", "P", card.labels, [Channel(name) for name in card.channels]).close()
    return tmp_path / "project"


def a_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def files() -> dict[str, bytes]:
    return {name: (SHIPPED / name).read_bytes() for name in (CARD_FILE, WEIGHTS_FILE)}


def barl(capsys, *words, code: int = 0) -> dict:
    assert main([*map(str, words), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_the_same_model_makes_the_same_bytes_and_comes_back_equal(archive, tmp_path):
    pack_model(SHIPPED, tmp_path / "again.zip")
    assert archive.read_bytes() == (tmp_path / "again.zip").read_bytes()
    (tmp_path / "model").mkdir()
    unpack_model(archive, tmp_path / "model")
    for name, content in files().items():
        assert (tmp_path / "model" / name).read_bytes() == content
    with zipfile.ZipFile(archive) as opened:
        assert opened.namelist() == [CARD_FILE, WEIGHTS_FILE]


def test_a_file_given_as_a_model_says_where_it_goes(archive, tmp_path, capsys):
    words = ["predict", str(tmp_path), "--model", str(archive), "--output", str(tmp_path / "out")]
    assert main(words) == ModelError.exit_code
    assert 'Take it into a project first: "barl models import PROJECT model.zip".' in capsys.readouterr().err


def test_a_folder_that_somebody_zipped_is_a_model(tmp_path):
    """As the file managers of macOS and Windows zip a folder."""
    members = {f"my model/{name}": content for name, content in files().items()}
    extra = {"__MACOSX/my model/._model.json": b"\0", "my model/README.md": b"words"}
    assert check_model(a_zip(tmp_path / "m.zip", {**members, **extra})).name == read_card(SHIPPED).name


def altered(name: str) -> bytes:
    content = bytearray(files()[name])
    content[-1] ^= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({**files(), "../../outside.txt": b"x"}, "leads out"),
        ({**files(), "C:\\outside.txt": b"x"}, "leads out"),
        ({**files(), "/etc/outside": b"x"}, "leads out"),
        ({**files(), WEIGHTS_FILE: altered(WEIGHTS_FILE)}, "altered"),
        ({**files(), WEIGHTS_FILE: files()[WEIGHTS_FILE][:-100]}, "truncated"),
        ({**files(), WEIGHTS_FILE: bytes(200 * 2**20)}, "no model is like that"),
        ({CARD_FILE: files()[CARD_FILE]}, "holds no weights"),
        ({WEIGHTS_FILE: b"x"}, "no model.json"),
        ({**files(), "other/model.json": b"{}"}, "more than one model.json"),
        ({CARD_FILE: b"{}", WEIGHTS_FILE: b"x"}, "card is not valid"),
        ({CARD_FILE: b"\x80\x04pickle", WEIGHTS_FILE: b"x"}, "card"),
    ],
)
def test_a_file_that_is_no_sound_model_is_refused_and_nothing_stays(tmp_path, a_project, members, words):
    file = a_zip(tmp_path / "m.zip", members)
    before = sorted(path.name for path in tmp_path.iterdir())
    with Project.open(a_project) as project, pytest.raises(ModelError, match=words) as caught:
        import_model(project, file)
    assert caught.value.remedy and len(str(caught.value)) < 400
    with Project.open(a_project) as project:
        assert project.models.all() == []
    assert not list((a_project / "models").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_file_of_another_kind_is_refused(tmp_path):
    for content in (b"", b"no zip at all", (SHIPPED / WEIGHTS_FILE).read_bytes()[:1000]):
        (tmp_path / "x.zip").write_bytes(content)
        with pytest.raises(ModelError, match="no zip archive"):
            check_model(tmp_path / "x.zip")
    with pytest.raises(ModelError, match="no file"):
        check_model(tmp_path / "nothing.zip")
    with pytest.raises(InputError, match="there already"):
        pack_model(SHIPPED, tmp_path / "x.zip")
    with pytest.raises(InputError, match="file name for a model"):
        pack_model(SHIPPED, tmp_path / "x.pt")


def test_a_model_travels_from_project_to_project(archive, a_project, tmp_path, capsys):
    done = barl(capsys, "models", "import", a_project, archive, "--promote")
    assert (done["model"], done["current"]) == ("model_0001", True)
    assert barl(capsys, "models", "check", archive)["id"] == read_card(SHIPPED).id
    barl(capsys, "models", "export", a_project, tmp_path / "sent.zip")
    assert (tmp_path / "sent.zip").read_bytes() == archive.read_bytes()
    barl(capsys, "models", "export", SHIPPED, tmp_path / "direct.zip")
    assert (tmp_path / "direct.zip").read_bytes() == archive.read_bytes()
    with Project.open(a_project) as project, pytest.raises(ModelError, match="already: model_0001"):
        import_model(project, tmp_path / "sent.zip")


def test_the_parent_is_entered_where_the_project_has_it(a_project, tmp_path):
    """A model of another project was trained on from the model that both projects hold."""
    child = shutil.copytree(SHIPPED, tmp_path / "child")
    import torch
    from barl.models.disk import load_model, save_model

    card, network = load_model(SHIPPED)
    weights = {name: tensor + 1e-3 for name, tensor in network.state_dict().items()}
    from dataclasses import replace

    save_model(child, replace(card, id="child", parent=card.id), weights, dtype=torch.float16)
    with Project.open(a_project) as project:
        orphan, notes = import_model(project, child)
        assert orphan.parent is None and any(card.id in note for note in notes)
    second = tmp_path / "second"
    shutil.rmtree(child)
    save_model(child, replace(card, id="child", parent=card.id), weights, dtype=torch.float16)
    with Project.create(second, "Q", card.labels, [Channel(name) for name in card.channels]) as project:
        parent, _ = import_model(project, SHIPPED)
        assert import_model(project, child)[0].parent == parent.id


def test_a_model_of_other_labels_is_refused_or_told(tmp_path):
    channels = [Channel(name) for name in read_card(SHIPPED).channels]
    names = {label.value: label.name for label in read_card(SHIPPED).labels}
    with (
        Project.create(tmp_path / "a", "A", [Label(9, "cyst")], channels) as project,
        pytest.raises(ModelError, match="which the label table does not have"),
    ):
        import_model(project, SHIPPED)
    swapped = [Label(1, names[2]), Label(2, names[1])]
    with (
        Project.create(tmp_path / "b", "B", swapped, channels) as project,
        pytest.raises(ModelError, match="which the label table calls"),
    ):
        import_model(project, SHIPPED)
    more = [Label(1, "front"), Label(2, names[2]), Label(3, "cyst")]
    with Project.create(tmp_path / "c", "C", more, channels) as project:
        _, notes = import_model(project, SHIPPED)
        assert any("'front'" in note for note in notes) and any("cyst" in note for note in notes)
    with (
        Project.create(tmp_path / "d", "D", read_card(SHIPPED).labels, [Channel("CT"), Channel("PET")]) as project,
        pytest.raises(ModelError, match="channel"),
    ):
        import_model(project, SHIPPED)


def test_a_removed_model_keeps_its_card_and_what_was_made_with_it(a_project, capsys):
    with Project.open(a_project) as project:
        first, _ = import_model(project, SHIPPED)
        project.models.promote(first.id)
        scan = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32))
        project.cases.add("c", [scan])
        made = project.revisions.store("c", scan * 0, "prediction", author="BARL", model_id=first.id)
        with pytest.raises(ProjectError, match="is the model that predicts"):
            project.models.remove(first.id)
        second = project.models.add(first.folder, {}, name="second", parent=first.id)
        project.models.promote(second.id)
        run = project.runs.new({"run": {"parent": first.id}})
        with pytest.raises(ProjectError, match="starts from model_0001"):
            project.models.remove(first.id)
        project.runs.update(run.id, RunState.FAILED)
    barl(capsys, "models", "remove", a_project, "model_0001")
    with Project.open(a_project) as project:
        assert [row.id for row in project.models.all()] == ["model_0002"]
        assert [row.id for row in project.models.all(removed=True)] == ["model_0001", "model_0002"]
        assert read_card(first.folder).name and not (first.folder / WEIGHTS_FILE).exists()
        assert project.revisions.newest("c").model_id == first.id == project.models.get("model_0002").parent
        assert project.revisions.newest("c").id == made.id and project.verify(everything=True) == []
        with pytest.raises(ProjectError, match="were removed"):
            project.models.promote(first.id)
    done = barl(capsys, "predict", a_project, "c", "--model", "model_0001", code=4)
    assert "model_0001" in done["error"]["message"]


def damage(folder: Path, what: str) -> None:
    weights, card = folder / WEIGHTS_FILE, folder / CARD_FILE
    match what:
        case "weights":
            weights.write_bytes(weights.read_bytes()[:-1])
        case "card":
            card.write_text(card.read_text("utf-8")[:200], "utf-8")
        case "folder":
            shutil.rmtree(folder)
        case "patch":
            card.write_text(json.dumps({**json.loads(card.read_text("utf-8")), "patch": [8, 8, 8]}), "utf-8")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("weights", ["model_0001: weights.safetensors is not as it was stored."]),
        ("card", ["model_0001: model.json cannot be used (The model card "]),
        (
            "folder",
            [
                "model_0001: model.json cannot be used (There is no model folder ",
                "model_0001: weights.safetensors is missing.",
            ],
        ),
    ],
)
def test_damage_of_a_model_is_found(a_project, capsys, what, words):
    barl(capsys, "models", "import", a_project, SHIPPED, "--name", "mine")
    assert barl(capsys, "project", "verify", a_project) == {"damaged": []}
    assert barl(capsys, "models", "list", a_project)["models"][0]["damaged"] == []
    damage(a_project / "models/model_0001", what)
    found = barl(capsys, "project", "verify", a_project, code=ProjectError.exit_code)["damaged"]
    assert len(found) == len(words) and all(map(str.startswith, found, words))
    listed = barl(capsys, "models", "list", a_project)["models"][0]["damaged"]
    assert main(["models", "list", str(a_project)]) == 0
    shown = capsys.readouterr().out
    if what == "weights":  # the list does not read weights
        assert listed == [] and "damaged" not in shown
    else:
        assert listed == found[:1] and "mine (damaged)" in shown and found[0] in shown


@pytest.mark.parametrize("what", ["weights", "card", "folder", "patch"])
def test_a_sound_copy_takes_the_place_of_a_damaged_model(a_project, capsys, what):
    barl(capsys, "models", "import", a_project, SHIPPED, "--name", "mine", "--promote")
    place = a_project / "models/model_0001"
    damage(place, what)
    done = barl(capsys, "models", "import", a_project, SHIPPED)
    assert (done["model"], done["name"], done["current"]) == ("model_0001", "mine", True)
    assert any("its files were damaged: they were replaced" in note for note in done["notes"])
    assert {name: (place / name).read_bytes() for name in files()} == files()
    assert [path.name for path in (a_project / "models").iterdir()] == ["model_0001"]
    with Project.open(a_project) as project:
        assert len(project.models.all()) == 1 and project.verify(everything=True) == []
        assert project.journal.entries()[-1].action == "model repaired"
        with pytest.raises(ModelError, match="already: model_0001"):
            import_model(project, SHIPPED)


def test_a_damaged_model_keeps_no_other_one_out(a_project):
    """Entered by an earlier version, which kept no checksum of the weights: the lost folder could be any model's."""
    with Project.open(a_project) as project:
        lost, _ = import_model(project, SHIPPED)
        with project.database.write() as transaction:
            transaction.execute("UPDATE models SET summary = '{}'")
        damage(lost.folder, "folder")
        assert [found.problem[:14] for found in project.verify(everything=True)] == ["cannot be used"]
        assert import_model(project, SHIPPED)[0].id == "model_0002"
