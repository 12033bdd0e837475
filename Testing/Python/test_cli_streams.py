# SPDX-License-Identifier: Apache-2.0
"""Where nobody reads what a command writes: its work is done all the same, and the exit code says how it went."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from barl.cli import main
from test_cli_commands import TINY, write_ball

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pipes and devices of POSIX")

# The same command with a line of progress at every report, its output closed on the side of the reader.
_TALKATIVE = (
    "import sys; import barl.cli.terminal as t; t.LINE_INTERVAL_S = 0; from barl.cli import main; sys.exit(main())"
)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("streams")
    (place / "outlines").mkdir()
    write_ball(place, "s0", 0, place / "outlines")
    assert main(["project", "new", str(place / "p"), "--label", "1=ball"]) == 0
    assert main(["add", str(place / "p"), str(place / "s0.nii.gz"), "--label", str(place / "outlines/s0.nii.gz")]) == 0
    return place / "p"


def _unread(*words: object, **streams: int) -> int:
    """The exit code of a command; ``streams`` as for Popen, those not named are pipes that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    chosen = {"stdout": writer, "stderr": writer, **streams}
    done = subprocess.run([sys.executable, "-c", _TALKATIVE, *map(str, words)], check=False, timeout=120, **chosen)
    os.close(writer)
    return done.returncode


def test_a_training_goes_on_when_the_terminal_is_closed(project, capsys):
    assert _unread("train", project, "--iterations", 3, *TINY) == 0
    capsys.readouterr()
    assert main(["train", str(project), "--runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][-1]["state"] == "finished"


def test_exit_codes_do_not_depend_on_readers(project):
    assert _unread("project", "cases", project) == 0
    assert _unread("project", "cases", project / "missing") == 3
    assert _unread("project", "cases", project / "missing", "--json") == 3


def test_closed_streams_are_no_error(project, tmp_path):
    for number, streams in enumerate((">&-", "2>&-", ">&- 2>&-")):
        export = f'export "{project}" "{tmp_path}/{number}" --layout plain'  # reports its progress
        line = f'"{sys.executable}" -m barl.cli {export} {streams}'
        done = subprocess.run(line, shell=True, check=False, capture_output=True, timeout=60)
        assert done.returncode == 0, (streams, done.stderr)
    assert not (project / "barl.log").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_an_answer_that_does_not_fit_on_the_disk_is_one_sentence(project, form):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "barl.cli", "project", "cases", str(project), *form]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert done.returncode == 6
    assert done.stderr.startswith("barl: The answer could not be written") and len(done.stderr.splitlines()) == 1
