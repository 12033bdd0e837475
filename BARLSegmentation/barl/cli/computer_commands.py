# SPDX-License-Identifier: Apache-2.0
"""``barl computer``, and what ``barl predict`` and ``barl train`` do on another computer."""

from __future__ import annotations

import argparse
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from barl.cli.command import command
from barl.cli.terminal import Terminal

if TYPE_CHECKING:
    from barl.cli.command import Commands
    from barl.jobs.train_job import TrainingOptions
    from barl.remote.computer import Computer
    from barl.remote.near import NearHandlers

# barl.remote imports torch's users: it is imported inside functions, so that the other commands answer at once.


def add_parser(commands: Commands) -> None:
    """Add ``barl computer`` with its actions."""
    computer = command(
        commands,
        "computer",
        None,
        "use another computer, reached by ssh, to predict and to train",
        "  barl computer check ana@workstation\n"
        "  barl computer prepare ana@workstation          install what is missing there\n"
        "  barl train study --minutes 30 --computer ana@workstation",
    )
    actions = computer.add_subparsers(title="actions", metavar="ACTION")
    for example, run, text in (
        ("  barl computer check ana@workstation", check, "say what another computer has and what is missing there"),
        (
            "  barl computer prepare ana@workstation",
            prepare,
            "make an environment for BARL there and install what is missing",
        ),
        (
            "  barl computer forget ana@workstation",
            forget,
            "remove what was sent there; trainings that run there go on",
        ),
    ):
        action = command(actions, example.split()[2], run, text, example)
        action.add_argument("address", metavar="ADDRESS", help="as for ssh, which must connect without a question")
        _python(action)


def computer_options(parser: argparse.ArgumentParser) -> None:
    """Let a command compute on another computer."""
    parser.add_argument("--computer", metavar="ADDRESS", help="compute on this computer, reached by ssh: user@host")
    _python(parser)


def _python(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--computer-python", default="", metavar="PATH", help="its Python; by default the one that was prepared"
    )


def check(options: Namespace, terminal: Terminal) -> int:
    found = _computer(options, options.address).look()
    return _tell(options, terminal, found)


def prepare(options: Namespace, terminal: Terminal) -> int:
    terminal.note(f"Installing on {options.address}. This takes minutes and some GB there.")
    found = _computer(options, options.address).prepare()
    return _tell(options, terminal, found)


def forget(options: Namespace, terminal: Terminal) -> None:
    from barl.remote.messages import Forget

    worker = _computer(options, options.address).start()
    try:
        worker.call(Forget())
    finally:
        worker.close()
    terminal.answer({"address": options.address}, f"{options.address} keeps no file of a project any more.")


def predict(options: Namespace, terminal: Terminal, cases: list[str]) -> dict[str, Any]:
    """Predict cases of a project on another computer; the answer is that of ``barl.jobs.predict.predict_cases``."""
    from barl.worker.messages import Predict

    near = _near(options)
    try:
        request = Predict(
            options.inputs[0],
            cases or None,
            options.model,
            options.device,
            options.fast,
            options.roi,
            not options.no_cleanup,
        )
        return near.predict(terminal, request)
    finally:
        near.close()


def start_training(options: Namespace, terminal: Terminal, training: TrainingOptions) -> str:
    """Start a training on another computer; gives the run's id here."""
    import dataclasses

    from barl.worker.messages import StartTraining

    near = _near(options)
    try:
        started = near.start_training(terminal, StartTraining(str(options.project), dataclasses.asdict(training)))
    finally:
        near.close()
    for note in started.notes:
        terminal.note(note)
    return started.run


def _near(options: Namespace) -> NearHandlers:
    from barl.remote.near import NearHandlers

    return NearHandlers(_computer(options, options.computer))


def _computer(options: Namespace, address: str) -> Computer:
    from barl.remote.computer import Computer

    return Computer(address, options.computer_python)


def _tell(options: Namespace, terminal: Terminal, found: Any) -> int:
    text = found.in_words()
    if not found.is_ready and found.python_is_new_enough:
        text += f' Install it with "barl computer prepare {options.address}".'
    document = {"python": found.python, "missing": list(found.missing), "ready": found.is_ready}
    terminal.answer(document, text)
    return 0 if found.is_ready else 1
