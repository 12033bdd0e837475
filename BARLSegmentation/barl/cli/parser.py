# SPDX-License-Identifier: Apache-2.0
"""The commands of ``barl``, their arguments and their help."""

from __future__ import annotations

import argparse
import re
import sys
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from barl import __version__
from barl.cli import (
    case_commands,
    cluster_commands,
    computer_commands,
    definition_commands,
    fill_commands,
    import_commands,
    model_commands,
    model_file_commands,
    outline_commands,
    predict_commands,
    train_commands,
)
from barl.cli.command import (
    command,
    device_option,
    looked_options,
    project_folder,
    resample_option,
    segment_option,
    show_help,
)
from barl.cli.dataset_commands import dataset_options
from barl.cli.folder_commands import folder_options
from barl.errors import InputError
from barl.project.doubts import Doubt
from barl.project.export import LAYOUTS
from barl.project.next_case import RULES

if TYPE_CHECKING:
    from barl.cli.command import Commands

# Slicer's package leaves out the report, the benchmark and the methods to compare with.
_FOR_RESEARCH = find_spec("barl.benchmark") is not None
_PEERS = (
    "bcp, cps, crossmatch, dtc, entmin, ict, mc_net_plus, mean_teacher, sassnet, sdcl, ss_net, ua_mt, unimatch, urpc"
)
_OVERVIEW = """\
BARL turns a few outlined scans and many untouched ones into a segmentation model.

The usual way:
  barl project new study --label 1=tumor                make a project with its label table
  barl add study --images scans/ --labels outlines/     add scans, some of them outlined
  barl train study --minutes 30                         train on outlined and untouched scans
  barl predict study                                    predict all scans that need an outline
  barl next study                                       which one to correct next, and why
  barl project accept study case7 fixed.nii.gz          store the corrected outline
  barl train study                                      train on, from the model there is
  barl evaluate study                                   how good it is on the held-out scans
  barl report study                                     all of it as one page with pictures
"""


class _Parser(argparse.ArgumentParser):
    """Raises an ``InputError`` for wrong arguments: they are reported like every other bad input. Options are whole."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        mistyped = re.search(
            r"invalid choice: '([^']*)' \(choose from (.*)\)|unrecognized arguments: (--[\w-]+)", message
        )
        remedy = f'See "{self._typed_command().prog} --help".'
        if mistyped:
            word, choices, option = mistyped.groups()
            known = re.findall(r"[\w-]+", choices) if choices else self._all_options()
            close = get_close_matches(word or option or "", known, n=1)
            message = f"there is no '{word or option}' here" if close else message
            remedy = f"Did you mean {close[0]}?" if close else remedy
        raise InputError(f"{message[:1].upper()}{message[1:]}.", remedy)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """Refuse what is empty, as an unset variable of the shell is: ``Path("")`` is the current folder."""
        is_command = isinstance(action, argparse._SubParsersAction)  # gets all that follows it
        if not arg_string and "" not in (action.default, action.const) and not is_command:
            raise argparse.ArgumentError(action, "the value is empty, as that of an unset variable is")
        return super()._get_value(action, arg_string)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._typed = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def _typed_command(self) -> argparse.ArgumentParser:
        """The parser of the command that was typed: the one of ``barl`` finds what no command knows."""
        found: argparse.ArgumentParser = self
        for word in self._typed:
            commands = next((a.choices for a in found._actions if isinstance(a, argparse._SubParsersAction)), {})
            found = commands.get(word, found)
        return found

    def _all_options(self) -> list[str]:
        """Options of this parser and of its commands: an unknown one is found by the parser of ``barl``."""
        found = list(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for child in action.choices.values():
                    found += child._all_options() if isinstance(child, _Parser) else []
        return found


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``barl``; the namespace it gives has ``run``, the function that does the command."""
    parser = _Parser(prog="barl", description=_OVERVIEW, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"barl {__version__}")
    parser.set_defaults(run=show_help(parser))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _project(commands)
    _add(commands)
    _train(commands)
    predict_commands.add_parser(commands)
    import_commands.add_parser(commands)
    _evaluate(commands)
    _next(commands)
    if find_spec("barl.report") is not None:
        from barl.cli import report_commands

        report_commands.add_parser(commands)
    fill_commands.add_parser(commands)
    _export(commands)
    _models(commands)
    computer_commands.add_parser(commands)
    if _FOR_RESEARCH:
        from barl.cli import benchmark_commands, simulate_command

        benchmark_commands.add_parser(commands)
        simulate_command.add_parser(commands)
    return parser


