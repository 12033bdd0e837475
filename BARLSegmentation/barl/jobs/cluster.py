# SPDX-License-Identifier: Apache-2.0
"""Commands as jobs of a cluster: Slurm, or processes of this computer.

A job is a shell script of one command line, which writes the command's output and exit code into files. The files lie
in a new folder that only the user may read, and never in a project. Why not submitit: docs/decisions/0009-slurm.md.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from barl.errors import DeviceError, InputError

CLUSTERS = ("slurm", "local")
_LOOK_S = {"slurm": 5.0, "local": 0.5}
_MISSES = 2  # Slurm's queue lacks a job so often before it counts as killed: files of another node may come late
_TRIES = 5  # of a job that is killed again and again
_TAIL = 2000  # characters of what a command said
_DAY_MIN = 24 * 60
_SCRIPT = """#!/bin/sh
{exports}{command} </dev/null >{place}.out 2>{place}.err
echo $? >{place}.part && mv {place}.part {place}.code
"""


@dataclass(frozen=True)
class Ended:
    """A job that has ended.

    Attributes:
        code: Exit code of its command.
        output: What the command wrote to standard output.
        complaints: The end of what it wrote to standard error.
    """

    code: int
    output: str = ""
    complaints: str = ""


@dataclass
class _Job:
    """A job that was sent.

    Attributes:
        id: Slurm's number of it, or that of its process.
        place: Path of its files without their endings.
        process: That of a local job.
        misses: So often in turn Slurm's queue lacked it.
    """

    id: str
    place: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    misses: int = 0


def run_jobs(
    commands: Sequence[Callable[[], Sequence[str]]],
    cluster: str,
    settings: Mapping[str, str],
    *,
    variables: Mapping[str, str] = MappingProxyType({}),
    on_sent: Callable[[int, str], None] = lambda number, job: None,
    on_killed: Callable[[int], None] = lambda number: None,
) -> list[Ended]:
    """Send commands as jobs and wait for them; one that is killed is sent again.

    Args:
        commands: Each gives program and arguments whenever it is sent: what is left to do; nothing: it is done.
        cluster: ``slurm``, or ``local`` for processes of this computer.
        settings: Options of ``sbatch`` by their long names, such as ``partition`` or ``gpus-per-node``; ``local`` has
            none.
        variables: Of the commands' environment; the script sets them, since a cluster may hand none over.
        on_sent: Gets the number of a command and the job's id.
        on_killed: Gets the number of a command whose job was killed, before it is sent again.

    Raises:
        DeviceError: Slurm is missing, or a job was killed too often.
        InputError: Slurm does not take a job with these settings.
    """
    if cluster == "slurm" and any(shutil.which(program) is None for program in ("sbatch", "squeue")):
        raise DeviceError("Slurm is not installed here: there is no sbatch.", "Give the command where sbatch is.")
    base = Path.home() / ".barl" / "jobs"
    base.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=base))  # mode 0700; on a cluster the home folder is there on all nodes
    waiting: dict[int, _Job] = {}
    tries = [0] * len(commands)
    ended: dict[int, Ended] = {}

    def send(number: int) -> None:
        tries[number] += 1
        arguments = commands[number]()
        if not arguments:
            ended[number] = Ended(0)
            return
        place = folder / f"{number}-{tries[number]}"
        waiting[number] = _send(arguments, place, variables, settings if cluster == "slurm" else None)
        on_sent(number, waiting[number].id)

    try:
        for number in range(len(commands)):
            send(number)
        while waiting:
            time.sleep(_LOOK_S[cluster])
            for number in _gone(waiting):
                job = waiting.pop(number)
                if outcome := _outcome(job.place):
                    ended[number] = outcome
                    continue
                on_killed(number)
                if tries[number] == _TRIES:
                    raise DeviceError(
                        f"The job {job.id} was killed {_TRIES} times.",
                        "Give it more memory or time: --cluster-set mem=32G --cluster-set time=600.",
                    )
                send(number)
    finally:
        if not waiting:  # jobs that go on write there
            shutil.rmtree(folder, ignore_errors=True)
    return [ended[number] for number in range(len(commands))]


def _send(
    arguments: Iterable[str], place: Path, variables: Mapping[str, str], settings: Mapping[str, str] | None
) -> _Job:
    """Send a command to Slurm, or without settings start it here."""
    script = place.with_suffix(".sh")
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    text = _SCRIPT.format(exports=exports, command=shlex.join(arguments), place=shlex.quote(str(place)))
    script.write_text(text, encoding="utf-8")
    if settings is None:
        process = subprocess.Popen(["sh", str(script)])
        return _Job(str(process.pid), place, process)
    options = {"job-name": "barl", "time": str(_DAY_MIN), "output": f"{place}.log", **settings}
    # A job that the cluster takes the place away from ends, and is sent again from here with what is left to do.
    words = ["--parsable", "--no-requeue", *(f"--{name}={value}" for name, value in options.items())]
    done = subprocess.run(["sbatch", *words, str(script)], capture_output=True, text=True, check=False)
    if done.returncode:
        reasons = done.stderr.strip().splitlines() or ["no reason given"]
        raise InputError(
            f"Slurm does not take the job ({reasons[0]}).", "--cluster-set takes options of sbatch: sbatch --help."
        )
    return _Job(done.stdout.strip().partition(";")[0], place)


def _gone(waiting: Mapping[int, _Job]) -> list[int]:
    """The numbers of the jobs that have ended or were killed."""
    queue = None if all(job.process for job in waiting.values()) else _queue()
    gone = []
    for number, job in waiting.items():
        if job.process is not None:
            over = job.process.poll() is not None
        else:
            job.misses = job.misses + 1 if queue is not None and job.id not in queue else 0
            over = job.misses >= _MISSES or job.place.with_suffix(".code").exists()
        if over:
            gone.append(number)
    return gone


def _queue() -> set[str] | None:
    """The jobs that wait or run in Slurm; None if it does not answer at this moment."""
    done = subprocess.run(["squeue", "--me", "-a", "-h", "-o", "%A"], capture_output=True, text=True, check=False)
    return set(done.stdout.split()) if done.returncode == 0 else None


def _outcome(place: Path) -> Ended | None:
    """How the command of a job ended; None if it or its job was killed."""
    try:
        code = int(place.with_suffix(".code").read_text())
    except FileNotFoundError:
        return None
    texts = [place.with_suffix(end).read_text(encoding="utf-8", errors="replace") for end in (".out", ".err")]
    return Ended(code, texts[0], texts[1][-_TAIL:]) if code < 128 else None
