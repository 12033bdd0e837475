# SPDX-License-Identifier: Apache-2.0
"""The requests that only a worker on another computer answers; standard library only.

They extend ``barl.worker.messages``. Paths are relative to the folder that BARL has on that computer, with ``/``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from barl.worker.messages import Nothing, Request, Run


@dataclass(frozen=True)
class Hashes:
    """SHA-256 of files, as hexadecimal digits."""

    hashes: list[str]


@dataclass(frozen=True)
class ListMissing(Request[Hashes]):
    """Say which of these files are not there."""

    name, answer = "list_missing", Hashes
    hashes: list[str]


@dataclass(frozen=True)
class TakePiece(Request[Nothing]):
    """Take bytes of a file, in order from offset 0. With ``last`` the file is compared with its hash and kept."""

    name, answer = "take_piece", Nothing
    sha256: str
    offset: int
    data: str  # base64
    last: bool = False


@dataclass(frozen=True)
class Folder:
    """A folder on the other computer. ``path``: absolute."""

    path: str


@dataclass(frozen=True)
class LayOut(Request[Folder]):
    """Make a folder of files that are there. ``files``: path in the folder -> SHA-256. ``folders``: empty ones."""

    name, answer = "lay_out", Folder
    folder: str
    files: dict[str, str]
    folders: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Discard(Request[Nothing]):
    """Remove a folder that ``LayOut`` made; its files stay for the next one."""

    name, answer = "discard", Nothing
    folder: str


@dataclass(frozen=True)
class FileNames:
    """Names of files."""

    names: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ListFiles(Request[FileNames]):
    """List the files right inside a folder."""

    name, answer, quick = "list_files", FileNames, True
    folder: str


@dataclass(frozen=True)
class Piece:
    """Bytes of a file. ``last``: the file ends with them."""

    data: str  # base64
    last: bool


@dataclass(frozen=True)
class GivePiece(Request[Piece]):
    """Give the next bytes of a file."""

    name, answer, quick = "give_piece", Piece, True
    path: str
    offset: int = 0


@dataclass(frozen=True)
class QueueTraining(Request[Run]):
    """Enter a training as a queued run, which ``ResumeTraining`` starts."""

    name, answer = "queue_training", Run
    project: str
    options: dict | None = None


@dataclass(frozen=True)
class Forget(Request[Nothing]):
    """Remove every file of a project that was sent, but not what a training there still needs."""

    name, answer = "forget", Nothing
