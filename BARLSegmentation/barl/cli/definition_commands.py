# SPDX-License-Identifier: Apache-2.0
"""``barl project labels`` and ``channels``: show and change what a project is about."""

from __future__ import annotations

from argparse import Namespace, _SubParsersAction

from barl.cli.command import command, project_folder
from barl.cli.terminal import Terminal, table
from barl.errors import InputError
from barl.project.labels import Label
from barl.project.palette import label_color
from barl.project.sides import sided_values
from barl.project.store import Project


def add_parsers(actions: _SubParsersAction) -> None:
    """Add the commands to ``barl project``."""
    labels = command(
        actions,
        "labels",
        labels_command,
        "show the label table, add a label or rename one",
        "  barl project labels study\n"
        "  barl project labels study --add 3=cyst --reopen      accepted cases are reviewed again for the new label\n"
        '  barl project labels study --rename "1=liver tumor"\n'
        "  barl project labels study --set-lateral 2=no         its name sounds like a side, but it has none",
    )
    project_folder(labels)
    labels.add_argument("--add", action="append", default=[], metavar="VALUE=NAME", help="a new row")
    labels.add_argument("--rename", action="append", default=[], metavar="VALUE=NAME", help="another name for a row")
    labels.add_argument("--reopen", action="store_true", help="with --add: put accepted cases back to review")
    labels.add_argument("--lateral", action="store_true", help="with --add: the label is one of a left/right pair")
    labels.add_argument(
        "--set-lateral",
        action="append",
        default=[],
        metavar="VALUE=yes|no",
        help="whether a label is one of a left/right pair, whatever its name says; scans are mirrored if none is",
    )

    channels = command(
        actions,
        "channels",
        channels_command,
        "show the channels, rename one or change the pattern of its files",
        "  barl project channels study\n  barl project channels study --rename T1=T1w --pattern T1w=_T1w",
    )
    project_folder(channels)
    channels.add_argument("--rename", action="append", default=[], metavar="NAME=NEW", help="another name")
    channels.add_argument(
        "--pattern", action="append", default=[], metavar="NAME=PATTERN", help="text in the names of its files"
    )


def labels_command(options: Namespace, terminal: Terminal) -> None:
    if (options.reopen or options.lateral) and not options.add:
        raise InputError("--reopen and --lateral go with --add.", "Add a label with --add VALUE=NAME.")
    notes: list[str] = []
    changes = options.add or options.rename or options.set_lateral
    with Project.open(options.project, read_only=not changes) as project:
        definition = project.definition
        for text in options.rename:
            value, name = _row(text, "VALUE=NAME, such as 1=tumor")
            notes += definition.rename_label(value, name)
        for text in options.add:
            label = parse_label(text, len(definition.labels), [])
            sided = label.value in sided_values([*definition.labels, label])
            label = Label(label.value, label.name, label.color, lateral=options.lateral or sided)
            notes += definition.add_label(label, reopen=options.reopen)
        for text in options.set_lateral:
            value, answer = _row(text, "VALUE=yes or VALUE=no, such as 1=no")
            if answer not in ("yes", "no"):
                raise InputError(f"'{text}' is not understood.", "Write VALUE=yes or VALUE=no, such as 1=no.")
            notes += definition.set_lateral(value, answer == "yes")
        labels = project.labels
    rows = [[la.value, la.name, "#" + bytes(la.color).hex(), la.lateral, _coded(la)] for la in labels]
    text = table(rows, ["value", "name", "color", "lateral", "terminology"])
    terminal.answer({"labels": [label.to_json() for label in labels], "notes": notes}, "\n".join([text, *notes]))


def channels_command(options: Namespace, terminal: Terminal) -> None:
    notes: list[str] = []
    with Project.open(options.project, read_only=not (options.rename or options.pattern)) as project:
        for text in options.rename:
            name, new = _pair(text, "NAME=NEW, such as T1=T1w")
            notes += project.definition.change_channel(name, new_name=new)
        for text in options.pattern:
            name, _, pattern = text.partition("=")
            notes += project.definition.change_channel(name, pattern=pattern)
        channels = project.channels
    document = {"channels": [{"name": c.name, "pattern": c.pattern} for c in channels], "notes": notes}
    text = table([[c.name, c.pattern or None] for c in channels], ["channel", "pattern"])
    terminal.answer(document, "\n".join([text, *notes]))


def _pair(text: str, form: str) -> tuple[str, str]:
    name, _, other = text.partition("=")
    if not name.strip() or not other.strip():
        raise InputError(f"'{text}' is not understood.", f"Write it as {form}.")
    return name.strip(), other.strip()


def _row(text: str, form: str) -> tuple[int, str]:
    value, other = _pair(text, form)
    if not value.isdigit():
        raise InputError(f"'{value}' is not a value of a label.", f"Write {form}.")
    return int(value), other


def parse_label(text: str, position: int, lateral: list[int]) -> Label:
    """A label from VALUE=NAME, with a color by its position in the table."""
    value, _, name = text.partition("=")
    if not value.strip().isdigit() or not name.strip():
        raise InputError(f"'{text}' is not a row of a label table.", "Write it as VALUE=NAME, such as 1=tumor.")
    color = label_color(position)
    return Label(int(value), name.strip(), color, lateral=int(value) in lateral)


def _coded(label: Label) -> str | None:
    coded = label.terminology
    if coded is None:
        return None
    return ", ".join(code.meaning for code in (coded.type, coded.modifier) if code)