def _project(commands: Commands) -> None:
    project = command(
        commands,
        "project",
        None,
        "make a project, look at it, accept outlines",
        "  barl project new study --label 1=tumor",
    )
    actions = project.add_subparsers(title="actions", metavar="ACTION")
    _new(actions)
    _show(actions)
    definition_commands.add_parsers(actions)
    _cases(actions)
    outline_commands.add_parsers(actions)
    _mark(actions)
    _rename(actions)
    _delete(actions)
    _verify(actions)


def _new(actions: Commands) -> None:
    new = command(
        actions,
        "new",
        case_commands.new_project,
        "make a project in a new folder",
        "  barl project new study --label 1=tumor --label 2=edema --channel T1 --channel FLAIR\n"
        '  barl project new knees --label "1=left meniscus" --label "2=right meniscus" --lateral 1 --lateral 2\n'
        "  barl project new study --like Dataset004_Hippocampus/      labels and channels of a data set",
    )
    project_folder(new)
    new.add_argument("--name", help="its name in lists and titles; the folder's name by default")
    new.add_argument("--label", action="append", default=[], metavar="VALUE=NAME", help="a row of the label table")
    new.add_argument(
        "--lateral",
        action="append",
        type=int,
        default=[],
        metavar="VALUE",
        help="this label is one of a left/right pair: never mirror it",
    )
    new.add_argument("--like", type=Path, metavar="FOLDER", help="labels and channels of a data set (dataset.json)")
    new.add_argument(
        "--not-lateral",
        action="append",
        type=int,
        default=[],
        metavar="VALUE",
        help="this label is of no side, whatever its name says",
    )
    new.add_argument("--labels", type=Path, metavar="FILE", help="label table as JSON, with colors and terminology")
    new.add_argument(
        "--channel",
        action="append",
        default=[],
        metavar="NAME[=PATTERN]",
        help="an image of each case; PATTERN is in the names of its files (default: one, 'image')",
    )


def _show(actions: Commands) -> None:
    show = command(
        actions, "show", case_commands.show_project, "show what a project holds", "  barl project show study"
    )
    project_folder(show)


def _cases(actions: Commands) -> None:
    cases = command(
        actions, "cases", case_commands.list_cases, "list the cases", "  barl project cases study --state predicted"
    )
    project_folder(cases)
    cases.add_argument("--state", help="only those that are new, predicted, in_review, accepted or excluded")
    cases.add_argument("--deleted", action="store_true", help="the deleted ones that can be brought back")


def _mark(actions: Commands) -> None:
    mark = command(
        actions,
        "mark",
        case_commands.mark,
        "leave cases out, or hold them out for evaluation",
        "  barl project mark study case3 case4 --held-out yes\n  barl project mark study case9 --exclude",
    )
    project_folder(mark)
    mark.add_argument("cases", nargs="+", metavar="CASE", help="names of cases")
    mark.add_argument("--held-out", choices=("yes", "no"), help="never train on them, evaluate on them")
    excluded = mark.add_mutually_exclusive_group()
    excluded.add_argument("--exclude", action="store_true", help="leave them out of everything")
    excluded.add_argument("--include", action="store_true", help="take them in again")


def _rename(actions: Commands) -> None:
    rename = command(
        actions, "rename", case_commands.rename, "rename a case", "  barl project rename study case7 knee7"
    )
    project_folder(rename)
    rename.add_argument("case", help="name or id of the case")
    rename.add_argument("name", help="its new name")


def _delete(actions: Commands) -> None:
    delete = command(
        actions,
        "delete",
        case_commands.delete,
        "take cases out of a project; their files stay until --erase",
        "  barl project delete study case9\n"
        "  barl project delete study case9 --erase       remove its images and outlines for good",
    )
    project_folder(delete)
    delete.add_argument("cases", nargs="+", metavar="CASE", help="names or ids of cases")
    delete.add_argument("--erase", action="store_true", help="with all files; they cannot be brought back")

    undelete = command(
        actions,
        "undelete",
        case_commands.undelete,
        "bring a deleted case back",
        "  barl project undelete study case_0009\n  barl project undelete study case_0009 --name other",
    )
    project_folder(undelete)
    undelete.add_argument("case", help="its id, or the name that it had")
    undelete.add_argument("--name", help="another name, if the old one is taken")


