# SPDX-License-Identifier: Apache-2.0
"""``python -m barl.remote.far FOLDER``: the worker on the other computer, which keeps what it is sent in ``FOLDER``.

files/<sha256>    content of images, label maps and weights
work/<name>/      projects made of them, each for one job
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from barl.errors import BarlError, InputError, storage_error
from barl.project.files import sha256
from barl.project.store import FILE_NAME, Project
from barl.remote import messages
from barl.worker.messages import Nothing, Request, Run
from barl.worker.server import Context, Handler

PIECE_BYTES = 2 << 20
_HASH = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# A file that nobody has gone on sending for so long (s) is removed.
_PART_AGE_S = 24 * 3600.0


class FarFiles:
    """Answers the requests of ``barl.remote.messages``.

    Args:
        home: BARL's folder on this computer; made if missing, readable by the user alone.
    """

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self._files, self._work = self.home / "files", self.home / "work"
        for folder in (self.home, self._files, self._work):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        for part in self._files.glob("*.part*"):
            if time.time() - part.stat().st_mtime > _PART_AGE_S:
                part.unlink(missing_ok=True)

    def handlers(self) -> dict[type[Request], Handler]:
        return {
            messages.ListMissing: self.list_missing,
            messages.TakePiece: self.take_piece,
            messages.LayOut: self.lay_out,
            messages.Discard: self.discard,
            messages.ListFiles: self.list_files,
            messages.GivePiece: self.give_piece,
            messages.QueueTraining: self.queue_training,
            messages.Forget: self.forget,
        }

    def list_missing(self, context: Context, request: messages.ListMissing) -> messages.Hashes:
        return messages.Hashes([digest for digest in request.hashes if not self._file(digest).is_file()])

    def take_piece(self, context: Context, request: messages.TakePiece) -> Nothing:
        place = self._file(request.sha256)
        part = place.with_name(f"{place.name}.part{os.getpid()}")
        try:
            data = base64.b64decode(request.data, validate=True)
        except binascii.Error:
            raise InputError("A piece of a file is not base64.", "Use a BARL of the same version.") from None
        try:
            with part.open("wb" if request.offset == 0 else "ab") as file:
                if file.tell() != request.offset:
                    raise InputError("The pieces of a file came in the wrong order.", "Send the file again.")
                file.write(data)
                if request.last:
                    file.flush()
                    os.fsync(file.fileno())
            if not request.last:
                return Nothing()
            if sha256(part) != request.sha256:
                part.unlink()
                raise InputError("A file was altered on its way.", "Send the file again.")
            part.replace(place)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise storage_error(error, part) from error
        return Nothing()

    def lay_out(self, context: Context, request: messages.LayOut) -> messages.Folder:
        folder = self._inside("work", request.folder)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            for path in request.folders:
                self._inside("work", request.folder, *path.split("/")).mkdir(parents=True, exist_ok=True)
            for path, digest in request.files.items():
                place = self._inside("work", request.folder, *path.split("/"))
                place.parent.mkdir(parents=True, exist_ok=True)
                if place.name == FILE_NAME:  # the only file that is changed in place
                    shutil.copyfile(self._file(digest), place)
                else:
                    _link(self._file(digest), place)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise storage_error(error, folder) from error
        return messages.Folder(str(folder))

    def discard(self, context: Context, request: messages.Discard) -> Nothing:
        shutil.rmtree(self._inside("work", request.folder), ignore_errors=True)
        return Nothing()

    def list_files(self, context: Context, request: messages.ListFiles) -> messages.FileNames:
        folder = self._inside("work", *request.folder.split("/"))
        return messages.FileNames(sorted(path.name for path in folder.glob("*") if path.is_file()))

    def give_piece(self, context: Context, request: messages.GivePiece) -> messages.Piece:
        path = self._inside("work", *request.path.split("/"))
        try:
            with path.open("rb") as file:
                file.seek(request.offset)
                data = file.read(PIECE_BYTES)
                last = not file.read(1)
        except FileNotFoundError:
            raise InputError(
                f"There is no file {request.path} on the other computer.", "Start the job again."
            ) from None
        except OSError as error:
            raise storage_error(error, path) from error
        return messages.Piece(base64.b64encode(data).decode(), last)

    def queue_training(self, context: Context, request: messages.QueueTraining) -> Run:
        from barl.jobs.train_job import TrainingOptions, prepare_run

        with Project.open(request.project) as project:
            run = prepare_run(project, TrainingOptions.from_json(request.options or {}), context.progress)
        return Run(run.id, run.state, run.created, str(run.folder))

    def forget(self, context: Context, request: messages.Forget) -> Nothing:
        for folder in self._work.glob("*"):
            if not _trains(folder):
                shutil.rmtree(folder, ignore_errors=True)
        kept = {path.stat().st_ino for path in self._work.rglob("*") if path.is_file()}
        for path in self._files.glob("*"):
            if path.stat().st_ino not in kept:
                path.unlink(missing_ok=True)
        return Nothing()

    def _file(self, digest: str) -> Path:
        if not _HASH.fullmatch(digest):
            raise InputError(f"'{digest[:80]}' is no SHA-256.", "Use a BARL of the same version.")
        return self._files / digest

    def _inside(self, *names: str) -> Path:
        """The place of ``names`` below the home, without links and without a way out of it."""
        path = self.home
        for name in names:
            if not _NAME.fullmatch(name):
                raise InputError(f"'{name[:80]}' is no name of a file of BARL.", "Use a BARL of the same version.")
            path = path / name
            if path.is_symlink():
                raise InputError(f"'{name[:80]}' is a link.", "Remove it on the other computer.")
        return path


def _link(source: Path, place: Path) -> None:
    try:
        os.link(source, place)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, place)


def _trains(folder: Path) -> bool:
    """Whether a project in ``folder`` has a run that trains, or cannot be asked."""
    if not (folder / FILE_NAME).is_file():
        return False
    try:
        with Project.open(folder, read_only=True) as project:
            return any(run.is_running for run in project.runs.all())
    except BarlError:
        return True


def main() -> int:
    from barl.worker.streams import serve

    def handlers() -> dict[type[Request], Any]:
        from barl.worker.requests import handlers as of_a_worker

        return {**of_a_worker(), **FarFiles(Path(sys.argv[1])).handlers()}

    serve(handlers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
