# SPDX-License-Identifier: Apache-2.0
"""The command line from an empty folder to a better model, as a newcomer would go."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.cli import main, train_commands
from barl.cli.parser import build_parser
from barl.cli.terminal import Terminal, table
from barl.jobs.failures import write_log
from barl.project.labels import Channel, Label
from barl.project.store import Project

TINY = ["--device", "cpu", "--set", "widths=[4,8]", "--set", "patch=[16,16,16]", "--set", "loader_workers=0"]


def write_ball(folder: Path, name: str, seed: int, outlines: Path | None = None) -> None:
    rng = np.random.default_rng(seed)
    center = rng.uniform(8, 12, 3)
    mask = sum((axis - c) ** 2 for axis, c in zip(np.indices((20, 22, 24)), center, strict=True)) < 25
    scan = (100 * mask + rng.normal(0, 10, mask.shape)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(scan), str(folder / f"{name}.nii.gz"))
    if outlines is not None:
        sitk.WriteImage(sitk.GetImageFromArray(mask.astype(np.uint8)), str(outlines / f"{name}.nii.gz"))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Scans, outlines of two of them, and the truth of a third."""
    place = tmp_path_factory.mktemp("cli")
    for name in ("scans", "outlines", "truth"):
        (place / name).mkdir()
    for number in range(5):
        outlines = place / ("outlines" if number < 3 else "truth")
        write_ball(place / "scans", f"s{number}", number, outlines)
    return place


