# SPDX-License-Identifier: Apache-2.0
"""Commands that messages, helps and documents quote are parsed by the real parser: each one works."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from barl.cli.parser import build_parser
from barl.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = REPOSITORY / "BARLSegmentation"
# In a message a command stands in quotation marks; in an example of a help it stands alone on a line.
QUOTED = re.compile(r"""(?<!\w)(["'])(barl [^"'`]*)\1""")
EXAMPLE = re.compile(r"^  (barl .*?)(?:   +.*)?$", re.MULTILINE)
# A remedy may also end with a command after a colon.
ENDING = re.compile(r""": (barl [a-z][^"'`:]*?)\.?$""")


def texts(path: Path) -> Iterator[str]:
    """The string literals of a file; what an f-string fills in becomes ``x``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(p.value) if isinstance(p, ast.Constant) else "x" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def quoted() -> list[tuple[str, str]]:
    """Where, and the command."""
    found = []
    for path in sorted(MODULE.rglob("*.py")):
        for text in texts(path):
            commands = [match[1] for match in QUOTED.findall(text) if "``" not in text] + EXAMPLE.findall(text)
            commands += ENDING.findall(text)
            found += [(path.name, command) for command in commands]
    for path in (REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        commands = re.findall(r"`(barl [^`]+)`", text) + re.findall(r"^(barl .*?)(?:\s+#.*)?$", text, re.MULTILINE)
        found += [(path.name, command) for command in commands]
    return found


COMMANDS = quoted()


def test_there_are_commands_to_try():
    assert len(COMMANDS) > 40
    assert {"train_commands.py", "cases.py", "README.md"} <= {where for where, _ in COMMANDS}


@pytest.mark.parametrize(("where", "command"), sorted(set(COMMANDS)))
def test_a_quoted_command_works(where, command):
    words = shlex.split(command)[1:]
    if len(words) == 2 and words[1].startswith("--"):  # `barl train --method`: the name of an option
        assert words[1] in options(build_parser()), where
        return
    try:
        build_parser().parse_args(words)
    except InputError as error:
        # A document may name a command without its arguments; a message to a user quotes it whole.
        named = where.endswith(".md") and "are required" in str(error) and not any("-" in word for word in words)
        if not named:
            pytest.fail(f"{where}: {command!r}: {error}")
    except SystemExit as end:
        assert end.code == 0, command  # --help


def options(parser: argparse.ArgumentParser) -> set[str]:
    """All options of a parser and its commands."""
    found = set()
    for action in parser._actions:
        found |= set(action.option_strings)
        for command in action.choices.values() if isinstance(action.choices, dict) else ():
            found |= options(command)
    return found


def test_options_that_the_engine_names_exist():
    known = options(build_parser())
    for path in sorted((MODULE / "barl").rglob("*.py")):
        # Those of the demo, of the benchmark, of pip and of Slurm are not ours.
        if path.parts[-2] not in ("demo", "benchmark", "remote") and path.parts[-2:] != ("jobs", "cluster.py"):
            for text in texts(path):
                for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text):
                    assert option in known, f"{path.name}: {text!r}"
