# SPDX-License-Identifier: Apache-2.0
"""Lines and messages of the worker protocol; standard library only, shared by both ends."""

from __future__ import annotations

import json
from collections.abc import Mapping

from barl import errors
from barl.json_text import dumps

VERSION = 1
# A longer line is refused: volumes never pass through the pipe, and an endless line would fill the memory.
MAX_LINE = 16 * 1024 * 1024
# The events that end a request; every accepted request gets exactly one of them.
FINAL_EVENTS = frozenset({"result", "error"})


class ProtocolError(errors.BarlError):
    """A line that is not a message of the protocol."""


def encode(message: Mapping) -> bytes:
    """One message as one UTF-8 line, newline included."""
    return dumps(message).encode() + b"\n"


def decode(line: bytes) -> dict:
    """The message of one line.

    Raises:
        ProtocolError: the line is not UTF-8 JSON with an object at its top.
    """
    if len(line) > MAX_LINE:
        raise ProtocolError("A line of the worker protocol is too long.", "Pass volumes as files, not in the message.")
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise ProtocolError(
            "A line of the worker protocol is not a JSON object.", 'Send one line like {"id": "1", "request": "hello"}.'
        )
    return message


class LineBuffer:
    """Splits a stream of bytes, which arrives in pieces of any size, into lines."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; give back the lines that are complete now, without newline and without blank lines."""
        self._rest += data
        if b"\n" not in data:
            return []
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        return [line for line in lines if line.strip()]


def error_event(error: errors.BarlError) -> dict:
    """The fields of an ``error`` event."""
    return {
        "event": "error",
        "class": error.kind,
        "message": error.message,
        "remedy": error.remedy,
        "exit_code": error.exit_code,
    }


def error_from_event(event: Mapping) -> errors.BarlError:
    """The exception of an ``error`` event, as the class of ``barl.errors`` that it names, if there is one."""
    kind = getattr(errors, str(event.get("class")), errors.BarlError)
    if not (isinstance(kind, type) and issubclass(kind, errors.BarlError)):
        kind = errors.BarlError
    return kind(str(event.get("message", "The worker reported an error.")), str(event.get("remedy", "")))
