# SPDX-License-Identifier: Apache-2.0
"""Commands as jobs of a cluster, through the package submitit: Slurm, or processes of this computer.

submitit hands a job over as a pickle that it writes and reads itself; it lies in a new folder that only the user may
read, and never in a project.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barl.errors import DeviceError, InputError

CLUSTERS = ("slurm", "local")
_LOOK_S = 0.5
_TRIES = 5  # of a job that is killed again and again
_TAIL = 2000  # characters of what a command said


@dataclass(frozen=True)
class Command:
    """A command that a job runs.

    Attributes:
        arguments: The program and its arguments.
    """

    arguments: tuple[str, ...]

    def __call__(self) -> tuple[int, str, str]:
        """Run it; gives its exit code (below 0: killed by that signal), its output, and the end of its complaints."""
        done = subprocess.run(self.arguments, capture_output=True, text=True, errors="replace", check=False)
        return done.returncode, done.stdout, done.stderr[-_TAIL:]

    def checkpoint(self) -> Any:
        """What submitit sends again when the cluster takes the place away: the same, it goes on where it was."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


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


def run_jobs(
    commands: Sequence[Callable[[], Sequence[str]]],
    cluster: str,
    settings: Mapping[str, Any],
    *,
    on_sent: Callable[[int, str], None] = lambda number, job: None,
    on_killed: Callable[[int], None] = lambda number: None,
) -> list[Ended]:
    """Send commands as jobs and wait for them; one that is killed is sent again.

    Args:
        commands: Each gives program and arguments whenever it is sent: what is left to do; nothing: it is done.
        cluster: ``slurm``, or ``local`` for processes of this computer.
        settings: Parameters of ``submitit.AutoExecutor``, such as ``timeout_min`` or ``slurm_partition``.
        on_sent: Gets the number of a command and the job's id.
        on_killed: Gets the number of a command whose job was killed, before it is sent again.

    Raises:
        DeviceError: submitit or Slurm is missing, or a job was killed too often.
        InputError: The cluster has no such setting.
    """
    executor = _executor(cluster, settings)
    waiting: dict[int, Any] = {}
    tries = [0] * len(commands)
    ended: dict[int, Ended] = {}

    def send(number: int) -> None:
        tries[number] += 1
        arguments = commands[number]()
        if not arguments:
            ended[number] = Ended(0)
            return
        waiting[number] = executor.submit(Command(tuple(arguments)))
        on_sent(number, waiting[number].job_id)

    for number in range(len(commands)):
        send(number)
    try:
        _wait(waiting, ended, tries, send, on_killed)
    finally:
        shutil.rmtree(executor.folder, ignore_errors=True)
    return [ended[number] for number in range(len(commands))]


def _wait(
    waiting: dict[int, Any],
    ended: dict[int, Ended],
    tries: Sequence[int],
    send: Callable[[int], None],
    on_killed: Callable[[int], None],
) -> None:
    """Until nothing is left of ``waiting``."""
    while waiting:
        for number, job in [(number, job) for number, job in waiting.items() if job.done()]:
            del waiting[number]
            outcome = _outcome(job)
            if outcome is not None:
                ended[number] = outcome
                continue
            on_killed(number)
            if tries[number] == _TRIES:
                raise DeviceError(
                    f"The job {job.job_id} was killed {_TRIES} times.",
                    "Give it more memory or time: --cluster-set mem_gb=32 --cluster-set timeout_min=600.",
                )
            send(number)
        time.sleep(_LOOK_S)


def _outcome(job: Any) -> Ended | None:
    """How the command of a job ended; None if it or its job was killed."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        code, output, complaints = job.result()
    except (UncompletedJobError, FailedJobError):
        return None
    return Ended(code, output, complaints) if 0 <= code < 128 else None


def _executor(cluster: str, settings: Mapping[str, Any]) -> Any:
    try:
        import submitit
    except ImportError:
        raise DeviceError(
            "Jobs on a cluster need the package submitit, which is not installed.",
            "Install it: pip install barl-segmentation[cluster].",
        ) from None
    logging.getLogger("submitit").setLevel(logging.ERROR)  # a cluster without accounting would be told at every look
    place = Path.home() / ".barl" / "jobs"
    place.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(dir=place)  # mode 0700; on a cluster the home folder is there on all nodes
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster)
        executor.update_parameters(**{"timeout_min": 24 * 60, **settings})
    except RuntimeError as error:
        raise DeviceError(f"The cluster {cluster} cannot be used here ({error}).", "Run it where sbatch is.") from error
    except (NameError, TypeError, ValueError) as error:
        raise InputError(
            f"A setting of the cluster is not possible ({error}).", "See submitit's parameters."
        ) from error
    return executor