def _verify(actions: Commands) -> None:
    restore = command(
        actions,
        "restore",
        case_commands.restore,
        "put a copy of a damaged or missing project.db back",
        "  barl project restore study                       the copy that BARL keeps\n"
        "  barl project restore study --from backup/project.db",
    )
    project_folder(restore)
    restore.add_argument("--from", dest="copy", type=Path, metavar="FILE", help="a copy of project.db")
    restore.add_argument("--force", action="store_true", help="even if the present project.db is sound")

    verify = command(
        actions,
        "verify",
        case_commands.verify,
        "check all files against their checksums",
        "  barl project verify study",
    )
    project_folder(verify)


def _add(commands: Commands) -> None:
    add = command(
        commands,
        "add",
        case_commands.add,
        "add scans (NIfTI, NRRD, MHA or a DICOM folder) to a project",
        "  barl add study scan7.nii.gz --label outline7.nii.gz\n"
        "  barl add study p1_T1.nii.gz p1_FLAIR.nii.gz --name p1      one case of two channels\n"
        "  barl add study scan8.nii.gz --label planes8.nii.gz --ignore 9   a partial outline: 9 is not looked at\n"
        "  barl add study --images scans/ --labels outlines/          a whole folder, outlines by equal file name\n"
        "  barl add study --images ward/ --labels ward/               a folder for each case, its outline in it\n"
        "  barl add study --images pacs/ --series PET                 a DICOM folder for each case, the series PET\n"
        "  barl add study --labels outlines/                          outlines of cases that are there already\n"
        "  barl add study --images scans/ --anonymous                 numbers instead of names\n"
        "  barl add study disc/ --list-series                         which series a DICOM folder holds\n"
        "  barl add study disc/ --series 3 --name p2                  one of them\n"
        "  barl add study Dataset004_Hippocampus/ --plan              a data set of nnU-Net, the Decathlon or BIDS",
    )
    project_folder(add)
    add.add_argument(
        "scan",
        type=Path,
        nargs="*",
        metavar="SCAN",
        help="one case: a file (or DICOM folder) per channel; or the folder of a data set",
    )
    add.add_argument("--name", help="name of the case; the file's name by default")
    add.add_argument("--label", type=Path, help="its outline, stored as accepted")
    looked_options(add)
    add.add_argument(
        "--series",
        action="append",
        default=[],
        metavar="SERIES",
        help="which series of a DICOM folder: its number or a part of its description; once for each channel",
    )
    resample_option(add)
    segment_option(add)
    add.add_argument("--list-series", action="store_true", help="list the series of DICOM folders and add nothing")
    add.add_argument(
        "--images", type=Path, metavar="FOLDER", help="add every scan in it, or every case of which it holds a folder"
    )
    add.add_argument("--labels", type=Path, metavar="FOLDER", help="their outlines; a scan without one stays untouched")
    dataset_options(add)
    add.add_argument("--held-out", action="store_true", help="never train on them, evaluate on them")
    add.add_argument(
        "--allow",
        action="append",
        default=[],
        type=Doubt,
        choices=(Doubt.EMPTY, Doubt.DIFFERENT, Doubt.SAME_SCAN, Doubt.LABEL_MAP, Doubt.NAME),
        help="confirm an empty outline, one unlike the accepted one, the scan of another case, a scan that looks like "
        "a label map, or names that may be patients'",
    )
    folder_options(add)
    add.add_argument("--group", default="", help="the subject, if several cases are of one: it is held out as a whole")


_EFFORTS = "quick, standard or thorough: network and length together; without it the network follows --minutes"