def barl(capsys, *words, code: int = 0):
    """Run a command; gives its JSON document."""
    assert main([*map(str, words), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_help_names_every_method(capsys):
    from barl import methods

    with pytest.raises(SystemExit):
        main(["train", "--help"])
    words = re.split(r"[\s,:()]+", capsys.readouterr().out)
    assert set(methods.available()) <= set(words)


def test_a_word_too_many_points_to_the_help_of_its_command(place, capsys):
    assert main(["models", "list", "study", "s0"]) == 2
    assert 'Unrecognized arguments: s0. See "barl models list --help".' in capsys.readouterr().err


def test_the_usual_way(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    made = barl(capsys, "project", "new", "study", "--label", "1=ball", "--channel", "CT")
    assert made["name"] == "study" and made["channels"] == ["CT"]
    added = barl(capsys, "add", "study", "--images", "scans", "--labels", "outlines")
    assert [case["state"] for case in added["cases"]] == ["accepted"] * 3 + ["new"] * 2
    assert barl(capsys, "project", "mark", "study", "s2", "--held-out", "yes")["cases"][0]["held_out"]
    plan = barl(capsys, "train", "study", "--plan", "--iterations", 3, *TINY)
    assert plan["plan"]["iterations"] == 3 and plan["plan"]["patch"] == [16, 16, 16]
    assert barl(capsys, "train", "study", "--runs")["runs"] == []  # a plan starts nothing
    trained = barl(capsys, "train", "study", "--iterations", 3, *TINY)
    assert (trained["state"], trained["model"], trained["current"]) == ("finished", "model_0001", True)
    predicted = barl(capsys, "predict", "study", "--device", "cpu")
    assert {case["name"] for case in predicted["cases"]} == {"s3", "s4"}
    assert predicted["compared"] == ["s0", "s1"] and barl(capsys, "project", "history", "study", "--case", "s0")
    assert barl(capsys, "project", "history", "study", "s0") == barl(
        capsys, "project", "history", "study", "--case", "s0"
    )
    following = barl(capsys, "next", "study")["next"]
    assert {case["name"] for case in following} == {"s3", "s4"} and all(case["reason"] for case in following)
    by_rule = barl(capsys, "next", "study", "--rule", "uncertain")["next"]
    assert by_rule[0]["score"] >= by_rule[1]["score"] and by_rule[0]["reason"].startswith("uncertain")
    stored = barl(capsys, "project", "accept", "study", "s3", "truth/s3.nii.gz")
    assert Path(stored["label"]).is_file()
    again = barl(
        capsys, "train", "study", "--iterations", 2, "--promote", "--then-predict", "--device", "cpu",
        "--set", "loader_workers=0",
    )  # fmt: skip
    assert [case["name"] for case in again["predicted"]["cases"]] == ["s4"]
    assert (again["model"], again["current"]) == ("model_0002", True)
    models = barl(capsys, "models", "list", "study")["models"]
    assert [model["name"].split(",")[:2] for model in models] == [["BARL", " 2 outlined"], ["BARL", " 3 outlined"]]
    assert [(model["id"], model["parent"]) for model in models] == [("model_0001", None), ("model_0002", "model_0001")]
    barl(capsys, "models", "promote", "study", "model_0001")
    shown = barl(capsys, "models", "show", "study")
    assert shown["channels"] == ["CT"] and Path(shown["folder"]).name == "model_0001"
    scores = barl(capsys, "evaluate", "study", "--model", "model_0002", "--device", "cpu")
    assert scores["labels"]["1"]["dice"]["n"] == 1
    exported = barl(capsys, "export", "study", "dataset")
    assert len(exported["training"]) == 3 and len(exported["held_out"]) == 1
    assert barl(capsys, "project", "verify", "study") == {"damaged": []}
    show = barl(capsys, "project", "show", "study")
    assert show["cases"] == {"new": 0, "predicted": 1, "in_review": 0, "accepted": 4, "excluded": 0}
    assert main(["train", "study", "--then-predict", "--detach"]) == 2
    assert "--then-predict needs a training that this terminal watches" in capsys.readouterr().err
    predicts_without_a_project(capsys, shown["folder"])
    answers_people_in_words(capsys)


def predicts_without_a_project(capsys, model):
    words = ["predict", "--model", model, "--output", "out.nii.gz", "--uncertainty", "u.nii.gz"]
    assert main([*words, "--device", "cpu", "--fast", "scans/s4.nii.gz"]) == 0
    assert "Wrote out.nii.gz." in capsys.readouterr().out
    scan, label, uncertainty = (sitk.ReadImage(name) for name in ("scans/s4.nii.gz", "out.nii.gz", "u.nii.gz"))
    assert label.GetSize() == scan.GetSize() == uncertainty.GetSize()


def answers_people_in_words(capsys):
    for words in (
        ["project", "show", "study"], ["project", "cases", "study"], ["project", "labels", "study"],
        ["project", "history", "study", "--case", "s3"], ["models", "list", "study"], ["models", "show", "study"],
        ["next", "study"], ["train", "study", "--runs"], ["train", "study", "--attach", "run_0001"],
    ):  # fmt: skip
        assert main(words) == 0
        assert len(capsys.readouterr().out) > 10, words


def test_several_channels_find_their_files_by_pattern(tmp_path, capsys):
    for name in ("a_T1", "a_T1c", "b_T1", "b_T1c"):
        write_ball(tmp_path, name, sum(map(ord, name)))
    project = tmp_path / "p"
    barl(capsys, "project", "new", project, "--label", "1=ball", "--channel", "T1=_T1", "--channel", "T1c=_T1c")
    added = barl(capsys, "add", project, "--images", tmp_path)
    assert [case["name"] for case in added["cases"]] == ["a", "b"]
    (tmp_path / "b_T1c.nii.gz").unlink()
    failed = barl(capsys, "add", project, "--images", tmp_path, code=2)["failed"]
    assert any("'b' has no file of channel T1c" in item["message"] for item in failed)


def test_evaluate_prints_each_case_and_the_three_lowest(monkeypatch, tmp_path, capsys):
    def scores(dice: float) -> dict:
        return {"dice": dice, "hd95_mm": 10 * (1 - dice)}

    dice = {"s1": 0.9, "s2": 0.7, "s3": 0.8, "s4": float("nan"), "s5": 0.85}
    row = {
        **{key: {"mean": 1.0} for key in ("hd95_mm", "assd_mm", "surface_dice", "lesion_f1")},
        "dice": {"mean": 0.8, "n": 4},
    }
    result = {
        "model": "model_0001",
        "labels": {"1": {"name": "ball", **row}},
        "mean": {"name": "mean", **row},
        "calibration_error": 0.1,
        "risk_coverage_area": 0.1,
        "cases": [{"case": n, "name": n, "member": None, "labels": {"1": scores(d)}} for n, d in dice.items()],
        "notes": [],
    }
    monkeypatch.setattr("barl.jobs.evaluate.evaluate_model", lambda *_, **__: result)
    main(["project", "new", str(tmp_path / "p"), "--label", "1=ball"])
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "p")]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(n for n, line in enumerate(lines) if line.split() == ["case", "Dice", "HD95", "mm"])
    assert [line.split() for line in lines[start + 1 : start + 6]] == [
        ["s2", "0.700", "3.000"], ["s3", "0.800", "2.000"], ["s5", "0.850", "1.500"], ["s1", "0.900", "1.000"],
        ["s4", "-", "-"],
    ]  # fmt: skip
    assert "Lowest Dice: s2 (0.700), s3 (0.800), s5 (0.850). Look at these first." in lines


def test_labels_from_a_table_and_states(tmp_path, capsys):
    project = tmp_path / "p"
    (tmp_path / "table.json").write_text(
        json.dumps([{"value": 3, "name": "left", "color": [1, 2, 3], "lateral": True}]), encoding="utf-8-sig"
    )
    barl(capsys, "project", "new", project, "--labels", tmp_path / "table.json", "--label", "4=right", "--lateral", 4)
    labels = barl(capsys, "project", "labels", project)["labels"]
    assert [(la["value"], la["lateral"]) for la in labels] == [(3, True), (4, True)] and labels[0]["color"] == [1, 2, 3]
    write_ball(tmp_path, "s", 0)
    barl(capsys, "add", project, tmp_path / "s.nii.gz", "--name", "one")
    assert barl(capsys, "project", "mark", project, "one", "--exclude")["cases"][0]["state"] == "excluded"
    assert barl(capsys, "project", "mark", project, "one", "--include")["cases"][0]["state"] == "new"
    assert barl(capsys, "project", "accept", project, "one", code=2)["error"]["class"] == "InputError"


def test_every_command_has_help_with_an_example(capsys):
    def walk(parser, words):
        actions = [a for a in parser._actions if hasattr(a, "choices") and isinstance(a.choices, dict)]
        yield words, parser
        for action in actions:
            for name, child in action.choices.items():
                yield from walk(child, [*words, name])

    seen = list(walk(build_parser(), []))
    assert len(seen) >= 18
    for words, parser in seen:
        text = parser.format_help()
        assert "barl " in text
        if words:
            examples = [line.strip() for line in text.partition("Example")[2].splitlines() if "barl " in line]
            assert examples, words
        for line in re.findall(r"^  (barl .*)$", text, re.MULTILINE):
            command = re.split(r"\s{2,}", line)[0]
            build_parser().parse_args(_split(command))  # the examples are words that exist


def _split(command: str) -> list[str]:
    import shlex

    return shlex.split(command)[1:]


def test_help_and_lists_do_not_wait_for_torch():
    code = "import sys, barl.cli; barl.cli.build_parser(); sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unforeseen_error_is_one_sentence_and_a_log(tmp_path, capsys, monkeypatch):
    project = tmp_path / "p"
    main(["project", "new", str(project), "--label", "1=a"])
    capsys.readouterr()

    def fail(*_):
        raise ZeroDivisionError("in /home/somebody/Mueller/scan.nii")

    monkeypatch.setattr("barl.project.cases.Cases.all", fail)
    assert main(["project", "cases", str(project)]) == 1
    seen = capsys.readouterr()
    assert seen.out == "" and len(seen.err.splitlines()) == 1 and "Traceback" not in seen.err
    assert str(project / "barl.log") in seen.err
    assert "Mueller" not in (project / "barl.log").read_text()


@pytest.mark.parametrize("words", [["project", "show"], ["project", "cases"], ["evaluate"], ["predict"], ["add"]])
def test_a_path_that_no_drive_takes_is_one_sentence(words, tmp_path, capsys):
    place = str(tmp_path / ("x" * 300))
    assert main([*words, place, *(["scan.nii.gz"] if words == ["add"] else [])]) in (2, 3)
    seen = capsys.readouterr()
    assert seen.out == "" and len(seen.err.splitlines()) == 1 and "File name too long" in seen.err
    assert "Check the path" in seen.err and "did not foresee" not in seen.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([""], "COMMAND"),
        (["train", ""], "PROJECT: the value is empty"),
        (["train", "p", "--computer", ""], "--computer: the value is empty"),
        (["predict", "p", "--model="], "--model: the value is empty"),
    ],
)
def test_an_empty_argument_is_not_taken_for_the_current_folder_or_for_none(words, said, capsys):
    assert main(words) == 2
    seen = capsys.readouterr()
    assert said in seen.err and len(seen.err.splitlines()) == 1 and "did not foresee" not in seen.err


