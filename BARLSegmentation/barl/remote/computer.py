# SPDX-License-Identifier: Apache-2.0
"""Another computer, reached by the system's own ``ssh``: what it has, what it lacks, and a worker on it.

No port is opened and no password is kept: names, keys and host keys are matters of ``ssh`` and its configuration. The
variable ``BARL_SSH`` replaces the command ``ssh`` (``BARL_SSH="ssh -F my_config"``). The other computer needs a POSIX
shell and a Python; this very version of the engine is sent to it.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
import shlex
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import barl
from barl.errors import BarlError, DeviceError, InputError
from barl.worker.client import WorkerProcess

# BARL's folder on the other computer, in the user's home folder unless it begins with a slash.
HOME = ".barl"
_ADDRESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:%+-]*")
_OPTIONS = ("-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15")
# What the shell there answers with: ssh itself uses 255.
_NO_ENGINE, _NO_PYTHON, _NO_VENV = 71, 72, 73
# What the engine needs there (``Resources/requirements.txt`` and what Slicer's own Python has).
NEEDED = ("torch", "monai", "safetensors", "jsonschema", "filelock", "psutil", "numpy", "scipy", "SimpleITK", "pydicom")
_LOOK = """
import json, platform, shutil, sys
from importlib.metadata import PackageNotFoundError, version
def has(name):
    try:
        return version(name) or ""
    except PackageNotFoundError:
        return ""
print(json.dumps({"python": platform.python_version(), "system": platform.system() + " " + platform.machine(),
                  "packages": {name: has(name) for name in sys.argv[1].split(",")},
                  "free": shutil.disk_usage(".").free, "card": shutil.which("nvidia-smi") is not None}))
