# SPDX-License-Identifier: Apache-2.0
"""``barl models export``, ``import``, ``check`` and ``remove``: a model as one file that can be sent."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from barl.cli.command import command, project_folder
from barl.cli.terminal import Terminal
from barl.errors import InputError
from barl.project.model_card import CARD_FILE
from barl.project.store import Project

if TYPE_CHECKING:
    from barl.cli.command import Commands


def add_parsers(actions: Commands) -> None:
    """Add the commands to ``barl models``."""
    export = command(
        actions,
        "export",
        export_model,
        "write a model into one file that can be sent",
        "  barl models export study model.zip                  the current model\n"
        "  barl models export study model.zip --model model_0002\n"
        "  barl models export some/model/folder model.zip",
    )
    export.add_argument("where", type=Path, metavar="PROJECT_OR_MODEL", help="a project's or a model's folder")
    export.add_argument("file", type=Path, metavar="FILE", help="a new file; its name ends with .zip")
    export.add_argument("--model", help="id in the project (default: the current model)")

    importing = command(
        actions,
        "import",
        import_model,
        "check a model and copy it into a project, or into the place of its damaged copy there",
        "  barl models import study model.zip --promote",
    )
    project_folder(importing)
    importing.add_argument("model", type=Path, metavar="MODEL", help="a file that 'models export' wrote, or a folder")
    importing.add_argument("--name", default="", help="its name in the project; by default the name on its card")
    importing.add_argument("--promote", action="store_true", help="make it the one that predicts")

    check = command(
        actions,
        "check",
        check_model,
        "check a model: card, checksum, weights, network",
        "  barl models check model.zip",
    )
    check.add_argument(
        "model", type=Path, metavar="MODEL", help="a file that 'models export' wrote, or a model's folder"
    )

    remove = command(
        actions,
        "remove",
        remove_model,
        "delete the weights of a model; its card stays with what was made with it",
        "  barl models remove study model_0002",
    )
    project_folder(remove)
    remove.add_argument("model", help="its id")


def export_model(options: Namespace, terminal: Terminal) -> None:
    from barl.jobs import model_files

    if (options.where / CARD_FILE).is_file():
        if options.model:
            raise InputError(f"{options.where} is a model, not a project.", "Leave --model away.")
        card = model_files.export_model(None, options.where, options.file)
    else:
        with Project.open(options.where, read_only=True) as project:
            card = model_files.export_model(project, options.model, options.file)
    size = options.file.stat().st_size
    document = {"file": options.file, "bytes": size, "weights_sha256": card.weights_sha256}
    terminal.answer(document, f"Wrote {card.name} to {options.file} ({size / 2**20:.1f} MiB).")


def import_model(options: Namespace, terminal: Terminal) -> None:
    from barl.jobs import model_files

    with Project.open(options.project) as project:
        model, notes = model_files.import_model(project, options.model, name=options.name)
        if options.promote:
            model = project.models.promote(model.id)
    use = "It is the current model now." if model.is_current else f"Use it: barl models promote PROJECT {model.id}"
    text = "\n".join([f"Imported {model.name} as {model.id}. {use}", *(f"Note: {note}" for note in notes)])
    terminal.answer({"model": model.id, "name": model.name, "current": model.is_current, "notes": notes}, text)


def check_model(options: Namespace, terminal: Terminal) -> None:
    from barl.jobs import model_files

    card = model_files.check_model(options.model)
    terminal.answer(card.to_json(), f"The model is sound.\n{model_files.in_words(card)}")


def remove_model(options: Namespace, terminal: Terminal) -> None:
    with Project.open(options.project) as project:
        model = project.models.remove(options.model)
    terminal.answer({"removed": model.id}, f"Deleted the weights of {model.id}. Its card stays in {model.folder}.")