def test_a_network_drive_that_is_gone_is_one_sentence(tmp_path, capsys, monkeypatch):
    def is_dir(path: Path) -> bool:
        raise OSError(errno.ESTALE, "Stale file handle", str(path))

    monkeypatch.setattr(Path, "is_dir", is_dir)
    assert main(["project", "show", str(tmp_path)]) == 3
    assert "cannot be read (Stale file handle). Check the path" in capsys.readouterr().err
    assert write_log(OSError("gone"), tmp_path) == Path("(no log could be written)")


def test_a_run_that_nothing_trains_is_told_to_who_waits_for_it(tmp_path, capsys, monkeypatch):
    with Project.create(tmp_path / "my study", "p", [Label(1, "a")], [Channel("CT")]) as project:
        run = project.runs.new({"run": {}})  # what a process leaves that is killed before it starts the training
    looks = iter(range(3))
    monkeypatch.setattr(train_commands.time, "sleep", lambda _: None if next(looks, None) is not None else 1 / 0)
    assert main(["train", str(tmp_path / "my study"), "--attach"]) == 1
    told = capsys.readouterr().err
    assert told.count("nothing trains it yet") == 1 and f"my study' --resume {run.id}" in told


def test_names_do_not_steer_the_terminal(tmp_path, capsys):
    project = tmp_path / "p"
    main(["project", "new", str(project), "--label", "1=a"])
    write_ball(tmp_path, "s", 0)
    main(["add", str(project), str(tmp_path / "s.nii.gz"), "--name", "one"])
    with closing(sqlite3.connect(project / "project.db")) as database:  # as somebody else could have made it
        database.execute("UPDATE cases SET name = 'one' || char(27) || '[2J'")
        database.commit()
    capsys.readouterr()
    assert main(["project", "cases", str(project)]) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert main(["project", "rename", str(project), "one\x1b[2J", "\x1b[31mred"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_progress_is_silent_without_a_terminal_and_tables_line_up(capsys):
    terminal = Terminal()
    terminal.progress.stage("predicting").at(0.5)
    assert capsys.readouterr() == ("", "")
    text = table([["a", 1.0], ["long", None]], ["name", "x"])
    assert text.splitlines() == ["name      x", "a     1.000", "long      -"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_saves_a_checkpoint_and_the_run_can_be_resumed(place, tmp_path, capsys):
    project = tmp_path / "p"
    barl(capsys, "project", "new", project, "--label", "1=ball")
    barl(capsys, "add", project, "--images", place / "scans", "--labels", place / "outlines")
    command = [sys.executable, "-m", "barl.cli", "train", str(project), "--iterations", "100000", *TINY, "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    events = project / "runs" / "run_0001" / "events.jsonl"
    end = time.monotonic() + 120
    while not (events.exists() and '"stage":"training"' in events.read_text()) and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and json.loads(out)["state"] == "stopped" and "checkpoint" in err
    assert (events.parent / "checkpoint.safetensors").is_file()
    assert barl(capsys, "train", project, "--runs")["runs"][0]["state"] == "stopped"
