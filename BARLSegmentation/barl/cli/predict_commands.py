# SPDX-License-Identifier: Apache-2.0
"""``barl predict``: cases of a project, a folder of scans, or one scan."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from barl.cli import cluster_commands, computer_commands
from barl.cli.command import command, device_option
from barl.cli.terminal import Terminal
from barl.errors import InputError
from barl.images.geometry import Roi
from barl.project.database import FILE_NAME
from barl.project.scans import list_volumes
from barl.project.store import Project

if TYPE_CHECKING:
    from barl.cli.command import Commands
    from barl.jobs.compute import Compute
    from barl.jobs.outputs import Output

# The jobs import torch: they are imported inside functions, so that the other commands answer at once.


def add_parser(commands: Commands) -> None:
    """Add the command to ``barl``."""
    parser = command(
        commands,
        "predict",
        predict,
        "predict cases of a project, a folder of scans or a scan",
        "  barl predict study                                   all cases that need an outline\n"
        "  barl predict study case7 case8\n"
        "  barl predict study --output maps/ --uncertainty      also as files named after the cases\n"
        "  barl predict scans/ --model model/ --output maps/    a folder of scans, without a project\n"
        "  barl predict scan.nii.gz --model model/ --output labels.nii.gz",
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="project and cases; or with --model: a folder, or a scan per channel"
    )
    parser.add_argument("--model", help="a model's folder, or its id in the project (default: the current one)")
    parser.add_argument(
        "--output", type=Path, metavar="PATH", help="write label maps to this folder, or that of a scan to this file"
    )
    parser.add_argument(
        "--uncertainty",
        nargs="?",
        const="",
        metavar="FILE",
        help="with --output: write the uncertainty as well, beside the label maps or, of one scan, to this file",
    )
    parser.add_argument(
        "--probabilities", action="store_true", help="with --output FOLDER: write the probability of each label as well"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    parser.add_argument(
        "--fast",
        action="store_true",
        help="one branch and fewer windows: a fifth of the work, rougher uncertainty",
    )
    parser.add_argument("--no-cleanup", action="store_true", help="leave small pieces and holes as they are predicted")
    parser.add_argument(
        "--roi", type=float, nargs=6, metavar=("X0", "X1", "Y0", "Y1", "Z0", "Z1"), help="only this box, in mm (LPS)"
    )
    device_option(parser)
    computer_commands.computer_options(parser)
    cluster_commands.cluster_options(parser)
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="with --cluster: divide the cases into N jobs")


def predict(options: Namespace, terminal: Terminal) -> int:
    from barl.jobs.compute import Compute

    if options.output is None and (options.uncertainty is not None or options.probabilities or options.overwrite):
        raise InputError(
            "--uncertainty, --probabilities and --overwrite go with --output.",
            "Name a folder with --output; a project keeps the uncertainty of its predictions.",
        )
    cluster_commands.check_options(options)
    compute = Compute(options.device, options.fast, cleanup=not options.no_cleanup)
    roi = Roi.from_bounds_mm(options.roi) if options.roi else None
    first = Path(options.inputs[0])
    if (first / FILE_NAME).is_file() or not (options.model or options.output):
        return _predict_project(options, compute, roi, terminal)
    if options.cluster or options.computer:
        raise InputError(
            "--cluster and --computer are for the cases of a project.",
            "Add the scans to a project, or predict them here.",
        )
    if not options.model:
        if not first.exists():
            raise InputError(f"There is no project or scan {first}.", "Check the path.")
        raise InputError("A scan without a project needs a model.", "Add --model with a model's folder.")
    if len(options.inputs) == 1 and first.is_dir() and list_volumes(first)[0]:
        return _predict_folder(first, options, compute, roi, terminal)
    return _predict_scan(options, compute, roi, terminal)


def _predict_project(options: Namespace, compute: Compute, roi: Roi | None, terminal: Terminal) -> int:
    from barl.jobs.predict import predict_cases

    output = _output(options)
    if output is not None and options.computer:
        raise InputError("--output writes what this computer predicts.", "Leave away --output or --computer.")
    with Project.open(Path(options.inputs[0])) as project:
        wanted = [project.cases.find(name).id for name in options.inputs[1:]]
        if options.cluster:
            if output is not None or options.computer:
                raise InputError("--cluster predicts into the project.", "Leave away --output and --computer.")
            return cluster_commands.predict(options, terminal, wanted)
        if options.computer:
            result = computer_commands.predict(options, terminal, wanted)
        else:
            result = predict_cases(
                project,
                wanted,
                model=options.model,
                compute=compute,
                roi=roi,
                progress=terminal.progress,
                output=output,
            )
    return _answer(result, terminal)


def _predict_folder(folder: Path, options: Namespace, compute: Compute, roi: Roi | None, terminal: Terminal) -> int:
    from barl.jobs.outputs import predict_folder

    output = _output(options)
    if output is None:
        raise InputError("A folder of scans needs a folder for the label maps.", "Name it with --output.")
    result = predict_folder(Path(options.model), folder, output, compute=compute, roi=roi, progress=terminal.progress)
    return _answer(result, terminal)


def _predict_scan(options: Namespace, compute: Compute, roi: Roi | None, terminal: Terminal) -> int:
    from barl.jobs.predict import predict_files

    if options.output is None:
        raise InputError("A scan needs a file for its label map.", "Name it with --output, such as labels.nii.gz.")
    if options.probabilities:
        raise InputError("--probabilities is for projects and folders.", "Put the scan into a folder of its own.")
    if options.uncertainty == "":
        raise InputError("--uncertainty of a single scan needs a file.", "Name it, such as uncertainty.nii.gz.")
    result = predict_files(
        Path(options.model),
        [Path(scan) for scan in options.inputs],
        options.output,
        uncertainty=Path(options.uncertainty) if options.uncertainty else None,
        compute=compute,
        roi=roi,
        progress=terminal.progress,
        overwrite=options.overwrite,
    )
    terminal.answer(result, "\n".join([f"Wrote {options.output}.", *_findings(result)]))
    return 0


def _output(options: Namespace) -> Output | None:
    from barl.jobs.outputs import Output

    if options.output is None:
        return None
    if options.uncertainty:
        raise InputError(
            f"--uncertainty names the file {options.uncertainty}, but there may be many.",
            "Put --uncertainty last and without a name: the files lie beside the label maps.",
        )
    return Output(options.output, options.uncertainty is not None, options.probabilities, options.overwrite)


def _answer(result: dict[str, Any], terminal: Terminal) -> int:
    """Each case with its uncertainty and where its label map lies."""
    lines = []
    for case in result["cases"]:
        place = case["written"][0] if "written" in case else case["label"]
        expected = case.get("expected_dice")
        words = f", expected Dice {expected:.2f}" if expected is not None else ""
        lines.append(f"{case['name']}: uncertainty {case['case_uncertainty']:.3f}{words}, {place}")
        lines += [f"  {note}" for note in case["notes"] if len(result["cases"]) > 1]
    if len(result["cases"]) == 1:
        lines += _findings(result["cases"][0])
    lines += [f"Left out {case['name']}: {case['message']} {case['remedy']}" for case in result["failed"]]
    terminal.answer(result, "\n".join(lines))
    return InputError.exit_code if result["failed"] else 0


def _findings(result: dict) -> list[str]:
    """Volumes, hot-spots and notes of one prediction in words."""
    lines = []
    for volume in result["volumes"]:
        lines.append(f"  {volume['name']}: {volume['ml']:.2f} ml{_spread(volume)}")
    for spot in result["hotspots"][:3]:
        place = ", ".join(f"{part:.1f}" for part in spot["position_mm"])
        lines.append(f"  {spot['kind']} at {place} mm (LPS): {spot['volume_ml']:.2f} ml")
    return lines + [f"  {note}" for note in result["notes"]]


def _spread(volume: dict[str, Any]) -> str:
    """Where the true volume lies, or how far the branches differ."""
    if volume.get("interval_ml"):
        low, high = volume["interval_ml"]
        return f", in {volume['level']:.0%} of cases {low:.2f} to {high:.2f} (from {volume['cases']} unseen cases)"
    differ = volume["low_ml"] < volume["high_ml"]
    return f", the branches {volume['low_ml']:.2f} to {volume['high_ml']:.2f}" if differ else ""