"""


@dataclass(frozen=True)
class Found:
    """What another computer has.

    Attributes:
        python: Version of its Python.
        missing: Packages that predicting and training need and that are not there.
        free_bytes: Room for BARL's folder.
        has_card: There is the driver of an NVIDIA card.
    """

    python: str
    missing: tuple[str, ...]
    free_bytes: int
    has_card: bool

    @property
    def is_ready(self) -> bool:
        return not self.missing and self.python_is_new_enough

    @property
    def python_is_new_enough(self) -> bool:
        return tuple(map(int, self.python.split(".")[:2])) >= (3, 11)

    def in_words(self) -> str:
        """One sentence."""
        if not self.python_is_new_enough:
            return f"Its Python is {self.python}: BARL needs 3.11 or newer."
        if self.missing:
            return f"Its Python {self.python} lacks {', '.join(self.missing)}."
        card = "an NVIDIA card" if self.has_card else "no NVIDIA card"
        return f"It is ready: Python {self.python}, {card}, {self.free_bytes / 2**30:.0f} GB free."


@dataclass(frozen=True)
class Computer:
    """A computer that ``ssh`` reaches without asking.

    Args:
        address: ``host``, ``user@host`` or a name of ssh's configuration.
        python: The Python there; empty: that of ``prepare``, or else ``python3``.
        home: BARL's folder there.

    Raises:
        InputError: The address cannot be one.
    """

    address: str
    python: str = ""
    home: str = HOME

    def __post_init__(self) -> None:
        if not _ADDRESS.fullmatch(self.address):
            raise InputError(f"'{self.address}' is no address of a computer.", "Write it as for ssh: user@host.")

    def command(self, shell: str) -> list[str]:
        """The local command that runs a line of shell in BARL's folder there."""
        home = shlex.quote(self.home)
        program = shlex.split(os.environ.get("BARL_SSH", "ssh"))
        line = f"umask 077; mkdir -p {home} && cd {home} && {{ {shell}; }}"
        return [*program, *_OPTIONS, "--", self.address, f"sh -c {shlex.quote(line)}"]

    def look(self) -> Found:
        """What the computer has.

        Raises:
            DeviceError: It cannot be reached, or has no Python at all.
        """
        answer = self._run(f'{self._choose_python()}; "$PY" - {",".join(NEEDED)}', _LOOK.encode())
        try:
            found = json.loads(answer.strip().splitlines()[-1])
        except (ValueError, IndexError):
            raise DeviceError(
                f"The answer of {self.address} cannot be read.",
                "Check that its shell starts without printing or asking anything.",
            ) from None
        missing = tuple(name for name, version in found["packages"].items() if not version)
        return Found(found["python"], missing, found["free"], found["card"])

    def prepare(self) -> Found:
        """Make an environment for BARL in its folder there and install what is missing (minutes, several GB).

        Raises:
            DeviceError: It cannot be reached, or the installation failed.
        """
        packages = " ".join(name.lower() for name in NEEDED)
        self._run(
            f"{{ [ -x venv/bin/pip ] || python3 -m venv --clear venv || exit {_NO_VENV}; }} && "
            f"venv/bin/python -m pip install --disable-pip-version-check --quiet {packages} >&2",
            timeout=3600,
        )
        return self.look()

    def start(self) -> WorkerProcess:
        """A worker on the computer; this version of the engine is sent first if it is not there yet.

        Raises:
            DeviceError: The computer cannot be reached or has no Python.
        """
        archive, tag = _engine()
        ready = f"engine/{tag}/barl/__init__.py"
        check = f"[ -f {ready} ] || exit {_NO_ENGINE}"
        try:
            self._run(f"{check}; {self._choose_python()}")
        except _EngineMissingError:
            folder = f"engine/{tag}"
            self._run(
                f"rm -rf {folder}.new && mkdir -p {folder}.new && tar xzf - -C {folder}.new && rm -rf {folder} && "
                f"mv {folder}.new {folder}",
                archive,
            )
            self._run(f"{check}; {self._choose_python()}")
        variables = f'PYTHONPATH="$PWD/engine/{tag}" PYTHONSAFEPATH=1 MPLBACKEND=Agg'
        serve = f'exec env {variables} "$PY" -m barl.remote.far "$PWD"'
        return WorkerProcess(command=self.command(f"{self._choose_python()}; {serve}"), environment=_environment())

    def _choose_python(self) -> str:
        if self.python:
            return f'PY={shlex.quote(self.python)}; command -v "$PY" >/dev/null || exit {_NO_PYTHON}'
        return (
            "if [ -x venv/bin/python ]; then PY=venv/bin/python; else PY=python3; fi; "
            f'command -v "$PY" >/dev/null || exit {_NO_PYTHON}'
        )

    def _run(self, shell: str, data: bytes = b"", timeout: float = 120.0) -> str:
        try:
            done = subprocess.run(
                self.command(shell), input=data, capture_output=True, timeout=timeout, check=False, env=_environment()
            )
        except OSError as error:
            raise DeviceError(
                f"The command ssh cannot be run ({error.strerror}).", "Install OpenSSH's client on this computer."
            ) from error
        except subprocess.TimeoutExpired:
            raise DeviceError(
                f"{self.address} has not answered within {timeout:.0f} s.", "Check the network, then try again."
            ) from None
        if done.returncode == 0:
            return done.stdout.decode(errors="replace")
        if done.returncode == _NO_ENGINE:
            raise _EngineMissingError("The engine is not there yet.")
        raise self.failure(done.returncode, done.stderr.decode(errors="replace"))

    def failure(self, code: int, complaints: str) -> BarlError:
        """What a command there failed with, as a sentence."""
        last = next((line.strip() for line in reversed(complaints.splitlines()) if line.strip()), "no reason given")
        if code == 255:
            return DeviceError(
                f"{self.address} cannot be reached ({last[:200].rstrip('.')}).",
                f'Try "ssh {self.address}" in a terminal: it must connect without a question.',
            )
        if code == _NO_PYTHON:
            return DeviceError(
                f"{self.address} has no Python {self.python or 'named python3'}.",
                f'Install Python 3.11 or newer there, then run "barl computer prepare {self.address}".',
            )
        if code == _NO_VENV:
            return DeviceError(
                f"The Python of {self.address} cannot make an environment ({last[:200].rstrip('.')}).",
                "Install the package python3-venv there (Debian, Ubuntu), or choose another Python of that computer.",
            )
        return DeviceError(
            f"A command on {self.address} failed with code {code} ({last[:200].rstrip('.')}).",
            "Mend what it names on that computer, then try again.",
        )


def _environment() -> dict[str, str]:
    """This process's environment without what points to Slicer's own libraries: ssh needs the system's."""
    ours = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if name not in ours}


class _EngineMissingError(BarlError):
    """This version of the engine is not on the other computer."""


@functools.cache
def _engine() -> tuple[bytes, str]:
    """This package as an archive, the same bytes for the same files, and a name made of its content."""
    root = Path(barl.__file__).parent
    buffer, digest = io.BytesIO(), hashlib.sha256()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.suffix in (".py", ".json", ".html"):
                name, data = path.relative_to(root.parent).as_posix(), path.read_bytes()
                digest.update(f"{name}\0{len(data)}\0".encode() + data)
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(data), 0o644
                archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue(), f"{barl.__version__}-{digest.hexdigest()[:16]}"