def _train(commands: Commands) -> None:
    train = command(
        commands,
        "train",
        train_commands.train,
        "train a model on the outlined and the untouched scans",
        "  barl train study --minutes 30\n"
        "  barl train study --effort quick     a first look; standard and thorough train larger networks for longer\n"
        "  barl train study --detach           goes on when the terminal is closed\n"
        "  barl train study --attach           look at it again; --stop saves and ends it, --cancel ends it at once\n"
        "  barl train study --resume           go on with a run that was stopped or interrupted",
    )
    project_folder(train)
    what = train.add_mutually_exclusive_group()
    for name, text in (
        ("resume", "go on with a run (default: the newest unfinished one)"),
        ("attach", "watch a run until it ends (default: the newest)"),
        ("stop", "have a run write a checkpoint and end (default: the one that is training)"),
        ("cancel", "end a run at once, with all its processes (default: the one that is training)"),
    ):
        what.add_argument(f"--{name}", nargs="?", const="", metavar="RUN", help=text)
    what.add_argument("--runs", action="store_true", help="list the runs")
    what.add_argument("--plan", action="store_true", help="only show what would be done")
    train.add_argument("--minutes", type=float, help="time budget; without any budget the plan chooses")
    train.add_argument("--effort", metavar="WORD", help=_EFFORTS)
    train.add_argument("--iterations", type=int, help="iteration budget")
    train.add_argument(
        "--method",
        help="barl (default), dbisl, supervised" + (f", or one to compare with: {_PEERS}" if _FOR_RESEARCH else ""),
    )
    train.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="K trainings, each without one part of the outlined cases, which judges it; together they are the model",
    )
    train.add_argument("--seed", type=int, help="seed of the random numbers")
    train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of the plan")
    train.add_argument("--from-scratch", action="store_true", help="do not start from the current model")
    train.add_argument("--promote", action="store_true", help="make the new model the current one when it is done")
    train.add_argument(
        "--then-predict",
        action="store_true",
        help="predict the cases that need an outline, if the new model is the current one",
    )
    train.add_argument(
        "--gpus", type=int, default=1, metavar="N", help="share each step among N graphics cards of this computer"
    )
    train.add_argument("--detach", action="store_true", help="train in the background, beyond this terminal")
    device_option(train)
    computer_commands.computer_options(train)
    cluster_commands.cluster_options(train)


def _evaluate(commands: Commands) -> None:
    evaluate = command(
        commands,
        "evaluate",
        model_commands.evaluate,
        "measure a model on the held-out cases",
        "  barl evaluate study\n  barl evaluate study --model model_0002",
    )
    project_folder(evaluate)
    evaluate.add_argument("--model", help="id in the project or a folder (default: the current model)")
    device_option(evaluate)


def _next(commands: Commands) -> None:
    following = command(
        commands,
        "next",
        model_commands.next_cases,
        "name the cases to correct next, with what is known of them",
        "  barl next study --count 3\n  barl next study --rule uncertain",
    )
    project_folder(following)
    following.add_argument("--count", type=int, default=5, help="how many to name (5)")
    following.add_argument(
        "--rule",
        choices=tuple(RULES),
        default="random",
        help="random (default: no rule taught more); uncertain; different (from the outlined ones); both",
    )


def _export(commands: Commands) -> None:
    export = command(
        commands,
        "export",
        case_commands.export,
        "copy images and accepted outlines for other programs",
        "  barl export study dataset/ --layout nnunet\n"
        "  barl export study results/ --layout table --predictions     volumes and lesions of all cases\n"
        "  barl export study results/ --layout dicom-seg --source disc/",
    )
    project_folder(export)
    export.add_argument("folder", type=Path, help="a new folder")
    export.add_argument(
        "--layout",
        choices=LAYOUTS,
        default="nnunet",
        help="nnunet (default) and monai to train on; plain, seg-nrrd and dicom-seg; surfaces as stl or obj; "
        "a table of volumes and lesions",
    )
    export.add_argument("--predictions", action="store_true", help="also predictions of cases without an outline")
    export.add_argument("--source", type=Path, metavar="FOLDER", help="with dicom-seg: the DICOM series of the scans")


def _models(commands: Commands) -> None:
    models = command(commands, "models", None, "list, choose, send and receive models", "  barl models list study")
    actions = models.add_subparsers(title="actions", metavar="ACTION")
    listing = command(
        actions, "list", model_commands.list_models, "list the models of a project", "  barl models list study"
    )
    project_folder(listing)
    show = command(
        actions,
        "show",
        model_commands.show_model,
        "show what a model is and what it was made from",
        "  barl models show study model_0002\n  barl models show some/model/folder",
    )
    show.add_argument("where", type=Path, metavar="PROJECT_OR_MODEL", help="a project's or a model's folder")
    show.add_argument("model", nargs="?", help="id in the project (default: the current model)")
    promote = command(
        actions,
        "promote",
        model_commands.promote,
        "make a model the one that predicts",
        "  barl models promote study model_0002",
    )
    project_folder(promote)
    promote.add_argument("model", help="its id")
    model_file_commands.add_parsers(actions)
